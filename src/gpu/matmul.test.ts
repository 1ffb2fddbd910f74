/** Which tile a product gets, and when its sum is cut; that the numbers are right is checked on devices (`test/engines`). */
import { expect, test } from "vitest";
import type { OpOf } from "../tensor/program.ts";
import { matmulCandidates, matmulDispatches, MATMUL_RUNGS, type MatmulContext, type MatmulRung } from "./matmul.ts";

/** The dispatches of products m × k · k × n, by kernel and workgroups; those with the given numbers may be cut. */
function dispatchesOf(
  sizes: readonly (readonly number[])[],
  rung: MatmulRung,
  adapts: boolean,
  cut: number[] = [],
  bindingBytesMax = 2 ** 27,
) {
  const shapes = sizes.flatMap(([m = 0, n = 0, k = 0]) => [
    [m, k],
    [k, n],
    [m, n],
  ]);
  const ops = sizes.map((_, i): OpOf<"matmul"> => {
    const [a, b, out] = [3 * i, 3 * i + 1, 3 * i + 2];
    return { type: "matmul", a, b, out, transA: false, transB: false };
  });
  const context: MatmulContext = {
    rungFor: () => rung,
    adapts,
    bindingBytesMax,
    lanesMin: rung.startsWith("lanes") ? 4 : 0,
    shapeOf: (id) => shapes[id] as number[],
  };
  return matmulDispatches(ops, context, { mayCut: (op) => cut.includes(ops.indexOf(op)) });
}

function kernels(...given: Parameters<typeof dispatchesOf>): string[] {
  return dispatchesOf(...given).flatMap(({ product, sum }) =>
    [product, ...(sum === undefined ? [] : [sum])].map(({ kernel, groups }) => `${kernel} ${groups}`),
  );
}

test("matmulDispatches() takes small tiles where there would be few large ones, unless the rung was asked for", () => {
  const [few, many] = [
    [512, 128, 64],
    [1024, 256, 64],
  ] as const;
  expect(kernels([few], "tiled-64x128", true)).toEqual(["matmul-tiled-32x32 64"]);
  expect(kernels([few], "tiled-64x128", false)).toEqual(["matmul-tiled-64x128 8"]);
  expect(kernels([many], "tiled-64x128", true)).toEqual(["matmul-tiled-64x128 32"]);
  // What shares a dispatch counts together, and has one size of tile.
  expect(kernels([few, many], "tiled-64x64", true)).toEqual(["matmul-tiled-64x64 16", "matmul-tiled-64x64 64"]);
});

test("matmulDispatches() gives the lanes rung workgroups that leave few columns over, of one size for all that share a dispatch", () => {
  const sizeOf = (...columns: number[]): unknown[] =>
    dispatchesOf(
      columns.map((n) => [64, n, 64]),
      "lanes-8x4",
      true,
    ).map(({ product }) => product.constants["SIZE"]);
  expect(sizeOf(128)).toEqual(["16u"]);
  expect(sizeOf(344)).toEqual(["8u"]);
  expect(sizeOf(128, 344)).toEqual(["8u", "8u"]);
});

test("matmulDispatches() cuts a long sum of few tiles where it may, into parts that one dispatch adds up", () => {
  const gradient = [128, 128, 1024] as const;
  expect(kernels([gradient], "tiled-64x64", true, [0])).toEqual(["matmul-tiled-32x32-cut 128", "matmul-sum 256"]);
  expect(kernels([gradient], "tiled-64x64", true)).toEqual(["matmul-tiled-32x32 16"]);
  expect(kernels([[128, 128, 1023]], "tiled-64x64", true, [0])).toEqual(["matmul-tiled-32x32 16"]);
  expect(kernels([[128, 160, 1024]], "tiled-64x64", true, [0])).toEqual(["matmul-tiled-32x32 20"]);
  const [{ product, sum } = { product: undefined, sum: undefined }] = dispatchesOf(
    [gradient],
    "tiled-64x64",
    true,
    [0],
  );
  const partials = { type: "scratch", label: "partial sums of 2", bytes: 8 * 128 * 128 * 4 };
  expect(product?.bindings[3]).toEqual({ ...partials, access: "write" });
  expect(sum?.bindings[0]).toEqual({ ...partials, access: "read" });
});

test("matmulDispatches() cuts a sum into so few parts that one binding spans what they leave", () => {
  for (const [limit, parts] of [
    [2 ** 27, 512],
    [2 ** 24, 256],
    [2 ** 20, 16],
    [2 ** 16, 1],
  ] as const) {
    const [work] = dispatchesOf([[128, 128, 2 ** 16]], "tiled-64x64", true, [0], limit);
    const sum = work?.sum?.bindings[0];
    expect([limit, work?.product.groups]).toEqual([limit, 16 * parts]);
    expect(sum).toEqual(
      parts === 1 ? undefined : expect.objectContaining({ type: "scratch", bytes: parts * 128 * 128 * 4 }),
    );
  }
});

test("every tile fits 16 KiB of workgroup memory and 256 invocations, and stages whole steps", () => {
  for (const rung of MATMUL_RUNGS.filter((name) => /^(tiled|split)/.test(name))) {
    const [{ product } = { product: undefined }] = dispatchesOf([[8, 8, 8]], rung, false);
    const [m, n, step] = ["TILE_M", "TILE_N", "STEP"].map((name) => Number.parseInt(product?.constants[name] ?? ""));
    const blocks = new Set(product?.text.match(/var sum\d_0_\d/g)).size;
    const bytes = ((m as number) + (n as number) + 8) * 4 * (step as number);
    expect([rung, bytes <= 16_384, (m as number) * (n as number)]).toEqual([
      rung,
      true,
      16 * blocks * invocations(rung),
    ]);
  }
});

function invocations(rung: MatmulRung): number {
  return rung.endsWith("32x32") ? 64 : 256;
}

test("matmulCandidates() begins with the guess, and offers no broadcast where there are no subgroups", () => {
  const candidates = matmulCandidates({ software: false, lanesMin: 32 });
  expect(candidates.slice(0, 2)).toEqual(["tiled-64x64", "tiled-64x128"]);
  expect(candidates.some((rung) => rung.startsWith("subgroup"))).toBe(true);
  expect(matmulCandidates({ software: false, lanesMin: 0 }).some((rung) => rung.startsWith("subgroup"))).toBe(false);
  expect(matmulCandidates({ software: true, lanesMin: 4 }).some((rung) => rung.startsWith("tiled"))).toBe(false);
});
