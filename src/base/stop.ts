/**
 * A stop signal: whoever works looks at it between steps, whoever sleeps is woken by it. It is `AbortController` where
 * there is none: pure code knows no web APIs.
 */

export interface StopSignal {
  readonly aborted: boolean;
  /** Calls `wake` once when the signal is aborted; the returned function takes that back. */
  onAbort(wake: () => void): () => void;
}

export interface Stop extends StopSignal {
  abort(): void;
}

export function createStop(): Stop {
  const wakes = new Set<() => void>();
  let aborted = false;
  return {
    get aborted() {
      return aborted;
    },
    onAbort: (wake) => {
      wakes.add(wake);
      return () => void wakes.delete(wake);
    },
    abort: () => {
      aborted = true;
      const woken = [...wakes];
      wakes.clear();
      woken.forEach((wake) => wake());
    },
  };
}
