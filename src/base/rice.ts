/**
 * What a list of gaps costs in Rice code, at most. With parameter r a gap takes as many zeros as it has whole 2^r, a one, and r low
 * bits; one parameter serves the whole list. `update/rice.ts` finds the best one of given gaps.
 */

/** Gaps are below 4,096 = 2^12, so a larger Rice parameter never helps. */
export const RICE_MAX = 12;

/** The most bits that `count` gaps can take with their best parameter, when they add up to `sum` at most. More gaps never cost less. */
export function gapBitsMax({ count, sum }: { readonly count: number; readonly sum: number }): number {
  let least = Infinity;
  for (let rice = 0; rice <= RICE_MAX; rice += 1) {
    least = Math.min(least, count * (rice + 1) + (sum >>> rice));
  }
  return least;
}
