/**
 * Kernels that reduce a row of a matrix: RMSNorm and cross-entropy, with their gradients. On a GPU the invocations of a
 * workgroup share a row; on a software adapter, whose barriers cost more than a row, each invocation owns one.
 */
import crossEntropyBackwardRows from "../../shaders/cross-entropy-backward-rows.wgsl" with { type: "text" };
import crossEntropyBackward from "../../shaders/cross-entropy-backward.wgsl" with { type: "text" };
import crossEntropyRows from "../../shaders/cross-entropy-rows.wgsl" with { type: "text" };
import crossEntropy from "../../shaders/cross-entropy.wgsl" with { type: "text" };
import rmsNormBackwardRows from "../../shaders/rms-norm-backward-rows.wgsl" with { type: "text" };
import rmsNormBackward from "../../shaders/rms-norm-backward.wgsl" with { type: "text" };
import rmsNormRows from "../../shaders/rms-norm-rows.wgsl" with { type: "text" };
import rmsNorm from "../../shaders/rms-norm.wgsl" with { type: "text" };
import type { OpOf, TensorId } from "../tensor/program.ts";
import { addend, at, read, share, write, type Binding, type Dispatch } from "./dispatch.ts";
import { bool, f32, u32, type Constants } from "./shader.ts";

/** shared: a workgroup a row. own: an invocation a row; rows that are no multiple of 4 long are shared all the same. */
export const ROW_RUNGS = ["shared", "own"] as const;
export type RowRung = (typeof ROW_RUNGS)[number];

export interface RowContext {
  readonly rung: RowRung;
  shapeOf(id: TensorId): readonly number[];
}

/** With so many rows, the eight invocations that add up a column of a gain's gradient would have hundreds each, one after the other. */
const MANY_ROWS = 4096;
/** Invocations of a workgroup whose invocations own rows: few, so that there are workgroups enough for every core. */
const OWNERS = 16;

export function rmsNormDispatch(op: OpOf<"rmsNorm">, { rung, shapeOf }: RowContext): Dispatch {
  const [N, C] = [at(shapeOf(op.x), 0), at(shapeOf(op.x), 1)];
  const constants = { N: u32(N), C: u32(C), EPS: f32(op.eps) };
  const bindings = [read(op.x), read(op.gain), write(op.out), write(op.rstd)];
  return isOwn(rung, C)
    ? own("rms-norm-rows", rmsNormRows, { constants, bindings, groups: share(N, OWNERS) })
    : { kernel: "rms-norm", text: rmsNorm, constants: { ...constants, ...rowSize(C) }, bindings, groups: N };
}

export function rmsNormBackwardDispatch(op: OpOf<"rmsNormBackward">, { rung, shapeOf }: RowContext): Dispatch {
  const [N, C] = [at(shapeOf(op.x), 0), at(shapeOf(op.x), 1)];
  const constants = { N: u32(N), C: u32(C), ADD: bool(op.add !== undefined) };
  const [x, gain, rstd, dout] = [read(op.x), read(op.gain), read(op.rstd), read(op.dout)];
  const bindings = [x, gain, rstd, dout, addend(op.add), write(op.dx), write(op.dgain)];
  if (isOwn(rung, C)) {
    const groups = share(C / 4, OWNERS) + share(N, OWNERS);
    return own("rms-norm-backward-rows", rmsNormBackwardRows, { constants, bindings, groups });
  }
  const size = u32(N >= MANY_ROWS ? 256 : 64);
  const shared = { constants: { ...constants, SIZE: size }, bindings, groups: share(C, 8) + N };
  return { kernel: "rms-norm-backward", text: rmsNormBackward, ...shared };
}

export function crossEntropyDispatch(op: OpOf<"crossEntropy">, { rung, shapeOf }: RowContext): Dispatch {
  const [N, V] = [at(shapeOf(op.logits), 0), at(shapeOf(op.logits), 1)];
  const constants = { N: u32(N), V: u32(V) };
  const bindings = [read(op.logits), read(op.targets), write(op.losses)];
  return isOwn(rung, V)
    ? own("cross-entropy-rows", crossEntropyRows, { constants, bindings, groups: share(N, OWNERS) })
    : { kernel: "cross-entropy", text: crossEntropy, constants: { ...constants, ...rowSize(V) }, bindings, groups: N };
}

export function crossEntropyBackwardDispatch(
  op: OpOf<"crossEntropyBackward">,
  { rung, shapeOf }: RowContext,
): Dispatch {
  const [N, V] = [at(shapeOf(op.logits), 0), at(shapeOf(op.logits), 1)];
  const constants = { N: u32(N), V: u32(V), COUNT: u32(op.count) };
  const bindings = [addend(op.logits), read(op.targets), write(op.dlogits)];
  const [kernel, text] = ["cross-entropy-backward", crossEntropyBackward];
  return isOwn(rung, V)
    ? own(`${kernel}-rows`, crossEntropyBackwardRows, { constants, bindings, groups: share(N, OWNERS) })
    : { kernel, text, constants: { ...constants, ...rowSize(V) }, bindings, groups: N };
}

function isOwn(rung: RowRung, columns: number): boolean {
  return rung === "own" && columns % 4 === 0;
}

interface Owned {
  readonly constants: Constants;
  readonly bindings: readonly Binding[];
  readonly groups: number;
}

function own(kernel: string, text: string, { constants, bindings, groups }: Owned): Dispatch {
  return { kernel, text, constants: { ...constants, SIZE: u32(OWNERS) }, bindings, groups };
}

/** Invocations that share a row of `columns`: more for long rows. */
function rowSize(columns: number): Constants {
  return columns >= 1024 ? { SIZE: u32(256), FOLD: u32(16) } : { SIZE: u32(64), FOLD: u32(8) };
}
