/**
 * What is usual among updates, by which others are refused or clipped. Whether an update was made on data that others cannot see is
 * what its sender says, and nobody measures what such a one improves: a few tiny ones must not have honest ones clipped to nothing, and
 * neither must a single tiny one that is not private among many that are.
 */
import { lowerMedian, sortedOf } from "../base/sorted.ts";

/** The lower median of all, or of those not on private data where that is more; 0 for none. */
export function usualOf<T extends { readonly privateData?: boolean }>(
  updates: readonly T[],
  sizeOf: (update: T) => number,
): number {
  const median = (some: readonly T[]): number => lowerMedian(sortedOf(some.map(sizeOf)));
  return Math.max(median(updates), median(updates.filter(({ privateData = false }) => !privateData)));
}
