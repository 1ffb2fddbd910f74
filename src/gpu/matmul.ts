/**
 * The ladder of matrix products: which kernel computes out = opA(a) · opB(b) (+ add) (+ bias), and with which tile. A rung that a
 * product or the device does not allow gives way to the next one that they do.
 */
import matmulBlocks from "../../shaders/matmul-blocks.wgsl" with { type: "text" };
import matmulLanes from "../../shaders/matmul-lanes.wgsl" with { type: "text" };
import matmulNaive from "../../shaders/matmul-naive.wgsl" with { type: "text" };
import matmulPut from "../../shaders/matmul-put.wgsl" with { type: "text" };
import matmulRegister from "../../shaders/matmul-register.wgsl" with { type: "text" };
import matmulSubgroup from "../../shaders/matmul-subgroup.wgsl" with { type: "text" };
import matmulSum from "../../shaders/matmul-sum.wgsl" with { type: "text" };
import matmul from "../../shaders/matmul.wgsl" with { type: "text" };
import type { OpOf, TensorId } from "../tensor/program.ts";
import type { DeviceKind } from "./device.ts";
import { addend, at, optional, read, share, write, type Binding, type Dispatch } from "./dispatch.ts";
import { bool, inValues, u32, unroll, type Access, type Width } from "./shader.ts";

/** The texts of all rungs: what is known of their speed is void when one changes (`tried.ts`). */
export const MATMUL_TEXTS: readonly string[] = [
  matmulBlocks,
  matmulLanes,
  matmulNaive,
  matmulPut,
  matmulRegister,
  matmulSubgroup,
  matmulSum,
  matmul,
];

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
  "lanes-16x4": [4, 1],
} as const;

/** Invocations of a workgroup of the lanes rungs, and how many columns each of them owns. */
const LANES_SIZES = [16, 8] as const;
const LANES_COLUMNS = 4;

type BlockRung = keyof typeof BLOCKS;

interface Tile {
  readonly m: number;
  readonly n: number;
  /** Values of k in workgroup memory at a time. */
  readonly step: number;
  /** Blocks of 4 × 4 that one invocation owns. */
  readonly rows: number;
  readonly columns: number;
}

/**
 * Tiles of the rungs in workgroup memory: 8 to 13 KiB of it and 64 to 256 invocations. The sizes are those that torchlette was
 * left with on V100 and A100 (src/backend/webgpu/matmul/variants.ts): 64×128 for large products, 128×128 for long sums, 64×64
 * for the rest; 32×32 is also ggml's. "split" cuts every sum, for tests and for comparison.
 */
const TILES = {
  "tiled-32x32": { m: 32, n: 32, step: 16, rows: 1, columns: 1 },
  "split-32x32": { m: 32, n: 32, step: 16, rows: 1, columns: 1 },
  "tiled-64x64": { m: 64, n: 64, step: 16, rows: 1, columns: 1 },
  "tiled-64x128": { m: 64, n: 128, step: 16, rows: 2, columns: 1 },
  "tiled-128x128": { m: 128, n: 128, step: 8, rows: 2, columns: 2 },
} as const satisfies Readonly<Record<string, Tile>>;

type TileRung = keyof typeof TILES;

/** naive, register and the tiles take any shape anywhere; the others want multiples of 4. */
export type MatmulRung = "naive" | "register" | TileRung | BlockRung;

export const MATMUL_RUNGS: readonly MatmulRung[] = [
  "naive",
  "register",
  ...(Object.keys(TILES) as TileRung[]),
  ...(Object.keys(BLOCKS) as BlockRung[]),
];

/** With fewer tiles of 64 × 64 than this in a dispatch, smaller ones give a GPU more workgroups to hide its latency. */
const LARGE_TILES_MIN = 64;
/**
 * A product with so few tiles keeps most of a GPU waiting while a few workgroups go through a long sum, so its sum is cut. The
 * rule and the length of a part are TensorFlow.js's (BatchMatMul_impl.ts: 8 tiles, 16 on Intel, of 32 × 32; parts of 128); it
 * asks for sums of 2000, because it has to clear its output first.
 */
