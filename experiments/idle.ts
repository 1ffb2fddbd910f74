/**
 * Knows exactly when a simulated moment is over: when nothing real is under way (the engine, the disk) and no promise is left
 * to run. `setImmediate` calls back once the queue of promises is empty, and whoever waits for something real has said so
 * here; everything else in a simulation waits for the virtual clock.
 */

export interface Idle {
  /** Real work that must end before virtual time goes on. */
  track<T>(work: Promise<T>): Promise<T>;
  /** Resolves when nothing tracked is under way and no promise is left to run. */
  settle(): Promise<void>;
}

export function createIdle(): Idle {
  let underway = 0;
  let waiters: (() => void)[] = [];
  const ended = (): void => {
    underway -= 1;
    if (underway === 0) {
      const woken = waiters;
      waiters = [];
      woken.forEach((wake) => wake());
    }
  };
  return {
    track: (work) => {
      underway += 1;
      return work.finally(ended);
    },
    settle: async () => {
      for (;;) {
        await new Promise((resolve) => setImmediate(resolve));
        if (underway === 0) {
          return;
        }
        await new Promise<void>((resolve) => waiters.push(resolve));
      }
    },
  };
}
