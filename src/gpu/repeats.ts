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

/** No fence takes so long: what does is work, and enough of it. */
const FENCE_MS_MAX = 200;
/** Each try has so many times the repeats of the last at most, and where a single one may be long already twice as many. */
const GROWTH_MAX = 8;
const GROWTH_MIN = 2;

/** `msOf` times a submit of so many runs. */
export async function enoughRepeats(
  msOf: (repeats: number) => Promise<number>,
  { workMs, repeatsMax, hasTime = () => true }: RepeatsOptions,
): Promise<Repeats> {
  const onceMs = await msOf(1);
  let [repeats, eachMs] = [1, onceMs < FENCE_MS_MAX ? 0 : onceMs];
  while (repeats * eachMs < workMs && repeats < repeatsMax && hasTime()) {
    const likely =
      repeats === 1 && onceMs >= workMs ? GROWTH_MIN : Math.ceil(workMs / Math.max(1e-3, repeats * eachMs));
    repeats = Math.min(repeatsMax, repeats * Math.min(GROWTH_MAX, Math.max(GROWTH_MIN, likely)));
    eachMs = Math.max(0, (await msOf(repeats)) - onceMs) / (repeats - 1);
  }
  const enough = Math.max(1, Math.ceil(workMs / Math.max(1e-6, eachMs)));
  return { repeats: Math.min(repeats, enough), fenceMs: Math.max(0, onceMs - eachMs) };
}
