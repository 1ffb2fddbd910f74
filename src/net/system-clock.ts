/**
 * The machine's own clock and timers, for entry points: what pure code gets as its `Clock`. It never goes back: where the
 * machine's clock is set back it goes on from where it was, or every deadline would wait for as long as it was set back.
 */
import type { Clock } from "../base/clock.ts";

export function createSystemClock(wallMs: () => number = Date.now): Clock {
  let aheadMs = 0;
  let lastMs = 0;
  return {
    nowMs: () => {
      aheadMs = Math.max(aheadMs, lastMs - wallMs());
      lastMs = Math.max(lastMs, wallMs() + aheadMs);
      return lastMs;
    },
    after: (delayMs, wake) => {
      const timer = setTimeout(wake, delayMs);
      return () => clearTimeout(timer);
    },
  };
}

export const systemClock: Clock = createSystemClock();
