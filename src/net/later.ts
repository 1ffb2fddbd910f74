/**
 * "Later": a relay that is asked for more than it gives, or has no room, answers with status 429 or 503 and says after how many
 * seconds to ask again.
 */

/** Where a relay says nothing. */
const WAIT_MS = 1_000;

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export interface PatientOptions {
  readonly fetch?: typeof globalThis.fetch | undefined;
  /** Answers in a row that say "later" before the last of them is handed on. */
  readonly triesMax?: number;
  /** The longest wait before another try, whatever the relay says. */
  readonly waitMsMax?: number;
  /** Waits before another try; tests pass their own. */
  readonly wait?: (ms: number) => Promise<void>;
}

export function saysLater({ status }: Response): boolean {
  return status === 429 || status === 503;
}

/** How long to wait after an answer that says "later", in ms; 0 where it does not say. */
export function laterMs({ headers }: Response): number {
  return Math.max(0, 1_000 * (Number(headers.get("retry-after")) || 0));
}

/** A fetch that waits as long as it is told to, and no longer than `waitMsMax`, and asks again. */
export function createPatientFetch({
  fetch = (input, init) => globalThis.fetch(input, init),
  triesMax = 4,
  waitMsMax = 5_000,
  wait = pause,
}: PatientOptions = {}): typeof globalThis.fetch {
  return async (input, init) => {
    for (let tries = 1; ; tries += 1) {
      const response = await fetch(input, init);
      if (!saysLater(response) || tries >= triesMax) {
        return response;
      }
      await response.body?.cancel();
      await wait(Math.min(waitMsMax, laterMs(response) || WAIT_MS));
    }
  };
}
