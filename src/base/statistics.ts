/** What measurements are summed up by: quantiles, the median, and how far apart the quartiles lie. */
import { assert } from "./assert.ts";

/** The value below which `share` of `values` lie; interpolated between neighbours. Throws when there are none. */
export function quantile(values: readonly number[], share: number): number {
  assert(values.length > 0, "Cannot take a quantile: there are no values");
  const sorted = values.toSorted((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)] as number, sorted[Math.ceil(at)] as number];
  return low + (high - low) * (at - Math.floor(at));
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Half the distance between the quartiles, as a share of the median. */
export function spread(values: readonly number[]): number {
  return (quantile(values, 0.75) - quantile(values, 0.25)) / 2 / median(values);
}
