/**
 * The two magnitudes of a chunk of an update (`update/format.ts`). Each kept value is sent as its sign and one of 2^a and
 * 2^b: those with the least squared error over the kept values. Kernels on every engine make the same choice, so the search
 * is defined here in integers of 32 bits and sums of two of them; no rounding depends on the order in which values come.
 *
 * Values fall into classes: 4 an octave, which begin at 1, 1.125, 1.25 and 1.5 times its power of two; these are the middles
 * between two powers of two that are far, 3, 2 and 1 octaves apart. Every split of the classes into a lower and an upper
 * part is tried, and none. The best power for a part is the one nearest to its mean; of two as near the smaller. With n
 * values and sum s, power p leaves Σ v² + p·(p·n − 2s): Σ v² is the same for all splits and left out. The smallest error
 * wins, of equal ones the first: no split, then splits from the small end.
 *
 * Sums are fixed-point. A value counts 2^16 units and more of its own octave, its mantissa cut to 16 bits. The sum of the
 * lower part is kept in units of its own highest octave, so that small values far from large ones still find their power;
 * that of the upper part and all errors are in units of the highest octave of all. What lies below a unit is cut off. Values
 * more than 31 octaves below the highest are dust: one class for all, so that a kernel needs no more than 129.
 */

/** Classes per octave, and all of them: one octave for each biased f32 exponent. */
const CLASSES = 4;
const ALL = 256 * CLASSES;
/** Bits of a unit below its octave's power of two. */
const UNIT_BITS = 16;
/** Octaves that are told apart. */
const OCTAVES = 32;
/** Biased exponent of the largest finite f32. */
const EXPONENT_MAX = 254;

/** Biased f32 exponents `low` ≤ `high`; magnitudes whose class is at least `split` go to `high`. */
export interface Magnitudes {
  readonly low: number;
  readonly high: number;
  readonly split: number;
}

/** The class of an f32 magnitude given as its bit pattern: larger magnitudes are never in a smaller class. */
export function classOf(magnitude: number): number {
  return (magnitude >>> 23) * CLASSES + 32 - Math.clz32((magnitude >>> 20) & 7);
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

/** Values of one part of a chunk: how many, and their sum in units of octave `top`. */
interface Part {
  readonly n: number;
  readonly sum: number;
  readonly top: number;
}

/** Makes a search with its own scratch memory. Its argument: `count` ≥ 1 indices into bit patterns of normal f32, without sign. */
export function createMagnitudeSearch(): MagnitudeSearch {
  const counts = new Uint32Array(ALL);
  const sums = new Uint32Array(ALL);

  /** Fills `counts` and `sums` of all classes between two octaves, the smallest above the dust and the highest; sums up the dust. */
  const classify = (magnitudes: Uint32Array, picked: Uint16Array, count: number) => {
    const sizeAt = (i: number): number => magnitudes[picked[i] as number] as number;
    let last = 0;
    for (let i = 0; i < count; i += 1) {
      last = Math.max(last, sizeAt(i) >>> 23);
    }
    let first = last;
    let top = 0;
    for (let i = 0; i < count; i += 1) {
      const octave = sizeAt(i) >>> 23;
      if (octave > last - OCTAVES) {
        first = octave < first ? octave : first;
      } else {
        top = octave > top ? octave : top;
      }
    }
    counts.fill(0, first * CLASSES, (last + 1) * CLASSES);
    sums.fill(0, first * CLASSES, (last + 1) * CLASSES);
    let [n, sum] = [0, 0];
    for (let i = 0; i < count; i += 1) {
      const size = sizeAt(i);
      const units = ((size & 0x7fffff) | 0x800000) >>> (23 - UNIT_BITS);
      if (size >>> 23 < first) {
        n += 1;
        sum += units >>> Math.min(31, top - (size >>> 23));
      } else {
        const at = classOf(size);
        counts[at] = (counts[at] as number) + 1;
        sums[at] = (sums[at] as number) + units;
      }
    }
    return { first, last, dust: { n, sum, top: n === 0 ? first : top } };
  };

  return (magnitudes, picked, count) => {
    const { first, last, dust } = classify(magnitudes, picked, count);
    const [start, end] = [first * CLASSES, (last + 1) * CLASSES];
    const inLast = (at: number): number => (sums[at] as number) >>> (last - (at >>> 2));
    let total = 0;
    for (let at = start; at < end; at += 1) {
      total += inLast(at);
    }
    const all = { n: count, sum: total, top: last };
    const only = powerFor(all);
    let best: Magnitudes = { low: only, high: only, split: end };
    let least = errorOf(all, only, last);
    let below = dust;
    let belowInLast = 0;
    for (let at = start; at < end; at += 1) {
      const n = counts[at] as number;
      if (n === 0) {
        continue;
      }
      if (below.n > 0) {
        const from = { n: count - below.n, sum: total - belowInLast, top: last };
        const [low, high] = [powerFor(below), powerFor(from)];
        const error = errorOf(below, low, last) + errorOf(from, high, last);
        if (low < high && error < least) {
          least = error;
          best = { low, high, split: at };
        }
      }
      const top = at >>> 2;
      below = { n: below.n + n, sum: (below.sum >>> Math.min(31, top - below.top)) + (sums[at] as number), top };
      belowInLast += inLast(at);
    }
    return best;
  };
}

/** The biased exponent of the power of two that is nearest to the mean; at most one above the part's highest octave. */
function powerFor({ n, sum, top }: Part): number {
  let power = Math.min(UNIT_BITS + 1, UNIT_BITS + EXPONENT_MAX - top);
  while (4 * sum <= 3 * n * 2 ** power) {
    power -= 1;
  }
  return top - UNIT_BITS + power;
}

/** Σ (v − 2^exponent)² − Σ v² over a part, in squared units of octave `last`, rounded down. Below 2^48: exact. */
function errorOf({ n, sum, top }: Part, exponent: number, last: number): number {
  const power = exponent - top + UNIT_BITS;
  return Math.floor((n * 2 ** power - 2 * sum) * 2 ** (power - 2 * (last - top)));
}
