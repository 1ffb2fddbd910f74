/** What a measurement prints: figures by name, rounded, and how values spread. */
import { quantile } from "../../src/base/statistics.ts";

export type Outcome = Readonly<Record<string, number | string | Readonly<Record<string, number>>>>;

/** Quantiles of `values` in their own unit, to a tenth; nothing where there are none. */
export function spreadOf(values: readonly number[]): Readonly<Record<string, number>> {
  const at = (share: number): number => rounded(quantile(values, share), 1);
  return values.length === 0 ? {} : { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

export function rounded(value: number, digits: number): number {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