const FEW_TILES = 16;
const LONG_SUM = 1024;
const PART_LENGTH = 128;

/** Which operands are transposed: a first, then b. */
export type MatmulForm = "nn" | "nt" | "tn" | "tt";

export interface MatmulContext {
  /** The rung that is wanted for a form. */
  rungFor(form: MatmulForm): MatmulRung;
  /** Tiles may be smaller than that rung's, and sums cut, where a shape calls for it. */
  readonly adapts: boolean;
  /** The most bytes that partial sums of one product may take. */
  readonly bindingBytesMax: number;
  /** Invocations that a subgroup has at least; 0 if the device has no subgroups. */
  readonly lanesMin: number;
  shapeOf(id: TensorId): readonly number[];
}

/**
 * What is taken where nothing was measured: workgroup memory on a GPU; on a software adapter, whose "workgroup memory" is
 * ordinary memory, as few loads for each product as the registers allow (measured: SwiftShader and lavapipe 25).
 */
export function matmulGuess({ software, lanesMin }: DeviceKind): MatmulRung {
  if (!software) {
    return "tiled-64x64";
  }
  return lanesMin >= 8 ? "subgroup-16x4" : lanesMin > 0 ? "lanes-16x4" : "blocks-8x8";
}

/**
 * What is worth trying on a GPU, the likely best first, because time may be short: tiles; 4 × 4 in registers alone, which jax-js
 * found to be best on Apple's; reads shared by broadcast. The rest differs from these by little.
 */
const GPU_CANDIDATES: readonly MatmulRung[] = [
  "tiled-64x64",
  "tiled-64x128",
  "blocks-4x4",
  "tiled-128x128",
  "subgroup-8x8",
  "blocks-8x4",
  "tiled-32x32",
  "subgroup-16x4",
  "register",
];

