/**
 * Time as an argument. Pure code never reads the machine's clock; it gets a `Clock`, which the entry points make from
 * `Date.now` and timers and the simulation from its event queue.
 */
import type { StopSignal } from "./stop.ts";

export interface Clock {
  /** Milliseconds since the Unix epoch (or since the start of a simulation). */
  nowMs(): number;
  /** Calls `wake` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, wake: () => void): () => void;
}

/** Resolves after `delayMs` of `clock`'s time, or when `signal` is aborted meanwhile. */
export function sleep(clock: Clock, delayMs: number, signal?: StopSignal): Promise<void> {
  return new Promise((resolve) => {
    const cancel = clock.after(delayMs, () => {
      forget?.();
      resolve();
    });
    const forget = signal?.onAbort(() => {
      cancel();
      resolve();
    });
  });
}
