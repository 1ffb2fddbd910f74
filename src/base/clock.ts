/**
 * Time as an argument. Pure code never reads the machine's clock; it gets a `Clock`, which the entry points make from
 * `Date.now` and timers and the simulation from its event queue.
 */

export interface Clock {
  /** Milliseconds since the Unix epoch (or since the start of a simulation). */
  nowMs(): number;
  /** Calls `wake` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, wake: () => void): () => void;
}

/** Resolves after `delayMs` of `clock`'s time. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(delayMs, resolve);
  });
}
