import { describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import { disagreements } from "./differences.ts";
import { gradFrom } from "./grad.ts";
import { recordHead } from "./head.ts";
import { type Program } from "./program.ts";
import { record } from "./record.ts";
import { evaluate } from "./twin.ts";

const [C, V] = [3, 5];

/** A layer before the head, so that the walk back goes on from dx; `rows` a chunk. */
function headProgram(N: number, rows: number): Program {
  const r = record("head");
  const params = r.state("params", [1 + C * C + 64 + V * C]);
  const grads = r.state("grads", r.shapeOf(params));
  const [w, weight] = [r.view("w", params, 1, [C, C]), r.view("head", params, 64, [V, C])];
  const x = r.matmul(r.input("features", [N, C]), w); // [N,C]
  const targets = r.input("targets", [N], "u32");
  const out = r.view("dhead", grads, 64, [V, C]);
  const { losses, dx } = recordHead(r, { x, weight, targets }, { logitsBytesMax: rows * V * 4, dweight: { out } });
  r.mean(losses, r.value("loss", [1]));
  return gradFrom(r.finish(["loss"]), new Map([[x, dx ?? 0]]));
}

function givenFor(N: number): Record<string, ArrayLike<number>> {
  const rng = createRng("head.test", N);
  const params = Float64Array.from({ length: 1 + C * C + 64 + V * C }, () => rng.normal());
  const features = Float64Array.from({ length: N * C }, () => rng.normal());
  return { params, features, targets: Uint32Array.from({ length: N }, () => rng.below(V)) };
}

describe("recordHead()", () => {
  for (const [N, rows, chunks] of [
    [1, 64, 1],
    [64, 64, 1],
    [65, 64, 2],
    [67, 1, 2],
    [200, 64, 4],
    [200, 130, 2],
    [200, 200, 1],
  ] as const) {
    test(`cuts ${N} rows into ${chunks} chunks for ${rows} rows of logits, with the gradients of one`, () => {
      const program = headProgram(N, rows);
      expect(program.ops.filter(({ type }) => type === "crossEntropy").length).toBe(chunks);
      const [parts, whole] = [program, headProgram(N, N)].map((one) => evaluate(one, givenFor(N)));
      for (const name of ["losses", "loss", "grads"]) {
        const [mine, theirs] = [parts?.get(name) ?? [], whole?.get(name) ?? []];
        const worst = Math.max(...Array.from(mine, (value, i) => Math.abs(value - (theirs[i] as number))));
        expect(worst, name).toBeLessThan(1e-12);
      }
    });
  }

  test("gives gradients that agree with central differences to 1e-6", () => {
    expect(disagreements(headProgram(70, 64), givenFor(70))).toEqual([]);
  });

  test("refuses what does not fit together", () => {
    const r = record("head");
    const [x, weight] = [r.input("x", [4, 3]), r.input("weight", [5, 2])];
    expect(() => recordHead(r, { x, weight, targets: r.input("targets", [4], "u32") })).toThrow("x has 3 columns");
    const fitting = r.input("fitting", [5, 3]);
    expect(() => recordHead(r, { x, weight: fitting, targets: r.input("few", [3], "u32") })).toThrow("4 rows");
  });
});
