/**
 * The ladder of causal attention and its backward: which kernels compute them, over how many workgroups. A rung that a
 * head's width does not allow gives way to the next one that it does.
 */
import attentionBackwardKvNaive from "../../shaders/attention-backward-kv-naive.wgsl" with { type: "text" };
import attentionBackwardKvRows from "../../shaders/attention-backward-kv-rows.wgsl" with { type: "text" };
import attentionBackwardKvSubgroup from "../../shaders/attention-backward-kv-subgroup.wgsl" with { type: "text" };
import attentionBackwardKv from "../../shaders/attention-backward-kv.wgsl" with { type: "text" };
import attentionBackwardQNaive from "../../shaders/attention-backward-q-naive.wgsl" with { type: "text" };
import attentionBackwardQRows from "../../shaders/attention-backward-q-rows.wgsl" with { type: "text" };
import attentionBackwardQSubgroup from "../../shaders/attention-backward-q-subgroup.wgsl" with { type: "text" };
import attentionBackwardQ from "../../shaders/attention-backward-q.wgsl" with { type: "text" };
import attentionNaive from "../../shaders/attention-naive.wgsl" with { type: "text" };
import attentionRows from "../../shaders/attention-rows.wgsl" with { type: "text" };
import attentionSubgroup from "../../shaders/attention-subgroup.wgsl" with { type: "text" };
import attention from "../../shaders/attention.wgsl" with { type: "text" };
import type { HeadShape, OpOf } from "../tensor/program.ts";
import { read, share, write, type Binding, type Dispatch } from "./dispatch.ts";
import { f32, u32, unroll, type Constants } from "./shader.ts";

/** Rows that one invocation owns, of the rungs that are named after them. */
const ROWS = { "subgroup-1": 1, "subgroup-2": 2, "subgroup-4": 4 } as const;

type SubgroupRung = keyof typeof ROWS;

/** The most elements of queries, or of keys, that one invocation of the subgroup rungs keeps. More would spill. */
const ELEMENTS_MAX = 128;
/** Wider heads than this go to workgroup memory: compilers take long over so many named registers. */
const REGISTER_HEAD_MAX = 64;

/**
 * naive takes any head width; the others want multiples of 4, up to 128. flash: tiles in workgroup memory, 4 lanes a row, for
 * GPUs. rows: an invocation a row, all in registers. subgroup: rows too, with reads shared by broadcast.
 */
export const ATTENTION_RUNGS = ["naive", "flash", "rows", ...(Object.keys(ROWS) as SubgroupRung[])] as const;
export type AttentionRung = (typeof ATTENTION_RUNGS)[number];

export interface AttentionContext {
  readonly wanted: AttentionRung;
  /** Invocations that a subgroup has at least; 0 if the device has no subgroups. */
  readonly lanesMin: number;
  /** Invocations of a workgroup that needs no barrier: few where each of them is a thread's turn anyway. */
  readonly size: number;
}

/**
 * The rung to take where nobody has measured: on a GPU tiles in workgroup memory; on software adapters what was fastest on
 * SwiftShader (4 lanes), on Mesa's lavapipe (8 lanes) and without subgroups on Mesa's llvmpipe. In the backward, where each row
 * has a gradient as well, fewer rows an invocation: compilers take seconds over more.
 */
export function attentionGuess(
  { software, lanesMin }: { readonly software: boolean; readonly lanesMin: number },
  way: "forward" | "backward",
): AttentionRung {
  if (!software) {
    return "flash";
  }
  if (lanesMin >= 8) {
    return way === "forward" ? "subgroup-2" : "subgroup-1";
  }
  if (lanesMin > 0) {
    return way === "forward" ? "subgroup-4" : "subgroup-2";
  }
  return "rows";
}

export function attentionDispatches(op: OpOf<"attention">, context: AttentionContext): Dispatch[] {
  const bindings = [read(op.q), read(op.k), read(op.v), write(op.out), write(op.lse)];
  const rung = allowedRung(op, context);
  switch (rung) {
    case "flash":
      return [rowBlocks("attention", attention, op, op.heads, bindings)];
    case "rows":
      return [rows("attention-rows", attentionRows, op, op.heads, bindings)];
    case "naive":
      return [elements("attention-naive", attentionNaive, op, op.heads, bindings)];
    default: {
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
    case "flash":
      return [
        rowBlocks("attention-backward-q", attentionBackwardQ, op, op.heads, first),
        rowBlocks("attention-backward-kv", attentionBackwardKv, op, op.kvHeads, second),
      ];
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

/** The fast kernels read quads; tiles in workgroup memory hold heads of up to 128. */
function allowedRung({ headDim }: HeadShape, { wanted, lanesMin }: AttentionContext): AttentionRung {
  if (wanted === "naive" || headDim % 4 !== 0 || headDim > 128) {
    return "naive";
  }
  if (wanted === "flash" || headDim > REGISTER_HEAD_MAX) {
    return "flash";
  }
  return isSubgroup(wanted) && lanesMin === 0 ? "rows" : wanted;
}

function isSubgroup(rung: AttentionRung): rung is SubgroupRung {
  return rung in ROWS;
}

/** As many rows as `rung` says, or as few as have no more than `ELEMENTS_MAX` elements. */
function rowsOf({ headDim }: HeadShape, rung: SubgroupRung): number {
  return Math.min(ROWS[rung], Math.floor(ELEMENTS_MAX / headDim));
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

/** A workgroup for 16 rows of each of `heads`. */
function rowBlocks(kernel: string, text: string, op: HeadShape, heads: number, bindings: Binding[]): Dispatch {
  const constants = { ...headConstants(op), TILE: u32(op.headDim <= 64 ? 16 : 8) };
  return { kernel, text, constants, bindings, groups: op.batch * heads * share(op.time, 16) };
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
  return { kernel, text: unroll(text, { r: op.headDim / 4, c }), constants, bindings, groups };
}
