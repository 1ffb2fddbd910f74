/**
 * How often a Plan has to run within one submit for that to tell how fast it is: a kernel may take 10 µs, and the host hears of a
 * submit's end 0.5 to 100 ms late. That fence is in every submit once, so the difference between one run and many is without it, or
 * hidden by it where fences come on a tick.
 */

export interface Repeats {
  readonly repeats: number;
  /** What a submit takes beside its runs. */
  readonly fenceMs: number;
}

export interface RepeatsOptions {
  /** What a submit should work at least. */
  readonly workMs: number;
  readonly repeatsMax: number;
  /** Whether there is time to look further; always by default. */
  readonly hasTime?: () => boolean;
}

/** Each try has so many times the repeats of the last. */
const GROWTH_MAX = 8;
const GROWTH_MIN = 2;
/** What a submit of several runs works at most: nobody can use the screen meanwhile. */
const SUBMIT_MS_MAX = 200;

/** `msOf` times a submit of so many runs; what has none is a fence. */
export async function enoughRepeats(
  msOf: (repeats: number) => Promise<number>,
  { workMs, repeatsMax, hasTime = () => true }: RepeatsOptions,
): Promise<Repeats> {
  const nothingMs = await msOf(0);
  const onceMs = await msOf(1);
  // A stall is in one of the two.
  const fenceMs = Math.min(nothingMs, onceMs);
  let [repeats, ms] = [1, onceMs];
  const workedMs = (): number => Math.max(0, ms - fenceMs);
  while (workedMs() < workMs && hasTime()) {
    const growth = Math.min(GROWTH_MAX, Math.max(GROWTH_MIN, Math.ceil(workMs / Math.max(1e-3, workedMs()))));
    const next = Math.min(repeatsMax, repeatsWithin(repeats, ms), repeats * growth);
    if (next <= repeats) {
      break;
    }
    repeats = next;
    ms = await msOf(repeats);
  }
  const enough = Math.max(1, Math.ceil((workMs * repeats) / Math.max(1e-6, workedMs())));
  return { repeats: Math.min(repeats, enough), fenceMs };
}

/**
 * How many runs a submit may have after one of `repeats` took `ms`, fence included: where fences come on a tick, all of it may be work that
 * the tick hides. It is rounded, so that a fence of 100 ms and a little, which tells nothing of a single run, lets them double.
 */
export function repeatsWithin(repeats: number, ms: number): number {
  return Math.round((SUBMIT_MS_MAX * repeats) / ms);
}
