/**
 * A stop signal: whoever works looks at it between steps, whoever sleeps is woken by it. It is `AbortController` where
 * there is none: pure code knows no web APIs.
 */

export interface StopSignal {
  /** What is worked on is not wanted any more. */
  readonly aborted: boolean;
  /** Its time is over: what was made until now is wanted. */
  readonly ended: boolean;
  /** Calls `wake` once when one of the two is; the returned function takes that back. */
  onAbort(wake: () => void): () => void;
}

export interface Stop extends StopSignal {
  abort(): void;
  end(): void;
}

export function createStop(): Stop {
  const wakes = new Set<() => void>();
  let [aborted, ended] = [false, false];
  const wakeAll = (): void => {
    const woken = [...wakes];
    wakes.clear();
    woken.forEach((wake) => wake());
  };
  return {
    get aborted() {
      return aborted;
    },
    get ended() {
      return ended;
    },
    onAbort: (wake) => {
      wakes.add(wake);
      return () => void wakes.delete(wake);
    },
    abort: () => {
      aborted = true;
      wakeAll();
    },
    end: () => {
      ended = true;
      wakeAll();
    },
  };
}
