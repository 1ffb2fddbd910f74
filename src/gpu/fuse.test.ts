/** Fusing must not change what a Program computes, and must save the dispatches it is there for. */
import { expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import { trainProgram } from "../model/llama.ts";
import type { ModelConfig } from "../protocol/charter.ts";
import { readsOf, writesOf } from "../tensor/program.ts";
import { record, sortTokens } from "../tensor/record.ts";
import { createTwin } from "../tensor/twin.ts";
import { fuse } from "./fuse.ts";

const MODEL: ModelConfig = {
  vocabulary: 11,
  channels: 8,
  layers: 4,
  heads: 2,
  kvHeads: 1,
  hidden: 12,
  time: 5,
  tied: true,
  ropeBase: 100,
  normEps: 1e-5,
  seed: 1,
};

test("fuse() leaves every result of a training step the same to the bit, in another order of ops", async () => {
  const program = { ...trainProgram(MODEL, 2), outputs: ["loss", "norm", "grads", "params"] };
  const fused = { ...program, ops: fuse(program, 8).flat(2) };
  expect(fused.ops.length).toBe(program.ops.length);
  const results = [];
  for (const one of [program, fused]) {
    using twin = createTwin();
    using plan = await twin.compile(one);
    const rng = createRng("fuse");
    twin.writeState(
      "params",
      Float32Array.from({ length: program.tensors.find(({ name }) => name === "params")?.shape[0] ?? 0 }, rng.float),
    );
    const tokens = Uint32Array.from({ length: 10 }, () => rng.below(11));
    const inputs = { tokens, targets: tokens.toReversed(), ...sortTokens(tokens, 11) };
    Object.entries(inputs).forEach(([name, values]) => plan.write(name, values));
    plan.write("hyper", Float32Array.of(1e-3, 0.9, 0.95, 1e-6, 0.1, 1, 10, 20));
    results.push(await plan.run(program.outputs));
  }
  expect(results[1]).toEqual(results[0]);
});

test("fuse() makes 87 groups of the 144 ops of a step with four layers, none of several with more than eight tensors", () => {
  const program = trainProgram({ ...MODEL, channels: 128, heads: 4, kvHeads: 4, hidden: 344, time: 128 }, 8);
  const groups = fuse(program, 8);
  expect([program.ops.length, groups.length]).toEqual([144, 87]);
  for (const group of groups.filter((ops) => ops.flat().length > 1)) {
    expect(new Set(group.flat().flatMap((op) => [...readsOf(op), ...writesOf(op)])).size).toBeLessThanOrEqual(8);
  }
});

test("fuse() keeps products apart that wait for each other, and a sum that the host reads", () => {
  const r = record("chain");
  const x = r.input("x", [4, 4]);
  const first = r.matmul(x, x);
  const second = r.matmul(x, first, { add: first });
  r.matmul(second, x);
  const chain = r.finish([]);
  expect(fuse(chain, 8).map((group) => group.flat().length)).toEqual([1, 1, 1]);

  const sums = (outputs: readonly string[]): number[] => {
    const s = record("sums");
    const a = s.input("a", [4, 4]);
    const part = s.matmul(a, s.input("b", [4, 4]), { out: s.value("part", [4, 4]) });
    s.matmul(s.input("c", [4, 4]), s.input("d", [4, 4]), { add: part });
    return fuse(s.finish(outputs), 8).map((group) => group.flat().length);
  };
  expect(sums([])).toEqual([2]);
  expect(sums(["part"])).toEqual([1, 1]);
});

test("fuse() keeps the order of what reads a state and what overwrites it", () => {
  const r = record("hazard");
  const state = r.state("weights", [128]);
  const [x, w] = [r.input("x", [4, 4]), r.view("w", state, 0, [4, 4])];
  r.matmul(x, w, { out: r.value("before", [4, 4]) });
  r.matmul(x, x, { out: w });
  r.matmul(x, w, { out: r.value("after", [4, 4]) });
  expect(fuse(r.finish(["before", "after"]), 8).length).toBe(3);
});