/** What a search tries, the guess first. */
export function matmulCandidates(device: DeviceKind): MatmulRung[] {
  const all = device.software ? MATMUL_RUNGS.filter((rung) => rung !== "naive" && !isTile(rung)) : GPU_CANDIDATES;
  const possible = all.filter((rung) => device.lanesMin > 0 || !needsLanes(rung));
  return [...new Set([matmulGuess(device), ...possible])];
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

/** How one product is computed: its dispatch, and where that leaves partial sums the one that adds them up. */
interface Work {
  readonly product: Dispatch;
  readonly sum?: Dispatch;
}

/** How products share a dispatch. */
interface Sharing {
  /** Those that stand for all that run at the same time, the others in turn with them. */
  readonly beside?: readonly OpOf<"matmul">[];
  /** Whether the op's sums may be cut. */
  readonly mayCut?: (op: OpOf<"matmul">) => boolean;
}

/** The dispatches of `products`, in their order: all on one rung, so that they may share a dispatch. */
export function matmulDispatches(
  products: readonly OpOf<"matmul">[],
  context: MatmulContext,
  { beside = products, mayCut = () => false }: Sharing = {},
): Work[] {
  const rung = allowedRung(products, beside, context);
  if (!isTile(rung)) {
    const size = lanesSize(beside, context);
    return products.map((op) => ({ product: matmulDispatch(op, rung, { ...context, size }) }));
  }
  const tile = TILES[rung];
  const quads = inFours(products, context);
  return products.map((op) => {
    const [m, n, k] = sizesOf(op, context);
    const few = share(m, tile.m) * share(n, tile.n) <= FEW_TILES && k >= LONG_SUM;
    const cuts = mayCut(op) && (context.adapts ? few : rung === "split-32x32");
    let length = cuts ? PART_LENGTH : share(k, tile.step) * tile.step;
    // Very long sums have longer parts, so that one binding spans what they leave.
    while (length < k && share(k, length) * m * n * 4 > context.bindingBytesMax) {
      length *= 2;
    }
    return tiledWork(op, rung, { quads, length, context });
  });
}

function allowedRung(
  products: readonly OpOf<"matmul">[],
  beside: readonly OpOf<"matmul">[],
  context: MatmulContext,
): MatmulRung {
  const wanted = context.rungFor(formOf(products[0] as OpOf<"matmul">));
  if (isTile(wanted)) {
    const outs = beside.map(({ out }) => context.shapeOf(out));
    const squares = outs.reduce((sum, shape) => sum + share(at(shape, 0), 64) * share(at(shape, 1), 64), 0);
    return context.adapts && squares < LARGE_TILES_MIN ? "tiled-32x32" : wanted;
  }
  if (!isBlocks(wanted)) {
    return wanted;
  }
  if (!inFours(products, context)) {
    return "register";
  }
  const [rows, columns] = BLOCKS[wanted];
  const without = columns === 2 ? "blocks-8x8" : rows === 1 ? "blocks-4x4" : "blocks-8x4";
  return needsLanes(wanted) && context.lanesMin === 0 ? without : wanted;
}

/** The size that leaves the fewest columns over at the edges of all products together, whose workgroups must be of one size. */
function lanesSize(beside: readonly OpOf<"matmul">[], context: MatmulContext): number {
  const computed = (size: number): number =>
    beside.reduce((sum, op) => {
      const [m, n, k] = sizesOf(op, context);
      return sum + m * k * share(n, size * LANES_COLUMNS) * size;
    }, 0);
  return [...LANES_SIZES].sort((a, b) => computed(a) - computed(b))[0] as number;
}

function needsLanes(rung: MatmulRung): boolean {
  return /^(subgroup|lanes)/.test(rung);
}

/** Which lines a text has for a straight or transposed operand. */
function formCounts({ transA, transB }: OpOf<"matmul">): Readonly<Record<"s" | "t" | "u" | "v", number>> {
  return { s: transA ? 0 : 1, t: transA ? 1 : 0, u: transB ? 0 : 1, v: transB ? 1 : 0 };
}

/** The rung's text with how sums end, which is the same for all; it calls `put` with values of `width` elements. */
function ending(text: string, width: Width): string {
  return inValues(`${matmulPut}\n${text}`, width);
}

function isBlocks(rung: MatmulRung): rung is BlockRung {
  return rung in BLOCKS;
}

function isTile(rung: MatmulRung): rung is TileRung {
  return rung in TILES;
}

/** Whether all lengths are multiples of 4, so that memory can be read and written by quads. */
function inFours(products: readonly OpOf<"matmul">[], { shapeOf }: MatmulContext): boolean {
  return products.every(({ a, b, out }) => [a, b, out].every((id) => shapeOf(id).every((length) => length % 4 === 0)));
}

type Sizes = "M" | "N" | "K";
type Strides = "AM" | "AK" | "BK" | "BN";

/** M, N and K. */
function sizesOf({ a, transA, out }: OpOf<"matmul">, { shapeOf }: MatmulContext): [number, number, number] {
  return [at(shapeOf(out), 0), at(shapeOf(out), 1), at(shapeOf(a), transA ? 0 : 1)];
}

function constantsOf(op: OpOf<"matmul">, context: MatmulContext): Record<Sizes | Strides | "ADD" | "BIAS", string> {
  const [M, N, K] = sizesOf(op, context);
  const [AM, AK] = op.transA ? [1, M] : [K, 1];
  const [BK, BN] = op.transB ? [1, K] : [N, 1];
  const strides = { AM: u32(AM), AK: u32(AK), BK: u32(BK), BN: u32(BN) };
  const sums = { ADD: bool(op.add !== undefined), BIAS: bool(op.bias !== undefined) };
  return { M: u32(M), N: u32(N), K: u32(K), ...strides, ...sums };
}

interface Cut {
  readonly quads: boolean;
  /** Terms that are summed up together, a multiple of the tile's step. */
  readonly length: number;
  readonly context: MatmulContext;
}

function tiledWork(op: OpOf<"matmul">, rung: TileRung, { quads, length, context }: Cut): Work {
  const { m, n, step, rows: r, columns: c } = TILES[rung];
  const [M, N, K] = sizesOf(op, context);
  const parts = share(K, length);
  const tile = { TILE_M: u32(m), TILE_N: u32(n), STEP: u32(step), PARTS: u32(parts) };
  const constants = { ...constantsOf(op, context), ...tile, LENGTH: u32(length) };
  const text = ending(unroll(matmul, { r, c, q: quads ? 1 : 0, e: quads ? 0 : 1 }), quads ? 4 : 1);
  const common = { text, groups: share(M, m) * share(N, n) * parts };
  if (parts === 1) {
    const bindings = [read(op.a), read(op.b), addend(op.add), write(op.out), optional(op.bias)];
    return { product: { kernel: `matmul-${rung}`, constants, bindings, ...common } };
  }
  const partials = (access: Access): Binding => ({
    type: "scratch",
    label: `partial sums of ${op.out}`,
    bytes: parts * M * N * 4,
    access,
  });
  return {
    product: {
      kernel: `matmul-${rung}-cut`,
      constants: { ...constants, ADD: bool(false), BIAS: bool(false) },
      bindings: [read(op.a), read(op.b), { type: "none" }, partials("write"), { type: "none" }],
      ...common,
    },
    sum: {
      kernel: "matmul-sum",
      text: ending(matmulSum, 1),
      constants: { COUNT: u32(M * N), N: u32(N), PARTS: u32(parts), ADD: constants.ADD, BIAS: constants.BIAS },
      bindings: [partials("read"), addend(op.add), write(op.out), optional(op.bias)],
      groups: share(M * N, 64),
    },
  };
}

function matmulDispatch(
  op: OpOf<"matmul">,
  rung: Exclude<MatmulRung, TileRung>,
  context: MatmulContext & { readonly size: number },
): Dispatch {
  const [M, N] = sizesOf(op, context);
  const constants = constantsOf(op, context);
  const bindings = [read(op.a), read(op.b), addend(op.add), write(op.out), optional(op.bias)];
  switch (rung) {
    case "naive":
      return { kernel: "matmul-naive", text: ending(matmulNaive, 1), constants, bindings, groups: share(M * N, 64) };
    case "register": {
      const groups = share(share(M, 8) * share(N, 4), 64);
      return { kernel: "matmul-register", text: ending(matmulRegister, 1), constants, bindings, groups };
    }
    default: {
      const [r, c] = BLOCKS[rung];
      const [rows, columns] = [share(M, 4 * r), share(N, 4 * c)];
      if (rung.startsWith("lanes")) {
        const counts = { q: r, i: 4, j: 4, c: LANES_COLUMNS, ...formCounts(op) };
        const groups = rows * share(N, context.size * LANES_COLUMNS);
        const { AM: _am, AK: _ak, BK: _bk, BN: _bn, ...own } = { ...constants, SIZE: u32(context.size) };
        const text = ending(unroll(matmulLanes, counts), 1);
        return { kernel: `matmul-${rung}`, text, constants: own, bindings, groups };
      }
      if (!rung.startsWith("subgroup")) {
        const text = ending(unroll(matmulBlocks, { r, c }), 4);
        return { kernel: `matmul-${rung}`, text, constants, bindings, groups: share(rows * columns, 64) };
      }
      // Eight lanes share what four would load twice.
      const h = context.lanesMin >= 8 ? 2 : 1;
      const text = ending(unroll(matmulSubgroup, { l: r / h, h, c, ...formCounts(op) }), 4);
      return { kernel: `matmul-${rung}`, text, constants, bindings, groups: rows * share(columns, 32) };
    }
  }
}
