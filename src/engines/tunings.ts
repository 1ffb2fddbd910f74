/**
 * Where the tuner's choices are kept between starts: in the contributor's own store, by adapter, so that the second start on a
 * GPU does not search again. What is read back is nobody's word: it has a limit, and the engine takes it only if it names
 * this adapter and kernels that exist (`gpu/tried.ts`).
 */
import { digestOf } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { isBarred, mergeTried, TRIED_CHARS_MAX, type Circumstances } from "../gpu/tried.ts";
import type { Keys } from "../store/store.ts";

export interface Tunings {
  /** What was kept for this adapter; undefined when nothing was, or it cannot be read. */
  read(adapter: string): Promise<string | undefined>;
  write(adapter: string, text: string): Promise<void>;
}

export function openTunings(keys: Keys): Tunings {
  const keyOf = (adapter: string): string => `tuning/${digestOf(new TextEncoder().encode(adapter))}`;
  return {
    read: async (adapter) => {
      // A cache that cannot be read is as good as none: the search is made again.
      const bytes = await keys.get(keyOf(adapter)).catch(() => undefined);
      return bytes === undefined || bytes.length > TRIED_CHARS_MAX ? undefined : new TextDecoder().decode(bytes);
    },
    // One that cannot be written costs the next start its search, and no more.
    write: (adapter, text) => keys.set(keyOf(adapter), new TextEncoder().encode(text)).catch(() => undefined),
  };
}

/** So long a new engine waits for what was kept. */
const READ_MS_MAX = 2_000;

/** What a new engine begins with: what was tried; or the guess, and no search, where kernels that one found were wrong, or may have been. */
export async function readTuned(
  tunings: Tunings | undefined,
  here: Circumstances,
  clock: Clock,
): Promise<{ readonly tuned: string | undefined; readonly barred: boolean }> {
  const kept = tunings && (await inTime(tunings.read(here.adapter), null, READ_MS_MAX, clock));
  // A store that is slow today may hold the bar.
  const barred = kept === null || (kept !== undefined && isBarred(kept, here));
  return { tuned: barred ? undefined : kept, barred };
}

/** Keeps the texts of one engine, each beside what other engines on the adapter kept meanwhile; where none did, it alone is left. */
export function keepBeside(tunings: Tunings, here: Circumstances): (text: string) => Promise<void> {
  let last: string | undefined;
  return async (text) => {
    const now = await tunings.read(here.adapter);
    await tunings.write(here.adapter, now === undefined || now === last ? text : mergeTried(text, now, here));
    last = text;
  };
}

/** What `work` gives, or `late` where that takes longer: a store that never answers holds nobody up. */
export function inTime<T, Late>(work: Promise<T>, late: Late, msMax: number, clock: Clock): Promise<T | Late> {
  let cancel = (): void => undefined;
  const over = new Promise<Late>((resolve) => {
    cancel = clock.after(msMax, () => resolve(late));
  });
  return Promise.race([work, over]).finally(() => cancel());
}
