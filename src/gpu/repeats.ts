/**
 * How often a Plan has to run within one submit for that to tell how fast it is: a kernel may take 10 µs, and the host hears of a
 * submit's end 0.5 to 100 ms late. That fence is in every submit once, so the difference between one run and many is without it.
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

/** Each try has so many times the repeats of the last at most; twice as many after the first where the fence may hide work that is long. */
const GROWTH_MAX = 8;
const GROWTH_MIN = 2;

/** `msOf` times a submit of so many runs; what has none is a fence. */
export async function enoughRepeats(
  msOf: (repeats: number) => Promise<number>,
  { workMs, repeatsMax, hasTime = () => true }: RepeatsOptions,
): Promise<Repeats> {
  const nothingMs = await msOf(0);
  const onceMs = await msOf(1);
  // A stall is in one of the two.
  const fenceMs = Math.min(nothingMs, onceMs);
  let [repeats, workedMs] = [1, onceMs - fenceMs];
  while (workedMs < workMs && repeats < repeatsMax && hasTime()) {
    const likely = repeats === 1 && fenceMs >= workMs ? GROWTH_MIN : Math.ceil(workMs / Math.max(1e-3, workedMs));
    repeats = Math.min(repeatsMax, repeats * Math.min(GROWTH_MAX, Math.max(GROWTH_MIN, likely)));
    workedMs = Math.max(0, (await msOf(repeats)) - fenceMs);
  }
  const enough = Math.max(1, Math.ceil((workMs * repeats) / Math.max(1e-6, workedMs)));
  return { repeats: Math.min(repeats, enough), fenceMs };
}
