/** How large products are cut; that the parts give the right numbers is checked on devices (`test/engines/gpu-checks.ts`). */
import { describe, expect, test } from "vitest";
import { elementCount, type OpOf } from "../tensor/program.ts";
import { addend, optional, read, write, type Binding } from "./dispatch.ts";
import { isSplit, splitProduct } from "./split.ts";

const LIMIT = 2 ** 15;
const [A, B, ADD, OUT, BIAS] = [0, 1, 2, 3, 4];

/** Cuts a product and returns the shapes of its parts and all bindings, which lie in matrices of `shapes`. */
function cut(
  { m, n, k }: { m: number; n: number; k: number },
  transA: boolean,
  transB: boolean,
  add: boolean,
  { elementBytes = 4, bindingBytesMax = LIMIT, flopsMax = Infinity } = {},
) {
  const shapes = [transA ? [k, m] : [m, k], transB ? [n, k] : [k, n], [m, n], [m, n], [n]];
  const more = { ...(add ? { add: ADD } : {}), bias: BIAS };
  const op = { type: "matmul", a: A, b: B, transA, transB, out: OUT, ...more } as const;
  const parts: { work: number; adds: boolean; biases: number }[] = [];
  const shapeOf = (id: number): readonly number[] => shapes[id] as number[];
  const product = (part: OpOf<"matmul">, partShape: (id: number) => readonly number[]) => {
    const inner = partShape(part.a)[transA ? 0 : 1] as number;
    const biases =
      part.bias === undefined ? 0 : elementCount(partShape(part.bias)) * (partShape(part.out)[0] as number);
    parts.push({ work: elementCount(partShape(part.out)) * inner, adds: part.add !== undefined, biases });
    const bindings = [read(part.a), read(part.b), addend(part.add), write(part.out), optional(part.bias)];
    return { kernel: "product", text: "", constants: {}, bindings, groups: 1 };
  };
  const context = { bindingBytesMax, flopsMax, shapeOf, elementBytes: () => elementBytes, product };
  const dispatches = splitProduct(op, context);
  return { split: isSplit(op, context), parts, dispatches, shapeOf };
}

function bytesOf(binding: Binding, shapeOf: (id: number) => readonly number[]): number {
  switch (binding.type) {
    case "tensor":
      return 4 * (binding.window?.count ?? elementCount(shapeOf(binding.id)));
    case "scratch":
      return binding.bytes;
    default:
      return 0;
  }
}

describe("splitProduct()", () => {
  for (const transA of [false, true]) {
    for (const transB of [false, true]) {
      for (const [what, size] of [
        ["a", transA ? { m: 100, n: 20, k: 300 } : { m: 300, n: 20, k: 100 }],
        ["b", transB ? { m: 20, n: 300, k: 100 } : { m: 20, n: 100, k: 300 }],
        ["a result", { m: 300, n: 100, k: 20 }],
        ["all three", { m: 100, n: 110, k: 120 }],
      ] as const) {
        const form = `${transA ? "t" : "n"}${transB ? "t" : "n"}`;
        test(`cuts ${what} that is too large, ${form}: every part fits and is aligned, and together they are the product`, () => {
          const { split, parts, dispatches, shapeOf } = cut(size, transA, transB, true);
          expect(split).toBe(true);
          const bindings = dispatches.flatMap((dispatch) => dispatch.bindings);
          expect(Math.max(...bindings.map((binding) => bytesOf(binding, shapeOf)))).toBeLessThanOrEqual(LIMIT);
          const offsets = bindings.map((binding) => (binding.type === "tensor" ? (binding.window?.offset ?? 0) : 0));
          expect(offsets.filter((offset) => offset % 64 !== 0)).toEqual([]);
          expect(parts.reduce((sum, { work }) => sum + work, 0)).toBe(size.m * size.n * size.k);
          expect(parts.reduce((sum, { biases }) => sum + biases, 0)).toBe(size.m * size.n);
        });
      }
    }
  }

  test("adds what the first part of a sum left, and the addend once", () => {
    const size = { m: 20, n: 100, k: 200 };
    expect(cut(size, false, false, false).parts.map(({ adds }) => adds)).toEqual([false, true, true, true]);
    expect(cut(size, false, false, true).parts.map(({ adds }) => adds)).toEqual([true, true, true, true]);
  });

  test("counts the bytes of elements that are kept as f16, and begins windows of them where a binding may", () => {
    const size = { m: 300, n: 100, k: 20 };
    expect(cut(size, false, true, false).parts).toHaveLength(5);
    const { parts, dispatches } = cut(size, false, true, false, { elementBytes: 2 });
    expect(parts).toHaveLength(3);
    const bindings = dispatches.flatMap((dispatch) => dispatch.bindings);
    const offsets = bindings.map((binding) => (binding.type === "tensor" ? 2 * (binding.window?.offset ?? 0) : 0));
    expect(offsets.filter((offset) => offset % 256 !== 0)).toEqual([]);
  });

  test("copies no part of columns that is larger as f32 than a binding may be", () => {
    const { dispatches, parts } = cut({ m: 80, n: 100, k: 192 }, false, false, false, { elementBytes: 2 });
    const copied = dispatches.flatMap(({ bindings }) => bindings).filter(({ type }) => type === "scratch");
    expect(copied.length).toBeGreaterThan(0);
    expect(Math.max(...copied.map((binding) => (binding.type === "scratch" ? binding.bytes : 0)))).toBeLessThanOrEqual(
      LIMIT,
    );
    expect(parts.reduce((sum, { work }) => sum + work, 0)).toBe(80 * 100 * 192);
  });

  test.each([
    ["nn", false, false, 0],
    ["nt", false, true, 0],
    // What its transposed rows are summed up along has the length that is cut.
    ["tn", true, false, 0],
    ["tt", true, true, 1],
  ])("cuts a product that takes too long along the rows of a, %s", (_, transA, transB, copies) => {
    const size = { m: 300, n: 30, k: 300 };
    const flopsMax = 100 * (2 * 300 * 30 + 2 * 30);
    const limits = { bindingBytesMax: 2 ** 27, flopsMax };
    const { split, parts, dispatches } = cut(size, transA, transB, true, limits);
    expect(split).toBe(true);
    expect(parts.length).toBe(5);
    expect(Math.max(...parts.map(({ work }) => 2 * work))).toBeLessThanOrEqual(flopsMax);
    expect(parts.reduce((sum, { work }) => sum + work, 0)).toBe(300 * 30 * 300);
    expect(dispatches.filter(({ kernel }) => kernel === "columns").length).toBe(5 * copies);
    expect(cut(size, transA, transB, true, { ...limits, flopsMax: 4 * flopsMax }).split).toBe(false);
  });

  test("leaves a product alone that fits", () => {
    const { split, dispatches } = cut({ m: 64, n: 64, k: 64 }, false, true, true);
    expect(split).toBe(false);
    expect(dispatches.map(({ kernel }) => kernel)).toEqual(["product"]);
  });
});
