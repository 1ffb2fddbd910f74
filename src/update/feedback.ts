/**
 * Error feedback: what a packed update leaves out is not lost but waits in a residual [P] and is sent later (Seide et al.,
 * 2014; SparseLoCo's e ← βe + δ). A round is `accumulate`, pack the residual, send, and `settle` once the other side says
 * that the contribution is part of the base. Whoever goes on before it knows settles, too, and takes it back with `giveBack`
 * where it was not accepted. A contribution that was refused or came too late is not settled, so that it
 * is sent again; `shareLeft` fades it, more where rounds were missed, because it was measured on an older base.
 *
 * All functions change the residual in place: it is as large as the model.
 */
import { assert } from "../base/assert.ts";
import type { Compression } from "../protocol/charter.ts";
import type { SparseUpdate } from "./unpack.ts";

/** A residual of zeros for P parameters: f64 when values travel exactly, f32 otherwise. */
export function createResidual(parameters: number, bits: Compression["bits"]): Float32Array | Float64Array {
  return bits === 64 ? new Float64Array(parameters) : new Float32Array(parameters);
}

/** residual ← beta · residual + delta, both [P]. */
export function accumulate(
  residual: Float32Array | Float64Array,
  delta: Float32Array | Float64Array,
  beta: number,
): void {
  const parameters = residual.length;
  assert(delta.length === parameters, `Cannot accumulate delta: it has ${delta.length} entries, need ${parameters}`);
  for (let i = 0; i < parameters; i += 1) {
    residual[i] = beta * (residual[i] as number) + (delta[i] as number);
  }
}

/** residual ← residual − sent. `sent` is the unpacked packet, rounding included, of a contribution that was acknowledged. */
export function settle(residual: Float32Array | Float64Array, sent: SparseUpdate): void {
  assert(
    sent.parameters === residual.length,
    `Cannot settle residual: the update is for ${sent.parameters} parameters, need ${residual.length}`,
  );
  const { indices, values } = sent;
  for (let i = 0; i < indices.length; i += 1) {
    const index = indices[i] as number;
    residual[index] = (residual[index] as number) - (values[i] as number);
  }
}

/** residual ← residual + share · sent: what was settled before its time and was not accepted. */
export function giveBack(
  residual: Float32Array | Float64Array,
  { indices, values }: SparseUpdate,
  share: number,
): void {
  for (let i = 0; i < indices.length; i += 1) {
    const index = indices[i] as number;
    residual[index] = (residual[index] as number) + share * (values[i] as number);
  }
}

/** What a missed round leaves of a residual at most: it was measured on an older base. */
const MISSED_SHARE = 0.9;

/** What is left of a residual from one contribution to the next, with so many rounds `missed` between them. */
export function shareLeft({ beta, missed }: { readonly beta: number; readonly missed: number }): number {
  return beta * fadeOf({ beta: Math.min(beta, MISSED_SHARE), rounds: missed });
}

/** beta^rounds, by products: the last bit of Math.pow differs between JavaScript engines. */
export function fadeOf({ beta, rounds }: { readonly beta: number; readonly rounds: number }): number {
  let factor = 1;
  for (let round = 0; round < rounds && factor > 0; round += 1) {
    const next = factor * beta;
    if (next === factor) {
      break; // beta is 1: nothing fades
    }
    factor = next;
  }
  return factor;
}
