/**
 * The merge in plain words: what `merge.ts` has to give, bit for bit, from updates that are unpacked. Tests, the simulation's
 * oracle and the benchmark compare with it; a round is not merged by it.
 */
import { assert } from "../base/assert.ts";
import { updateNorm } from "./delta.ts";
import { clipScales, inOrder, stretch, type MergeOptions } from "./merge.ts";
import type { SparseUpdate } from "./unpack.ts";

export interface WeightedUpdate {
  /** Unique in the round; decides the order of summation. */
  readonly id: string;
  readonly update: SparseUpdate;
  /** Positive and finite. */
  readonly weight: number;
}

/** The merged delta [P]; zero where nobody sent anything. */
export function mergeUpdates(
  updates: readonly WeightedUpdate[],
  { parameters, clipToMedian, radial }: Omit<MergeOptions, "packedBytesMax">,
): Float64Array<ArrayBuffer> {
  const sorted = inOrder(updates);
  const norms = sorted.map(({ update }) => updateNorm(update));
  const scales = clipScales(norms, clipToMedian);
  const mean = new Float64Array(parameters);
  const weights = new Float64Array(parameters);
  for (const [at, { id, update, weight }] of sorted.entries()) {
    assert(
      update.parameters === parameters,
      `Cannot merge updates: "${id}" is for ${update.parameters} parameters, need ${parameters}`,
    );
    const scale = scales[at] as number;
    const { indices, values } = update;
    for (let i = 0; i < indices.length; i += 1) {
      const index = indices[i] as number;
      const before = mean[index] as number;
      const total = (weights[index] as number) + weight;
      weights[index] = total;
      mean[index] = before + (scale * (values[i] as number) - before) * (weight / total);
    }
  }
  if (radial) {
    const clipped = sorted.map(({ weight }, i) => ({ norm: (norms[i] as number) * (scales[i] as number), weight }));
    stretch(mean, clipped);
  }
  return mean;
}
