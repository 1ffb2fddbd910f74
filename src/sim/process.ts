/**
 * A simulated process: it lives on one machine with one disk and can be killed at any wake-up. A killed process runs no
 * further line: its timers are silent, its calls to the disk never return, its links are cut. What it had asked the disk to
 * write may or may not be written, what the disk had confirmed is; the next process on the machine finds exactly that.
 */
import type { Clock } from "../base/clock.ts";
import { sleep } from "../base/clock.ts";
import type { Rng } from "../base/rng.ts";
import { createMemoryStore, type MemoryDisk } from "../store/memory.ts";
import type { Store } from "../store/store.ts";

export interface Process {
  readonly name: string;
  readonly alive: boolean;
  /** Silent once the process is killed. */
  readonly clock: Clock;
  readonly store: Store;
  /** Calls `cut` when the process is killed; the returned function forgets it. */
  onKill(cut: () => void): () => void;
  kill(): void;
}

export interface ProcessOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly disk: MemoryDisk;
  readonly rng: Rng;
  /** A write takes up to this long before it happens, and again before it is confirmed; 0 is immediate. */
  readonly writeMsMax: number;
  /** The process is killed at the write of this number, just before it happens or just after. */
  readonly dieAtWrite?: { readonly number: number; readonly done: boolean } | null;
}

export function createProcess(options: ProcessOptions): Process {
  const { name, clock, disk, rng, writeMsMax, dieAtWrite = null } = options;
  let alive = true;
  const cuts = new Set<() => void>();
  const own: Clock = {
    nowMs: () => clock.nowMs(),
    after: (delayMs, wake) =>
      clock.after(delayMs, () => {
        if (alive) {
          wake();
        }
      }),
  };
  const pause = async (): Promise<void> => {
    if (writeMsMax > 0) {
      await sleep(own, rng.below(writeMsMax + 1));
    }
  };
  let last: Promise<unknown> = Promise.resolve();
  let writes = 0;
  /** Returns while the process lives; the lines after this call are not run by a dead one. */
  const survive = (number: number, done: boolean): Promise<void> => {
    if (number === dieAtWrite?.number && done === dieAtWrite.done) {
      process.kill();
    }
    return alive ? Promise.resolve() : new Promise(() => {});
  };
  const store = slowStore(createMemoryStore({ disk }), (write) => {
    const number = (writes += 1);
    // One disk: writes happen in the order they were asked for.
    const written = last
      .then(pause)
      .then(() => survive(number, false))
      .then(write);
    last = written.catch(() => undefined);
    return written.then(async (result) => {
      await survive(number, true);
      await pause();
      return result;
    });
  });
  const process: Process = {
    name,
    get alive() {
      return alive;
    },
    clock: own,
    store,
    onKill: (cut) => {
      cuts.add(cut);
      return () => cuts.delete(cut);
    },
    kill: () => {
      if (!alive) {
        return;
      }
      alive = false;
      for (const cut of cuts) {
        cut();
      }
      cuts.clear();
    },
  };
  return process;
}

/** A store whose writes go through `write`; reads are immediate. */
function slowStore({ log, keys, blobs, close }: Store, write: <T>(call: () => Promise<T>) => Promise<T>): Store {
  return {
    log: { ...log, append: (after, entries) => write(() => log.append(after, entries)) },
    keys: {
      ...keys,
      set: (key, value) => write(() => keys.set(key, value)),
      compareAndSet: (key, expected, value) => write(() => keys.compareAndSet(key, expected, value)),
      delete: (key) => write(() => keys.delete(key)),
    },
    blobs: {
      ...blobs,
      put: (bytes, digest) => write(() => blobs.put(bytes, digest)),
      delete: (digest) => write(() => blobs.delete(digest)),
    },
    close,
  };
}
