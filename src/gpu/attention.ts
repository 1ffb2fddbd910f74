/**
 * The ladder of causal attention and its backward: which kernels compute them, over how many workgroups. A rung that a
 * head's width does not allow gives way to the next one that it does.
 */
import attentionBackwardKvNaive from "../../shaders/attention-backward-kv-naive.wgsl" with { type: "text" };
import attentionBackwardKvRows from "../../shaders/attention-backward-kv-rows.wgsl" with { type: "text" };
import attentionBackwardKvStaged from "../../shaders/attention-backward-kv-staged.wgsl" with { type: "text" };
import attentionBackwardKvSubgroup from "../../shaders/attention-backward-kv-subgroup.wgsl" with { type: "text" };
import attentionBackwardKv from "../../shaders/attention-backward-kv.wgsl" with { type: "text" };
import attentionBackwardQNaive from "../../shaders/attention-backward-q-naive.wgsl" with { type: "text" };
import attentionBackwardQRows from "../../shaders/attention-backward-q-rows.wgsl" with { type: "text" };
import attentionBackwardQStaged from "../../shaders/attention-backward-q-staged.wgsl" with { type: "text" };
import attentionBackwardQSubgroup from "../../shaders/attention-backward-q-subgroup.wgsl" with { type: "text" };
import attentionBackwardQ from "../../shaders/attention-backward-q.wgsl" with { type: "text" };
import attentionNaive from "../../shaders/attention-naive.wgsl" with { type: "text" };
import attentionRows from "../../shaders/attention-rows.wgsl" with { type: "text" };
import attentionStaged from "../../shaders/attention-staged.wgsl" with { type: "text" };
import attentionSubgroup from "../../shaders/attention-subgroup.wgsl" with { type: "text" };
import attention from "../../shaders/attention.wgsl" with { type: "text" };
import { flopsOf } from "../tensor/cost.ts";
import { readsOf, writesOf, type HeadShape, type OpOf, type TensorId } from "../tensor/program.ts";
import type { DeviceKind } from "./device.ts";
import { read, share, write, type Binding, type Dispatch } from "./dispatch.ts";
import { f32, u32, unroll, type Constants } from "./shader.ts";

/** The texts of all rungs: what is known of their speed is void when one changes (`tried.ts`). */
export const ATTENTION_TEXTS: readonly string[] = [
  attentionBackwardKvNaive,
  attentionBackwardKvRows,
  attentionBackwardKvStaged,
  attentionBackwardKvSubgroup,
  attentionBackwardKv,
  attentionBackwardQNaive,
  attentionBackwardQRows,
  attentionBackwardQStaged,
  attentionBackwardQSubgroup,
  attentionBackwardQ,
  attentionNaive,
  attentionRows,
  attentionStaged,
  attentionSubgroup,
  attention,
];

/** Rows that one invocation owns, of the rungs that are named after them. */
const SUBGROUP_ROWS = { "subgroup-1": 1, "subgroup-2": 2, "subgroup-4": 4 } as const;

/** Rows that one workgroup owns, of the rungs with tiles in workgroup memory. */
const FLASH_ROWS = { "flash-16": 16, "flash-32": 32, "flash-64": 64 } as const;

type SubgroupRung = keyof typeof SUBGROUP_ROWS;
type FlashRung = keyof typeof FLASH_ROWS;

/** The most elements of queries, or of keys, that one invocation of the subgroup rungs keeps. More would spill. */
const ELEMENTS_MAX = 128;
/** Wider heads than this go to workgroup memory: compilers take long over so many named registers. */
const REGISTER_HEAD_MAX = 64;

/**
 * naive takes any head width; the others want multiples of 4, up to 128. flash: tiles in workgroup memory, for GPUs; 4 lanes a row,
 * but flash-64 keeps rows of heads up to 64 in registers, a lane each. rows: an invocation a row, all in registers. subgroup: rows
 * too, with reads shared by broadcast.
 */
export const ATTENTION_RUNGS = [
  "naive",
  ...(Object.keys(FLASH_ROWS) as FlashRung[]),
  "rows",
  ...(Object.keys(SUBGROUP_ROWS) as SubgroupRung[]),
] as const;
export type AttentionRung = (typeof ATTENTION_RUNGS)[number];

export interface AttentionContext {
  readonly wanted: AttentionRung;
  /** Invocations that a subgroup has at least; 0 if the device has no subgroups. */
  readonly lanesMin: number;
  /** Invocations of a workgroup that needs no barrier: few where each of them is a thread's turn anyway. */
  readonly size: number;
}

type Way = "attention" | "attentionBackward";

/**
 * The rung to take where nobody has measured. On a GPU tiles in workgroup memory: forward as others publish them, 64 rows in
 * registers; backward, where that takes twice the registers, 4 lanes a row. On software adapters what was fastest on
 * SwiftShader (4 lanes), on Mesa's lavapipe (8 lanes) and without subgroups on Mesa's llvmpipe. On lavapipe that is fewer rows
 * in the backward, where each row has a gradient as well.
 */
