/**
 * The ladder of matrix products: which kernel computes out = opA(a) · opB(b) (+ add) (+ bias), and with which tile. A rung that a
 * product or the device does not allow gives way to the next one that they do.
 */
import matmulBlocks from "../../shaders/matmul-blocks.wgsl" with { type: "text" };
import matmulLanes from "../../shaders/matmul-lanes.wgsl" with { type: "text" };
import matmulNaive from "../../shaders/matmul-naive.wgsl" with { type: "text" };
import matmulRegister from "../../shaders/matmul-register.wgsl" with { type: "text" };
import matmulSubgroup from "../../shaders/matmul-subgroup.wgsl" with { type: "text" };
import matmul from "../../shaders/matmul.wgsl" with { type: "text" };
import type { OpOf, TensorId } from "../tensor/program.ts";
import { addend, at, optional, read, share, write, type Dispatch } from "./dispatch.ts";
import { bool, u32, unroll } from "./shader.ts";

/** Blocks of 4 × 4 that one invocation owns, rows × columns, of the rungs that are named after them. */
const BLOCKS = {
  "blocks-4x4": [1, 1],
  "blocks-8x4": [2, 1],
  "blocks-8x8": [2, 2],
  "subgroup-8x4": [2, 1],
  "subgroup-8x8": [2, 2],
  "subgroup-16x4": [4, 1],
  "subgroup-16x8": [4, 2],
  "subgroup-32x4": [8, 1],
  "lanes-8x4": [2, 1],
} as const;

/** Invocations of a workgroup of the lanes rung: few columns stay over at an edge. */
const LANES_SIZE = 16;

type BlockRung = keyof typeof BLOCKS;

/** naive and register take any shape anywhere, and so does tiled; the others want multiples of 4. */
export type MatmulRung = "naive" | "register" | "tiled" | BlockRung;

export const MATMUL_RUNGS: readonly MatmulRung[] = [
  "naive",
  "register",
  "tiled",
  ...(Object.keys(BLOCKS) as BlockRung[]),
];

/** Which operands are transposed: a first, then b. */
export type MatmulForm = "nn" | "nt" | "tn" | "tt";

export interface MatmulContext {
  /** The rung that is wanted for a form. */
  rungFor(form: MatmulForm): MatmulRung;
  /** Invocations that a subgroup has at least; 0 if the device has no subgroups. */
  readonly lanesMin: number;
  shapeOf(id: TensorId): readonly number[];
}

/**
 * What is taken where nothing was measured: workgroup memory on a GPU; on a software adapter, whose "workgroup memory" is
 * ordinary memory, as few loads for each product as the registers allow (measured: SwiftShader and lavapipe 25).
 */
export function matmulGuess({ software, lanesMin }: { software: boolean; lanesMin: number }): MatmulRung {
  if (!software) {
    return "tiled";
  }
  return lanesMin >= 8 ? "subgroup-16x4" : lanesMin > 0 ? "lanes-8x4" : "blocks-8x8";
}

export function formOf({ transA, transB }: OpOf<"matmul">): MatmulForm {
  return `${transA ? "t" : "n"}${transB ? "t" : "n"}`;
}

export function isForm(text: string): text is MatmulForm {
  return /^[nt]{2}$/.test(text);
}

export function isRung(value: unknown): value is MatmulRung {
  return MATMUL_RUNGS.some((rung) => rung === value);
}

/**
 * The dispatches of `products`, in their order: all on one rung, so that they may share a dispatch. Those of `beside` stand
 * for all that run at the same time, the others in turn with them.
 */
export function matmulDispatches(
  products: readonly OpOf<"matmul">[],
  context: MatmulContext,
  beside: readonly OpOf<"matmul">[] = products,
): Dispatch[] {
  const { shapeOf } = context;
  const rung = allowedRung(products, context);
  // Small products are cut finer, so that a GPU has enough workgroups to hide its latency.
  const outs = beside.map(({ out }) => shapeOf(out));
  const squares = outs.reduce((sum, shape) => sum + share(at(shape, 0), 64) * share(at(shape, 1), 64), 0);
  const tile = squares >= 64 ? 64 : 32;
  return products.map((op) => matmulDispatch(op, rung, { ...context, tile }));
}

