/**
 * The ladder of causal attention and its backward: which kernels compute them, over how many workgroups. A rung that a
 * head's width does not allow gives way to the next one that it does.
 */
import attentionBackwardKvNaive from "../../shaders/attention-backward-kv-naive.wgsl" with { type: "text" };
import attentionBackwardKvRows from "../../shaders/attention-backward-kv-rows.wgsl" with { type: "text" };
import attentionBackwardKv from "../../shaders/attention-backward-kv.wgsl" with { type: "text" };
import attentionBackwardQNaive from "../../shaders/attention-backward-q-naive.wgsl" with { type: "text" };
import attentionBackwardQRows from "../../shaders/attention-backward-q-rows.wgsl" with { type: "text" };
import attentionBackwardQ from "../../shaders/attention-backward-q.wgsl" with { type: "text" };
import attentionNaive from "../../shaders/attention-naive.wgsl" with { type: "text" };
import attentionRows from "../../shaders/attention-rows.wgsl" with { type: "text" };
import attention from "../../shaders/attention.wgsl" with { type: "text" };
import type { HeadShape, OpOf } from "../tensor/program.ts";
import { read, share, write, type Binding, type Dispatch } from "./dispatch.ts";
import { f32, u32, unroll, type Constants } from "./shader.ts";

export const ATTENTION_RUNGS = ["naive", "flash", "rows"] as const;
export type AttentionRung = (typeof ATTENTION_RUNGS)[number];

export function attentionDispatches(op: OpOf<"attention">, wanted: AttentionRung): Dispatch[] {
  const bindings = [read(op.q), read(op.k), read(op.v), write(op.out), write(op.lse)];
  switch (allowedRung(op, wanted)) {
    case "flash":
      return [rowBlocks("attention", attention, op, op.heads, bindings)];
    case "rows":
      return [rows("attention-rows", attentionRows, op, op.heads, bindings)];
    default:
      return [elements("attention-naive", attentionNaive, op, op.heads, bindings)];
  }
}

export function attentionBackwardDispatches(op: OpOf<"attentionBackward">, wanted: AttentionRung): Dispatch[] {
  const { q, k, v, out, lse, dout, delta, dq, dk, dv } = op;
  const first = [read(q), read(k), read(v), read(out), read(lse), read(dout), write(delta), write(dq)];
  const second = [read(q), read(k), read(v), read(dout), read(lse), read(delta), write(dk), write(dv)];
  switch (allowedRung(op, wanted)) {
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
    default:
      return [
        elements("attention-backward-q-naive", attentionBackwardQNaive, op, op.heads, first),
        elements("attention-backward-kv-naive", attentionBackwardKvNaive, op, op.kvHeads, second),
      ];
  }
}

/**
 * The fast kernels read quads; tiles in workgroup memory hold heads of up to 128, registers of up to 64.
 */
function allowedRung({ headDim }: HeadShape, wanted: AttentionRung): AttentionRung {
  if (wanted === "naive" || headDim % 4 !== 0 || headDim > 128) {
    return "naive";
  }
  return headDim > 64 ? "flash" : wanted;
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
