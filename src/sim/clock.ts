/**
 * Virtual time: a queue of wake-ups, served in order of time and then of request, so that one seed is one history. Between
 * two wake-ups everything that awaits is allowed to finish (`settle`), which stands for the machine being fast.
 */
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";

/** Lets pending promises run; the caller gives the way of its platform, by default a number of microtasks. */
export type Settle = () => Promise<void>;

const MICROTASKS = 100;

interface Wake {
  readonly timeMs: number;
  readonly order: number;
  readonly wake: () => void;
  cancelled: boolean;
}

export interface VirtualClock extends Clock {
  /** Serves wake-ups until `untilMs`, until none is left, or until `done()`; returns how many were served. */
  run(untilMs: number, done: () => boolean, settle?: Settle): Promise<number>;
}

export function createVirtualClock(): VirtualClock {
  const heap: Wake[] = [];
  let now = 0;
  let orders = 0;
  return {
    nowMs: () => now,
    after: (delayMs, wake) => {
      assert(delayMs >= 0, `Cannot wake in ${delayMs} ms: need at least 0`);
      const entry: Wake = { timeMs: now + delayMs, order: (orders += 1), wake, cancelled: false };
      push(heap, entry);
      return () => {
        entry.cancelled = true;
      };
    },
    run: async (untilMs, done, settle = settleMicrotasks) => {
      let served = 0;
      await settle();
      for (let next = heap[0]; next !== undefined && next.timeMs <= untilMs && !done(); next = heap[0]) {
        pop(heap);
        if (next.cancelled) {
          continue;
        }
        now = next.timeMs;
        next.wake();
        served += 1;
        await settle();
      }
      return served;
    },
  };
}

async function settleMicrotasks(): Promise<void> {
  for (let i = 0; i < MICROTASKS; i += 1) {
    await Promise.resolve();
  }
}

function before(a: Wake, b: Wake): boolean {
  return a.timeMs < b.timeMs || (a.timeMs === b.timeMs && a.order < b.order);
}

function push(heap: Wake[], entry: Wake): void {
  let i = heap.length;
  heap.push(entry);
  while (i > 0) {
    const parent = (i - 1) >> 1;
    const above = heap[parent] as Wake;
    if (!before(entry, above)) {
      break;
    }
    heap[i] = above;
    i = parent;
  }
  heap[i] = entry;
}

function pop(heap: Wake[]): void {
  const last = heap.pop() as Wake;
  if (heap.length === 0) {
    return;
  }
  let i = 0;
  for (;;) {
    let child = 2 * i + 1;
    if (child >= heap.length) {
      break;
    }
    if (child + 1 < heap.length && before(heap[child + 1] as Wake, heap[child] as Wake)) {
      child += 1;
    }
    const below = heap[child] as Wake;
    if (!before(below, last)) {
      break;
    }
    heap[i] = below;
    i = child;
  }
  heap[i] = last;
}
