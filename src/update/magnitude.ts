/**
 * The two magnitudes of a chunk in the 2-bit form. Each kept value is sent as its sign and one of 2^a and 2^b; a and b are
 * those with the least squared error over the kept values, of equally good ones a single exponent before two and the
 * smaller before the larger. Powers of two cost nothing to apply exactly, and error feedback returns what they miss.
 *
 * The search is exact and needs one pass over the values. A value goes to 2^b when it is at least the middle
 * (2^a + 2^b) / 2 = 2^(b−1)·(1 + 2^(a−b)), and whether it is depends only on its exponent and on where the highest one in
 * its mantissa stands. With sums kept per such class, every pair (a, b) costs a few operations. Sums run from the small
 * end for what goes to a and from the large end for what goes to b, so that nothing cancels.
 */
import { EXPONENT_MAX, EXPONENT_MIN, widthOf } from "./format.ts";

/** Classes per exponent: no one in the mantissa, or the highest at one of 23 places. */
const CLASSES = 24;
const ALL = 256 * CLASSES;

/** Biased f32 exponents `low` ≤ `high`; magnitudes whose class is at least `split` go to `high`. */
interface Magnitudes {
  readonly low: number;
  readonly high: number;
  readonly split: number;
}

/** The class of an f32 magnitude given as its bit pattern: larger magnitudes are never in a smaller class. */
export function classOf(magnitude: number): number {
  return (magnitude >>> 23) * CLASSES + widthOf(magnitude & 0x7fffff);
}

/** 2^(biased − 127), exactly, for biased exponents of normal f32 numbers. */
export function powerOf(biased: number): number {
  return POWERS[biased] as number;
}

const POWERS = powers();

function powers(): Float32Array {
  return new Float32Array(Uint32Array.from({ length: 255 }, (_, biased) => (biased === 0 ? 0 : biased << 23)).buffer);
}

export type MagnitudeSearch = (magnitudes: Uint32Array, picked: Uint16Array, count: number) => Magnitudes;

/** Makes a search with its own scratch memory. Its argument: `count` ≥ 1 indices into f32 bit patterns without sign. */
export function createMagnitudeSearch(): MagnitudeSearch {
  // Per class: number, sum and sum of squares of its values; turned into sums of all classes below, and from it up.
  const below = { n: new Float64Array(ALL + 1), s: new Float64Array(ALL + 1), q: new Float64Array(ALL + 1) };
  const from = { n: new Float64Array(ALL + 1), s: new Float64Array(ALL + 1), q: new Float64Array(ALL + 1) };
  const asBits = new Uint32Array(1);
  const asFloat = new Float32Array(asBits.buffer);

  const sum = (magnitudes: Uint32Array, picked: Uint16Array, count: number): { first: number; last: number } => {
    let first = EXPONENT_MAX;
    let last = EXPONENT_MIN;
    for (let i = 0; i < count; i += 1) {
      const exponent = (magnitudes[picked[i] as number] as number) >>> 23;
      first = exponent < first ? exponent : first;
      last = exponent > last ? exponent : last;
    }
    const start = first * CLASSES;
    const end = (last + 1) * CLASSES;
    for (const part of [from.n, from.s, from.q, below.n, below.s, below.q]) {
      part.fill(0, start, end + 1);
    }
    for (let i = 0; i < count; i += 1) {
      const magnitude = magnitudes[picked[i] as number] as number;
      const at = classOf(magnitude);
      asBits[0] = magnitude;
      const value = asFloat[0] as number;
      from.n[at] = (from.n[at] as number) + 1;
      from.s[at] = (from.s[at] as number) + value;
      from.q[at] = (from.q[at] as number) + value * value;
    }
    for (let at = start; at < end; at += 1) {
      below.n[at + 1] = (below.n[at] as number) + (from.n[at] as number);
      below.s[at + 1] = (below.s[at] as number) + (from.s[at] as number);
      below.q[at + 1] = (below.q[at] as number) + (from.q[at] as number);
    }
    for (let at = end - 1; at >= start; at -= 1) {
      from.n[at] = (from.n[at] as number) + (from.n[at + 1] as number);
      from.s[at] = (from.s[at] as number) + (from.s[at + 1] as number);
      from.q[at] = (from.q[at] as number) + (from.q[at + 1] as number);
    }
    return { first, last };
  };

  return (magnitudes, picked, count) => {
    const { first, last } = sum(magnitudes, picked, count);
    const start = first * CLASSES;
    const end = (last + 1) * CLASSES;
    const highest = Math.min(last + 1, EXPONENT_MAX);
    let best: Magnitudes = { low: first, high: first, split: end };
    let least = Infinity;
    for (let high = first; high <= highest; high += 1) {
      const power = powerOf(high);
      const error = errorOf(from, start, power);
      if (error < least) {
        least = error;
        best = { low: high, high, split: end };
      }
    }
    for (let high = first + 1; high <= highest; high += 1) {
      for (let low = first; low < high; low += 1) {
        const split = (high - 1) * CLASSES + Math.max(1, CLASSES - (high - low));
        if (split <= start || split >= end || below.n[split] === 0 || from.n[split] === 0) {
          continue;
        }
        const error = errorOf(below, split, powerOf(low)) + errorOf(from, split, powerOf(high));
        if (error < least) {
          least = error;
          best = { low, high, split };
        }
      }
    }
    return best;
  };
}

/** Σ (v − power)² over the values summed up at a place. */
function errorOf(
  sums: { readonly n: Float64Array; readonly s: Float64Array; readonly q: Float64Array },
  at: number,
  power: number,
): number {
  return (sums.q[at] as number) - 2 * power * (sums.s[at] as number) + power * power * (sums.n[at] as number);
}
