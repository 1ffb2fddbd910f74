/**
 * By whose updates those of others are measured. Whether an update was made on data that others cannot see is what its sender says,
 * and what nobody could measure can have any size: a tiny one among a few would have honest ones refused, or clipped to nothing.
 */

/** The updates whose size says what is usual: not those on private data, unless there are no others. */
export function yardsticksOf<T extends { readonly privateData?: boolean }>(updates: readonly T[]): readonly T[] {
  const open = updates.filter(({ privateData = false }) => !privateData);
  return open.length > 0 ? open : updates;
}
