/** The machine's own clock and timers, for entry points: what pure code gets as its `Clock`. */
import type { Clock } from "../base/clock.ts";

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  after: (delayMs, wake) => {
    const timer = setTimeout(wake, delayMs);
    return () => clearTimeout(timer);
  },
};
