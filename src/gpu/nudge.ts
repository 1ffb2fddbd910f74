/**
 * Firefox looks every 100 ms whether its GPU has finished something (`POLL_TIME_MS` in dom/webgpu/ipc/WebGPUParent.cpp, bug
 * 1870699), and whenever something is submitted. So nothing is submitted, again and again, for as long as somebody waits: a fence
 * then takes a few milliseconds. That this works, and how often is good, was found out by jax-js (`firefoxPoll.ts`).
 */

export interface NudgeOptions {
  /** Submits nothing. */
  readonly nudge: () => void;
  readonly nowMs: () => number;
  /** Resolves in the event loop's next turn, and not in a timer's. */
  readonly turn: () => Promise<void>;
  readonly sleep: (ms: number) => Promise<void>;
}

/**
 * So long is slept between nudges at first; then what is waited for is long, and hears of its end a little later. Turning the event
 * loop instead would keep a core busy for as long as there is work, since a wait follows the other.
 */
const SLEEP_MS = 2;
const SOON_MS = 20;
const LATER_SLEEP_MS = 5;
/** What takes longer may as well wait for the browser's own timer, or never ends. */
const LONG_MS = 1_000;

/** The function that it returns is told of everything that the host begins to wait for. */
export function createNudger({ nudge, nowMs, turn, sleep }: NudgeOptions): (wait: Promise<unknown>) => void {
  const waits = new Set<Promise<unknown>>();
  let sinceMs = 0;
  let runs = false;
  const run = async (): Promise<void> => {
    try {
      await turn(); // what is over by then needs no nudge
      while (waits.size > 0 && nowMs() - sinceMs < LONG_MS) {
        nudge();
        await sleep(nowMs() - sinceMs < SOON_MS ? SLEEP_MS : LATER_SLEEP_MS);
        await turn(); // browsers stretch a timer to 4 ms that a timer set
      }
    } catch {
      // A device that takes nothing any more says so to whoever waits; the next wait tries again.
    } finally {
      runs = false;
    }
  };
  return (wait) => {
    waits.add(wait);
    sinceMs = nowMs();
    const end = (): void => void waits.delete(wait);
    wait.then(end, end);
    if (!runs) {
      runs = true;
      void run();
    }
  };
}

/** What nudges `device` in Firefox, and nothing elsewhere. */
export function nudgerFor(device: GPUDevice): (wait: Promise<unknown>) => void {
  if (!/Firefox/.test(globalThis.navigator?.userAgent ?? "")) {
    return () => undefined;
  }
  const { port1, port2 } = new MessageChannel();
  let wake: () => void = () => undefined;
  port1.addEventListener("message", () => wake());
  port1.start();
  return createNudger({
    nudge: () => device.queue.submit([]),
    nowMs: () => performance.now(),
    turn: () =>
      new Promise((resolve) => {
        wake = resolve;
        port2.postMessage(null);
      }),
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  });
}