export function attentionGuess({ software, lanesMin }: DeviceKind, way: Way): AttentionRung {
  if (!software) {
    return way === "attention" ? "flash-64" : "flash-16";
  }
  if (lanesMin >= 8) {
    return way === "attention" ? "subgroup-2" : "subgroup-1";
  }
  return lanesMin > 0 ? "subgroup-4" : "rows";
}

/** What a search tries, the guess first and then the likely best ones: time may be short. */
export function attentionCandidates(device: DeviceKind, way: Way): AttentionRung[] {
  const all: readonly AttentionRung[] = device.software
    ? ATTENTION_RUNGS.filter((rung) => rung !== "naive" && !isFlash(rung))
    : ["flash-64", "flash-32", "flash-16", "subgroup-2", "rows"];
  const possible = all.filter((rung) => device.lanesMin > 0 || !isSubgroup(rung));
  return [...new Set([attentionGuess(device, way), ...possible])];
}

export function attentionDispatches(op: OpOf<"attention">, context: AttentionContext): Dispatch[] {
  const bindings = [read(op.q), read(op.k), read(op.v), write(op.out), write(op.lse)];
  const rung = allowedRung(op, context);
  switch (rung) {
    case "rows":
      return [rows("attention-rows", attentionRows, op, op.heads, bindings)];
    case "naive":
      return [elements("attention-naive", attentionNaive, op, op.heads, bindings)];
    default: {
      if (isFlash(rung)) {
        return isStaged(rung, op)
          ? [staged("attention-staged", attentionStaged, op, op.heads, bindings)]
          : [rowBlocks("attention", attention, op, { heads: op.heads, rows: FLASH_ROWS[rung] }, bindings)];
      }
      const part = { rows: rowsOf(op, rung), heads: op.heads, size: context.size };
      return [lanes("attention-subgroup", attentionSubgroup, op, part, bindings)];
    }
  }
}

export function attentionBackwardDispatches(op: OpOf<"attentionBackward">, context: AttentionContext): Dispatch[] {
  const { q, k, v, out, lse, dout, delta, dq, dk, dv } = op;
  const first = [read(q), read(k), read(v), read(out), read(lse), read(dout), write(delta), write(dq)];
  const second = [read(q), read(k), read(v), read(dout), read(lse), read(delta), write(dk), write(dv)];
  const rung = allowedRung(op, context);
  switch (rung) {
    case "rows":
      return [
        rows("attention-backward-q-rows", attentionBackwardQRows, op, op.heads, first),
        rows("attention-backward-kv-rows", attentionBackwardKvRows, op, op.kvHeads, second),
      ];
    case "naive":
      return [
        elements("attention-backward-q-naive", attentionBackwardQNaive, op, op.heads, first),
        elements("attention-backward-kv-naive", attentionBackwardKvNaive, op, op.kvHeads, second),
      ];
    default: {
      if (isFlash(rung)) {
        return flashBackward(op, rung, first, second);
      }
      const part = { rows: rowsOf(op, rung), size: context.size };
      return [
        lanes("attention-backward-q-subgroup", attentionBackwardQSubgroup, op, { ...part, heads: op.heads }, first),
        lanes(
          "attention-backward-kv-subgroup",
          attentionBackwardKvSubgroup,
          op,
          { ...part, heads: op.kvHeads },
          second,
        ),
      ];
    }
  }
}

/** What is needed to tell how many sequences a dispatch may take, and where they lie. */
export interface BatchContext {
  /** The most floating-point operations of one dispatch. */
  readonly flopsMax: number;
  shapeOf(id: TensorId): readonly number[];
  countOf(id: TensorId): number;
  /** Bytes of one element. */
  elementBytes(id: TensorId): number;
}

/**
 * The dispatches of all sequences, or where they would take too long together, of a few after the others: sequences know nothing
 * of each other, and lie after each other in every tensor. One sequence is not cut.
 */
export function inBatches(
  op: OpOf<"attention"> | OpOf<"attentionBackward">,
  { flopsMax, shapeOf, countOf, elementBytes }: BatchContext,
  dispatchesFor: (batch: number) => Dispatch[],
): Dispatch[] {
  const { batch } = op;
  const most = (batch * flopsMax) / flopsOf(op, shapeOf);
  if (most >= batch) {
    return dispatchesFor(batch);
  }
  const ids = [...readsOf(op), ...writesOf(op)];
  // Windows begin at multiples of 256 bytes.
  let unit = 1;
  while (ids.some((id) => (unit * countOf(id) * elementBytes(id)) % (256 * batch) !== 0)) {
    unit *= 2;
  }
  const length = Math.max(1, Math.floor(most / unit)) * unit;
  return Array.from({ length: share(batch, length) }, (_, i) => {
    const [first, sequences] = [i * length, Math.min(length, batch - i * length)];
    const within = (binding: Binding): Binding => {
      if (binding.type !== "tensor") {
        return binding;
      }
      const one = countOf(binding.id) / batch;
      return { ...binding, window: { offset: first * one, count: sequences * one } };
    };
    return dispatchesFor(sequences).map((dispatch) => ({ ...dispatch, bindings: dispatch.bindings.map(within) }));
  }).flat();
}