function allowedRung(products: readonly OpOf<"matmul">[], { rungFor, lanesMin, shapeOf }: MatmulContext): MatmulRung {
  const wanted = rungFor(formOf(products[0] as OpOf<"matmul">));
  if (!isBlocks(wanted)) {
    return wanted;
  }
  const whole = products.every(({ a, b, out }) =>
    [a, b, out].every((id) => shapeOf(id).every((length) => length % 4 === 0)),
  );
  if (!whole) {
    return "register";
  }
  const [rows, columns] = BLOCKS[wanted];
  const without = columns === 2 ? "blocks-8x8" : rows === 1 ? "blocks-4x4" : "blocks-8x4";
  return /^(subgroup|lanes)/.test(wanted) && lanesMin === 0 ? without : wanted;
}

/** Which lines a text has for a straight or transposed operand. */
function formCounts({ transA, transB }: OpOf<"matmul">): Readonly<Record<"s" | "t" | "u" | "v", number>> {
  return { s: transA ? 0 : 1, t: transA ? 1 : 0, u: transB ? 0 : 1, v: transB ? 1 : 0 };
}

function isBlocks(rung: MatmulRung): rung is BlockRung {
  return rung in BLOCKS;
}

function matmulDispatch(
  op: OpOf<"matmul">,
  rung: MatmulRung,
  { shapeOf, lanesMin, tile }: MatmulContext & { readonly tile: number },
): Dispatch {
  const [M, N] = [at(shapeOf(op.out), 0), at(shapeOf(op.out), 1)];
  const K = at(shapeOf(op.a), op.transA ? 0 : 1);
  const [AM, AK] = op.transA ? [1, M] : [K, 1];
  const [BK, BN] = op.transB ? [1, K] : [N, 1];
  const strides = { AM: u32(AM), AK: u32(AK), BK: u32(BK), BN: u32(BN) };
  const sums = { ADD: bool(op.add !== undefined), BIAS: bool(op.bias !== undefined) };
  const constants = { M: u32(M), N: u32(N), K: u32(K), ...strides, ...sums };
  const bindings = [read(op.a), read(op.b), addend(op.add), write(op.out), optional(op.bias)];
  if (isBlocks(rung)) {
    const [r, c] = BLOCKS[rung];
    const [rows, columns] = [share(M, 4 * r), share(N, 4 * c)];
    if (rung === "lanes-8x4") {
      const counts = { q: r, i: 4, j: 4, c: 4 * c, ...formCounts(op) };
      const groups = rows * share(N, LANES_SIZE * 4 * c);
      const { AM: _am, AK: _ak, BK: _bk, BN: _bn, ...own } = { ...constants, SIZE: u32(LANES_SIZE) };
      return { kernel: "matmul-lanes-8x4", text: unroll(matmulLanes, counts), constants: own, bindings, groups };
    }
    if (!rung.startsWith("subgroup")) {
      const text = unroll(matmulBlocks, { r, c });
      return { kernel: `matmul-${rung}`, text, constants, bindings, groups: share(rows * columns, 64) };
    }
    // Eight lanes share what four would load twice.
    const h = lanesMin >= 8 ? 2 : 1;
    const text = unroll(matmulSubgroup, { l: r / h, h, c, ...formCounts(op) });
    const groups = rows * share(columns, 32);
    return { kernel: `matmul-${rung}`, text, constants, bindings, groups };
  }
  switch (rung) {
    case "naive":
      return { kernel: "matmul-naive", text: matmulNaive, constants, bindings, groups: share(M * N, 64) };
    case "register": {
      const groups = share(share(M, 8) * share(N, 4), 64);
      return { kernel: "matmul-register", text: matmulRegister, constants, bindings, groups };
    }
    case "tiled": {
      const groups = share(M, tile) * share(N, tile);
      return { kernel: "matmul", text: matmul, constants: { ...constants, TILE: u32(tile) }, bindings, groups };
    }
    default:
      return rung satisfies never;
  }
}
