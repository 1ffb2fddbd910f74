/** Which dispatches a group of products becomes on a GPU, where long sums are cut (`matmul.ts`). */
import { expect, test } from "vitest";
import { trainProgram } from "../model/llama.ts";
import { elementCount, type Program } from "../tensor/program.ts";
import { record, type Recorder } from "../tensor/record.ts";
import { DISPATCH_FLOPS_MAX, type Dispatch } from "./dispatch.ts";
import { fuse } from "./fuse.ts";
import { dispatchesOf } from "./kernels.ts";

/** What every device binds at once. */
const TENSORS_MAX = 8;

function kernelsOf(build: (r: Recorder) => void): string[] {
  return dispatchesFor(build).map(({ kernel }) => kernel);
}

function dispatchesFor(build: (r: Recorder) => void, flopsMax = DISPATCH_FLOPS_MAX): Dispatch[] {
  const r = record("products");
  build(r);
  return dispatchesIn(r.finish([]), flopsMax);
}

function dispatchesIn(program: Program, flopsMax: number): Dispatch[] {
  const shapeOf = (id: number): readonly number[] => program.tensors[id]?.shape ?? [];
  const context = {
    choice: { matmul: "auto", attention: "auto", rows: "auto", fusion: "auto", storage: "f32" } as const,
    tuning: { nn: "tiled-64x64", nt: "tiled-64x64", tn: "tiled-64x64" } as const,
    software: false,
    lanesMin: 0,
    bindingBytesMax: 2 ** 27,
    tensorsMax: TENSORS_MAX,
    flopsMax,
    shapeOf,
    countOf: (id: number) => elementCount(shapeOf(id)),
    elementBytes: () => 4,
  };
  const groups = fuse(program, TENSORS_MAX, { flopsMax });
  return groups.flatMap((group) => dispatchesOf(group, context));
}

/** Gradients of so many weights that read the same 1024 rows, with what is added to them. */
function gradients(count: number, adds: boolean): (r: Recorder) => void {
  return (r) => {
    const x = r.input("x", [1024, 64]);
    for (let i = 0; i < count; i += 1) {
      const add = adds ? { add: r.input(`add ${i}`, [64, 32]) } : {};
      r.matmul(x, r.input(`dout ${i}`, [1024, 32]), { transA: true, transB: false, ...add });
    }
  };
}

const CUT = "matmul-tiled-32x32-cut";

test("dispatchesOf() adds up what was cut in one more dispatch for a group", () => {
  expect(kernelsOf(gradients(1, true))).toEqual([CUT, "matmul-sum"]);
  expect(kernelsOf(gradients(2, false))).toEqual([`${CUT} | ${CUT}`, "matmul-sum | matmul-sum"]);
  expect(kernelsOf(gradients(2, true))).toEqual([`${CUT} | ${CUT}`, "matmul-sum | matmul-sum"]);
});

test("dispatchesOf() keeps the sums of cuts apart where they have more tensors than bind at once", () => {
  const same = (r: Recorder): void => {
    const [a, b] = [r.input("a", [64, 1024]), r.input("b", [1024, 32])];
    for (let i = 0; i < 3; i += 1) {
      r.matmul(a, b, { add: r.input(`add ${i}`, [64, 32]) });
    }
  };
  expect(kernelsOf(same)).toEqual([`${CUT} | ${CUT} | ${CUT}`, "matmul-sum", "matmul-sum", "matmul-sum"]);
});

test("dispatchesOf() cuts no sum that another product is added to in its turn", () => {
  const inTurn = (r: Recorder): void => {
    const [a, b] = [r.input("a", [64, 1024]), r.input("b", [1024, 64])];
    r.matmul(a, b, { add: r.matmul(r.input("c", [64, 1024]), r.input("d", [1024, 64])) });
  };
  expect(kernelsOf(inTurn)).toEqual(["matmul-tiled-32x32 then matmul-tiled-32x32"]);
});

test("dispatchesOf() takes a few sequences at a time where attention of all takes too long, in windows that a binding may begin at", () => {
  const shape = { batch: 7, time: 8, heads: 2, kvHeads: 1, headDim: 8 };
  const build = (r: Recorder): void => {
    const kv = [56, 8];
    r.attention(r.input("q", [56, 16]), r.input("k", kv), r.input("v", kv), shape);
  };
  // Of each sequence 72 pairs of a query and a key, at 37 operations; its 16 values of lse are a quarter of what windows begin at.
  for (const sequences of [3, 4, 5]) {
    const dispatches = dispatchesFor(build, sequences * 72 * 37);
    expect(dispatches.map(({ constants }) => constants["B"])).toEqual(["4u", "3u"]);
    const windows = dispatches.map(({ bindings }) => bindings.map((one) => (one.type === "tensor" ? one.window : one)));
    const of = (first: number, count: number) =>
      [128, 64, 64, 128, 16].map((one) => ({ offset: first * one, count: count * one }));
    expect(windows).toEqual([of(0, 4), of(4, 3)]);
  }
  expect(dispatchesFor(build).map(({ bindings }) => bindings.some((one) => "window" in one))).toEqual([false]);
});

test("dispatchesOf() gives a step of a model of 100 million parameters no dispatch that takes long", () => {
  const model = { vocabulary: 8192, channels: 768, layers: 2, heads: 12, kvHeads: 4, hidden: 2048, time: 1024 };
  const program = trainProgram({ ...model, tied: true, ropeBase: 10_000, normEps: 1e-5, seed: 1 }, 8);
  const largest = (flopsMax: number): number => {
    const products = dispatchesIn(program, flopsMax).filter(({ kernel }) => /^matmul-tiled-\d+x\d+$/.test(kernel));
    const sizes = products.map(({ constants }) =>
      ["M", "N", "K"].map((name) => Number.parseInt(constants[name] ?? "")),
    );
    return Math.max(...sizes.map(([m = 0, n = 0, k = 0]) => 2 * m * n * k));
  };
  expect(largest(Infinity)).toBeGreaterThan(2e10);
  expect(largest(DISPATCH_FLOPS_MAX)).toBeLessThanOrEqual(DISPATCH_FLOPS_MAX);
  // As few dispatches as that allows.
  expect(largest(DISPATCH_FLOPS_MAX)).toBeGreaterThan(0.7 * DISPATCH_FLOPS_MAX);
});
