/**
 * Merging the updates of a round: per parameter the weighted mean over those who sent it. Dividing by the senders rather
 * than by all contributors is what the shipped SparseLoCo code does and what makes sparse updates work: few indices are
 * sent twice, and dividing them by everybody would shrink the step by their number. Each update is first clipped to a
 * multiple of the round's median norm, so that one contributor cannot outweigh the others by shouting.
 *
 * The order is fixed by id, not by arrival, and the mean is updated sender by sender, so that a parameter with one sender
 * gets exactly the value sent.
 */
import { assert } from "../base/assert.ts";
import { updateNorm } from "./delta.ts";
import type { SparseUpdate } from "./unpack.ts";

export interface WeightedUpdate {
  /** Unique in the round; decides the order of summation. */
  readonly id: string;
  readonly update: SparseUpdate;
  /** Positive and finite, for example the number of tokens trained on. */
  readonly weight: number;
}

export interface MergeOptions {
  /** P. */
  readonly parameters: number;
  /** Largest norm as a multiple of the median norm; 0 switches clipping off. */
  readonly clipToMedian: number;
}

/** The merged delta [P]; zero where nobody sent anything. Takes 16 bytes a parameter, whatever the number of updates. */
export function mergeUpdates(
  updates: readonly WeightedUpdate[],
  { parameters, clipToMedian }: MergeOptions,
): Float64Array<ArrayBuffer> {
  const sorted = updates.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  const norms = sorted.map(({ update }) => updateNorm(update));
  const median = medianNorm(norms);
  const mean = new Float64Array(parameters);
  const weights = new Float64Array(parameters);
  for (const [at, { id, update, weight }] of sorted.entries()) {
    assert(at === 0 || sorted[at - 1]?.id !== id, `Cannot merge updates: id "${id}" occurs twice`);
    assert(
      weight > 0 && weight < Infinity,
      `Cannot merge updates: the weight of "${id}" is ${weight}, need more than 0`,
    );
    assert(
      update.parameters === parameters,
      `Cannot merge updates: "${id}" is for ${update.parameters} parameters, need ${parameters}`,
    );
    const scale = clipScale(norms[at] as number, clipToMedian * median);
    const { indices, values } = update;
    for (let i = 0; i < indices.length; i += 1) {
      const index = indices[i] as number;
      const before = mean[index] as number;
      const total = (weights[index] as number) + weight;
      weights[index] = total;
      mean[index] = before + (scale * (values[i] as number) - before) * (weight / total);
    }
  }
  return mean;
}

/**
 * The median of the norms that are not zero, of two middle ones the smaller: with two contributors the quieter one counts.
 * 0 when there is none.
 */
export function medianNorm(norms: readonly number[]): number {
  const sorted = norms.filter((norm) => norm > 0).sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? 0;
}

/** What to multiply an update by so that its norm is at most `normMax`; 1 when `normMax` is 0 (no clipping). */
function clipScale(norm: number, normMax: number): number {
  return normMax > 0 && norm > normMax ? normMax / norm : 1;
}