function flashBackward(
  op: OpOf<"attentionBackward">,
  rung: FlashRung,
  first: Binding[],
  second: Binding[],
): Dispatch[] {
  if (isStaged(rung, op)) {
    return [
      staged("attention-backward-q-staged", attentionBackwardQStaged, op, op.heads, first),
      staged("attention-backward-kv-staged", attentionBackwardKvStaged, op, op.kvHeads, second),
    ];
  }
  const blocks = { rows: FLASH_ROWS[rung] };
  return [
    rowBlocks("attention-backward-q", attentionBackwardQ, op, { ...blocks, heads: op.heads }, first),
    rowBlocks("attention-backward-kv", attentionBackwardKv, op, { ...blocks, heads: op.kvHeads }, second),
  ];
}

/** The fast kernels read quads; tiles in workgroup memory hold heads of up to 128. */
function allowedRung({ headDim }: HeadShape, { wanted, lanesMin }: AttentionContext): AttentionRung {
  if (wanted === "naive" || headDim % 4 !== 0 || headDim > 128) {
    return "naive";
  }
  if (isFlash(wanted)) {
    return wanted;
  }
  if (headDim > REGISTER_HEAD_MAX) {
    return "flash-16";
  }
  return isSubgroup(wanted) && lanesMin === 0 ? "rows" : wanted;
}

function isSubgroup(rung: AttentionRung): rung is SubgroupRung {
  return rung in SUBGROUP_ROWS;
}

function isFlash(rung: AttentionRung): rung is FlashRung {
  return rung in FLASH_ROWS;
}

function isStaged(rung: FlashRung, { headDim }: HeadShape): boolean {
  return rung === "flash-64" && headDim <= REGISTER_HEAD_MAX;
}

/** As many rows as `rung` says, or as few as have no more than `ELEMENTS_MAX` elements. */
function rowsOf({ headDim }: HeadShape, rung: SubgroupRung): number {
  return Math.min(SUBGROUP_ROWS[rung], Math.floor(ELEMENTS_MAX / headDim));
}

function headConstants(op: HeadShape): Constants {
  return {
    B: u32(op.batch),
    T: u32(op.time),
    H: u32(op.heads),
    KV: u32(op.kvHeads),
    D: u32(op.headDim),
    SCALE: f32(1 / Math.sqrt(op.headDim)),
  };
}

/** A workgroup for so many `rows` of each of `heads`; tiles of keys take 8 KiB at most, so that all fits 16. */
function rowBlocks(
  kernel: string,
  text: string,
  op: HeadShape,
  { rows, heads }: { readonly rows: number; readonly heads: number },
  bindings: Binding[],
): Dispatch {
  const constants = { ...headConstants(op), ROWS: u32(rows), TILE: u32(op.headDim <= 64 ? 16 : 8) };
  return { kernel: `${kernel}-${rows}`, text, constants, bindings, groups: op.batch * heads * share(op.time, rows) };
}

/** A workgroup for 64 rows of each of `heads`, with a register for each quad of a row. */
function staged(kernel: string, text: string, op: HeadShape, heads: number, bindings: Binding[]): Dispatch {
  const constants = { ...headConstants(op), TILE: u32(op.headDim <= 32 ? 32 : 16) };
  const groups = op.batch * heads * share(op.time, 64);
  return { kernel, text: unroll(text, { r: op.headDim / 4 }), constants, bindings, groups };
}

/** An invocation for every row of each of `heads`, with a register for each of its quads. */
function rows(kernel: string, text: string, op: HeadShape, heads: number, bindings: Binding[]): Dispatch {
  const groups = share(op.batch * op.time * heads, 64);
  return { kernel, text: unroll(text, { r: op.headDim / 4, c: 1 }), constants: headConstants(op), bindings, groups };
}

/** An invocation for every element of each of `heads`. */
function elements(kernel: string, text: string, op: HeadShape, heads: number, bindings: Binding[]): Dispatch {
  const groups = share(op.batch * op.time * heads * op.headDim, 64);
  return { kernel, text, constants: headConstants(op), bindings, groups };
}

interface Lanes {
  readonly rows: number;
  readonly heads: number;
  readonly size: number;
}

/** An invocation for every few rows of each of `heads`; workgroups stay within a head. */
function lanes(
  kernel: string,
  text: string,
  op: HeadShape,
  { rows: c, heads, size }: Lanes,
  bindings: Binding[],
): Dispatch {
  const constants = { ...headConstants(op), SIZE: u32(size) };
  const groups = op.batch * heads * share(op.time, size * c);
  return { kernel: `${kernel}-${c}`, text: unroll(text, { r: op.headDim / 4, c }), constants, bindings, groups };
}
