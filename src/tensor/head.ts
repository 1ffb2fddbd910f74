/**
 * The loss of a product with a large vocabulary, a few rows at a time: logits [N,V] would be the largest tensor of a training
 * step and are needed for a moment only. Rows go by in chunks that share one block of logits: product, losses, and where
 * gradients are wanted, their gradient in the logits' own place and its two products. The loss's own gradient is 1, so
 * nothing has to wait for the walk back, which goes on from dx (`gradFrom`). Source: Liger Kernel, arXiv 2410.10989.
 */
import { assert, present } from "../base/assert.ts";
import { elementCount, type TensorId } from "./program.ts";
import type { Recorder } from "./record.ts";

/** The most bytes of logits that live at one time; a vocabulary of bytes and 1,024 rows take 1 MiB and one chunk. */
export const LOGITS_BYTES_MAX = 2 ** 25;

/** Chunks begin at multiples of this many rows: 256 bytes of losses or targets, the alignment of WebGPU bindings. */
const ROWS_ALIGNMENT = 64;

export interface Head {
  /** [N,C] */
  readonly x: TensorId;
  /** [V,C] */
  readonly weight: TensorId;
  /** [N] u32 */
  readonly targets: TensorId;
}

export interface HeadOptions {
  /** The loss is the mean over this many rows, N by default: more where it goes on in other batches. */
  readonly count?: number;
  readonly logitsBytesMax?: number;
  /** Where the weights' gradient goes, and what is added to it (it may be the same tensor). No gradients without it. */
  readonly dweight?: { readonly out: TensorId; readonly add?: TensorId };
}

export interface HeadLoss {
  /** [N], in nats. */
  readonly losses: TensorId;
  /** [N,C], if gradients are wanted. */
  readonly dx: TensorId | undefined;
}

/** Records the losses of x · weightᵀ, in as few chunks as `logitsBytesMax` allows, and the gradients of their mean. */
export function recordHead(r: Recorder, { x, weight, targets }: Head, options: HeadOptions = {}): HeadLoss {
  const [N, C] = r.shapeOf(x) as [number, number];
  const [V, width] = r.shapeOf(weight) as [number, number];
  assert(C === width, `Cannot record head: x has ${C} columns, weights [${V},${width}]`);
  assert(N === elementCount(r.shapeOf(targets)), `Cannot record head: ${N} rows, targets [${r.shapeOf(targets)}]`);
  const { count = N, logitsBytesMax = LOGITS_BYTES_MAX, dweight } = options;
  const rows = chunkRows(N, V, logitsBytesMax);
  const logits = r.value("logits", [rows, V]);
  const losses = r.value("losses", [N]);
  const dx = dweight === undefined ? undefined : r.value("dx", [N, C]);
  for (let first = 0; first < N; first += rows) {
    const [R, end] = [Math.min(rows, N - first), Math.min(N, first + rows)];
    const part = (name: string, of: TensorId, ...rest: number[]): TensorId =>
      R === N ? of : r.view(`${name} ${first}–${end}`, of, first * elementCount(rest), [R, ...rest]);
    const own = R === rows ? logits : r.view(`logits ${first}–${end}`, logits, 0, [R, V]);
    const [xs, wanted] = [part("x", x, C), part("targets", targets)];
    r.matmul(xs, weight, { transB: true, out: own }); // [R,V]
    r.push({ type: "crossEntropy", logits: own, targets: wanted, losses: part("losses", losses) });
    if (dweight !== undefined) {
      r.push({ type: "crossEntropyBackward", logits: own, targets: wanted, count, dlogits: own });
      r.matmul(own, weight, { out: part("dx", present(dx, "dx"), C) }); // [R,C]
      const add = first === 0 ? dweight.add : dweight.out;
      r.matmul(own, xs, { transA: true, out: dweight.out, ...(add === undefined ? {} : { add }) }); // [V,C]
    }
  }
  return { losses, dx };
}

/** Rows of a chunk: all, or the largest aligned number whose logits take no more than `bytesMax`, and at least one unit. */
function chunkRows(N: number, V: number, bytesMax: number): number {
  const fit = Math.floor(bytesMax / (4 * V));
  return fit >= N ? N : Math.min(N, Math.max(ROWS_ALIGNMENT, Math.floor(fit / ROWS_ALIGNMENT) * ROWS_ALIGNMENT));
}
