/**
 * The magnitudes that a chunk of an update is rounded to (`update/format.ts`). A kept value is sent as its sign and, with b bits, one
 * of 2^(b−1) levels. What is kept are the largest of many values: magnitudes from some threshold up, of which more lie near it
 * than far above. So the levels have a lowest one and a distance that grows with them: their f32 bit patterns are `first`, `first`
 * + `step`, `first` + 2·`step` …, which is linear within an octave and doubles from one to the next. `first` has 4 bits of
 * mantissa, 16 classes of magnitudes in an octave, and the step is a power of two of classes: halves and quarters of an octave,
 * octaves and more.
 *
 * The search takes magnitudes as their classes, to which they are rounded, and tries every first class with every step, and one
 * level alone. Of all it takes the one with the least squared error, of equal ones the first: one level, then steps from the
 * largest down; of each the smaller first class. Kernels on every engine make the same choice, so it is defined in integers:
 * a magnitude counts 256 to 496 units in the highest octave, half as many in the octave below, and so on, cut to whole units;
 * so squares of 4,096 differences add up to less than 2^32, also for a level in the octave above. What lies more than nine octaves
 * below the highest has no units and counts as if it were there.
 */

/** Bits of a pattern below its class. */
const CLASS_SHIFT = 19;
/** Classes per octave, and the smallest and the largest class: those of normal, finite numbers. */
const CLASSES = 16;
export const CLASS_MIN = CLASSES;
export const CLASS_MAX = 255 * CLASSES - 1;
/** Classes that a search tells apart: ten octaves, the last of which is the highest. */
const SEARCHED = 10 * CLASSES;
/** The largest step tried: 2^7 classes are eight octaves. */
const STEP_MAX = 8;

/** Levels are the classes `first`, `first` + 2^(step − 1), …; where `step` is 0, there is one. */
export interface Levels {
  readonly first: number;
  readonly step: number;
}

/** The class of an f32 magnitude given as its bit pattern, rounded to the nearest; the largest numbers are in the last one. */
export function classOf(magnitude: number): number {
  return Math.min(CLASS_MAX, (magnitude + (1 << (CLASS_SHIFT - 1))) >>> CLASS_SHIFT);
}

/** The magnitude in the middle of a class, exactly. */
export function magnitudeOf(class_: number): number {
  return MAGNITUDES[class_] as number;
}

const MAGNITUDES = new Float32Array(
  Uint32Array.from({ length: CLASS_MAX + 1 }, (_, class_) => (class_ < CLASS_MIN ? 0 : class_ << CLASS_SHIFT)).buffer,
);

/** Which of the levels, with `bits` bits a value, is nearest to a class, counted in classes. */
export function levelOf(class_: number, { first, step }: Levels, bits: number): number {
  if (step === 0) {
    return 0;
  }
  const half = (1 << (step - 1)) >> 1;
  return Math.max(0, Math.min((1 << (bits - 1)) - 1, (class_ - first + half) >> (step - 1)));
}

/**
 * Finds levels for values of `bits` bits each, 1 to 4. Its other arguments: `count` ≥ 1 indices into bit patterns of normal f32,
 * without sign.
 */
export type LevelSearch = (magnitudes: Uint32Array, picked: Uint16Array, count: number, bits: number) => Levels;

/** Makes a search with its own scratch memory. */
export function createLevelSearch(): LevelSearch {
  const numbers = new Uint32Array(SEARCHED);
  // Of the classes below each: how many values, and their sum.
  const numbersBelow = new Uint32Array(SEARCHED + 1);
  const sumsBelow = new Uint32Array(SEARCHED + 1);

  return (magnitudes, picked, count, bits) => {
    let highest = 0;
    for (let i = 0; i < count; i += 1) {
      highest = Math.max(highest, classOf(magnitudes[picked[i] as number] as number));
    }
    // Classes are counted from here on.
    const base = highest - (highest % CLASSES) + CLASSES - SEARCHED;
    numbers.fill(0);
    for (let i = 0; i < count; i += 1) {
      const at = Math.max(0, classOf(magnitudes[picked[i] as number] as number) - base);
      numbers[at] = (numbers[at] as number) + 1;
    }
    let squares = 0;
    for (let at = 0; at < SEARCHED; at += 1) {
      const [n, units] = [numbers[at] as number, unitsOf(at)];
      numbersBelow[at + 1] = (numbersBelow[at] as number) + n;
      sumsBelow[at + 1] = (sumsBelow[at] as number) + n * units;
      squares += n * units * units;
    }
    /** What the values of the classes from `from` up to `to` add to the error when they are sent as `level`, but for their squares. */
    const errorOf = (level: number, from: number, to: number): number => {
      const n = (numbersBelow[to] as number) - (numbersBelow[from] as number);
      const sum = (sumsBelow[to] as number) - (sumsBelow[from] as number);
      const units = unitsOf(level);
      return units * (n * units - 2 * sum);
    };
    const lowest = numbers.findIndex((n) => n > 0);
    const end = highest - base + 1;
    let best: Levels = { first: 0, step: 0 };
    let least = Infinity;
    for (let first = lowest; first < end; first += 1) {
      const error = squares + errorOf(first, 0, SEARCHED);
      if (error < least) {
        least = error;
        best = { first: base + first, step: 0 };
      }
    }
    const top = (1 << (bits - 1)) - 1;
    const levelMax = Math.min(end + CLASSES - 2, CLASS_MAX - base);
    for (let step = top === 0 ? 0 : STEP_MAX; step > 0; step -= 1) {
      const wide = 1 << (step - 1);
      const half = wide >> 1;
      // Those whose lowest level is used and not alone.
      for (let first = lowest - wide + half + 1; first < end - wide + half; first += 1) {
        const last = Math.min(top, (end - 1 - first + half) >> (step - 1));
        if (first + base < CLASS_MIN || first + last * wide > levelMax) {
          continue;
        }
        let error = squares;
        let from = 0;
        for (let i = 0; i <= last; i += 1) {
          const to = i === last ? end : first + (i + 1) * wide - half;
          error += errorOf(first + i * wide, from, to);
          from = to;
        }
        if (error < least) {
          least = error;
          best = { first: base + first, step };
        }
      }
    }
    if (best.step === 0) {
      return best;
    }
    // The same levels with the largest step that reaches all that are used.
    let used = 0;
    const wide = 1 << (best.step - 1);
    for (let level = 1; level <= top; level += 1) {
      const from = best.first - base + level * wide - (wide >> 1);
      const to = level === top ? end : Math.min(end, from + wide);
      used |= from < end && numbersBelow[to] !== numbersBelow[from] ? level : 0;
    }
    return { first: best.first, step: best.step + 31 - Math.clz32(used & -used) };
  };
}

/** A magnitude of a class in units; both count from the lowest class searched. */
function unitsOf(at: number): number {
  const octave = at >> 4;
  return ((CLASSES + (at & (CLASSES - 1))) << 5) >> Math.min(31, SEARCHED / CLASSES - octave);
}
