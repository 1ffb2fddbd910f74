/** Fusing must not change what a Program computes, and must save the dispatches it is there for. */
import { describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import { trainProgram } from "../model/llama.ts";
import type { ModelConfig } from "../protocol/charter.ts";
import { costOf } from "../tensor/cost.ts";
import { elementCount, readsOf, writesOf, type Program } from "../tensor/program.ts";
import { record, sortTokens, type Recorder } from "../tensor/record.ts";
import { createTwin, evaluate } from "../tensor/twin.ts";
import { DISPATCH_FLOPS_MAX } from "./dispatch.ts";
import { fuse, type Group } from "./fuse.ts";

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

test("fuse() makes 79 groups of the 144 ops of a step with four layers, none of several with more than eight tensors", () => {
  const program = trainProgram({ ...MODEL, channels: 128, heads: 4, kvHeads: 4, hidden: 344, time: 128 }, 8);
  const groups = fuse(program, 8);
  expect([program.ops.length, groups.length]).toEqual([144, 79]);
  for (const group of groups.filter((ops) => ops.flat().length > 1)) {
    expect(new Set(group.flat().flatMap((op) => [...readsOf(op), ...writesOf(op)])).size).toBeLessThanOrEqual(8);
  }
});

describe("fuse() bounds what a dispatch has to compute", () => {
  const small = { ...MODEL, vocabulary: 256, channels: 128, heads: 4, kvHeads: 4, hidden: 344, time: 128 };
  const large = { ...small, vocabulary: 1024, channels: 256, layers: 6, heads: 8, kvHeads: 8, hidden: 688, time: 256 };
  const wide = { ...large, channels: 512, hidden: 1376, layers: 2 };
  const flopsIn = (program: Program, group: Group): number =>
    group.flat().reduce((sum, op) => sum + costOf(program, op).flops, 0);

  test.each([
    ["small", small, 8],
    ["large", large, 4],
  ])("which changes nothing in the %s step that is benchmarked", (_, model, batch) => {
    const program = trainProgram(model, batch);
    expect(fuse(program, 8)).toEqual(fuse(program, 8, { flopsMax: Infinity }));
  });

  test("and leaves large products to dispatches of their own", () => {
    const program = trainProgram(wide, 16);
    const [bounded, free] = [fuse(program, 8), fuse(program, 8, { flopsMax: Infinity })];
    const shared = (groups: readonly Group[]): number[] =>
      groups.filter((group) => group.flat().length > 1).map((group) => flopsIn(program, group));
    expect(Math.max(...shared(bounded))).toBeLessThanOrEqual(DISPATCH_FLOPS_MAX);
    expect(Math.max(...shared(free))).toBeGreaterThan(2e10);
    expect(bounded.flat(2).length).toBe(program.ops.length);
  });
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

describe("fuse() lets an elementwise op go on with the products that it reads", () => {
  /** The ops of each group of a Program, after seeing that they compute the same. */
  function groupsOf(build: (r: Recorder) => readonly string[], tensorsMax = 8): string[] {
    const r = record("elements");
    const program = r.finish(build(r));
    const groups = fuse(program, tensorsMax);
    const values = (ops: Program["ops"]) => {
      const rng = createRng("elements");
      const given = program.tensors
        .filter(({ role }) => role !== "value")
        .map(({ name, shape }) => [name, Float64Array.from({ length: elementCount(shape) }, rng.float)] as const);
      const all = evaluate({ ...program, ops }, Object.fromEntries(given));
      return program.outputs.map((name) => all.get(name));
    };
    expect(values(groups.flat(2))).toEqual(values(program.ops));
    return groups.map((group) => group.map((strand) => strand.map(({ type }) => type).join(" then ")).join(" | "));
  }
  const matrix = (r: Recorder, name: string) => r.input(name, [4, 4]);

  test("SwiGLU with both of its products, which stay where others read them", () => {
    const gated = (outputs: readonly string[]) =>
      groupsOf((r) => {
        const [x, bias] = [matrix(r, "x"), r.input("bias", [4])];
        r.swiglu(r.matmul(x, matrix(r, "v"), { bias }), r.matmul(x, matrix(r, "w"), { transB: true }));
        return outputs;
      });
    expect(gated(["gated"])).toEqual(["matmul then matmul then swiglu"]);
    expect(gated(["gated", "product", "product.2"])).toEqual(["matmul then matmul then swiglu"]);
  });

  test("SwiGLU's gradients with one product, beside another, within eight tensors", () => {
    const backward = (tensorsMax: number) =>
      groupsOf((r) => {
        const [dout, shape] = [matrix(r, "dout"), [4, 4]];
        const [dgate, dup] = [r.value("dgate", shape), r.value("dup", shape)];
        const dgated = r.matmul(dout, matrix(r, "w"));
        r.matmul(dout, matrix(r, "gated"), { transA: true, out: r.value("dw", shape) });
        const [gate, up] = [matrix(r, "gate"), matrix(r, "up")];
        r.push({ type: "swigluBackward", gate, up, dout: dgated, dgate, dup });
        return ["dgate", "dup", "dw"];
      }, tensorsMax);
    expect(backward(8)).toEqual(["matmul | matmul then swigluBackward"]);
    expect(backward(7)).toEqual(["matmul | matmul", "swigluBackward"]);
  });

  test("an addition with a sum of two products", () => {
    const ops = groupsOf((r) => {
      const [x, w] = [matrix(r, "x"), matrix(r, "w")];
      const sum = r.matmul(w, x, { add: r.matmul(x, w) });
      r.add(matrix(r, "more"), sum);
      return ["sum"];
    });
    expect(ops).toEqual(["matmul then matmul then add"]);
  });

  test("but not one that writes what they read, nor other shapes, nor what only a window shows", () => {
    const apart = ["matmul", "add"];
    const intoOperand = (r: Recorder): readonly string[] => {
      const x = r.state("x", [4, 4]);
      r.add(r.matmul(x, matrix(r, "w")), matrix(r, "more"), x);
      return ["x"];
    };
    expect(groupsOf(intoOperand)).toEqual(apart);
    const otherShape = (r: Recorder): readonly string[] => {
      r.add(r.matmul(matrix(r, "x"), matrix(r, "w")), r.input("y", [2, 8]), r.value("sum", [2, 8]));
      return ["sum"];
    };
    expect(groupsOf(otherShape)).toEqual(apart);
    const window = (r: Recorder): readonly string[] => {
      const product = r.matmul(matrix(r, "x"), matrix(r, "w"));
      const top = r.view("top", product, 0, [2, 4]);
      r.add(top, r.view("bottom", product, 8, [2, 4]));
      return ["sum"];
    };
    expect(groupsOf(window)).toEqual(apart);
  });

  test("nor two in a row", () => {
    const ops = groupsOf((r) => {
      const product = r.matmul(matrix(r, "x"), matrix(r, "w"));
      r.add(r.add(product, matrix(r, "more")), product);
      return ["sum.2"];
    });
    expect(ops).toEqual(["matmul then add", "add"]);
  });
});
