/**
 * Deltas and how they are applied. A delta (pseudo-gradient) is the base minus what training made of it, so base − delta
 * moves towards the trained model. Applying is one f32 rounding an entry, in index order, on every machine: replicas of
 * the base stay equal bit for bit. (base − value is computed in f64 and rounded once, which for rounded updates equals f32
 * subtraction.)
 */
import { assert } from "../base/assert.ts";
import type { Compression } from "../protocol/charter.ts";
import type { SparseUpdate } from "./unpack.ts";

/**
 * before − after, [P]. f64 for 64 bits: applying such a delta to `before` gives `after` bit for bit, unless a parameter fell
 * below 2^-28 of its former size (then the error is below 2^-53 of that size) or a zero changed its sign. f32 otherwise.
 */
export function deltaOf(
  before: Float32Array,
  after: Float32Array,
  bits: Compression["bits"],
): Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> {
  const parameters = before.length;
  assert(after.length === parameters, `Cannot take delta: got ${after.length} parameters after, ${parameters} before`);
  const delta = bits === 64 ? new Float64Array(parameters) : new Float32Array(parameters);
  for (let i = 0; i < parameters; i += 1) {
    delta[i] = (before[i] as number) - (after[i] as number);
  }
  return delta;
}

/** A new base [P]: what `applyTo` makes of a copy; `base` stays as it is. */
export function applyUpdate(base: Float32Array, update: SparseUpdate, among = 1): Float32Array<ArrayBuffer> {
  assert(
    update.parameters === base.length,
    `Cannot apply update: it is for ${update.parameters} parameters, need ${base.length}`,
  );
  const next = new Float32Array(base);
  applyTo(next, update, among);
  return next;
}

/**
 * params ← params − update / among, rounded to f32; both of the same length. The update is one of `among` in a mean; the division is
 * f64's, and by 1 none.
 */
export function applyTo(params: Float32Array, { indices, values }: SparseUpdate, among = 1): void {
  for (let i = 0; i < indices.length; i += 1) {
    const index = indices[i] as number;
    params[index] = (params[index] as number) - (values[i] as number) / among;
  }
}

/** Euclidean norm of an update, summed in index order in f64. Finite for every update that `unpackUpdate` accepts. */
export function updateNorm(update: SparseUpdate): number {
  let sum = 0;
  for (const value of update.values) {
    sum += value * value;
  }
  return Math.sqrt(sum);
}
