/**
 * The relay's end of its merge workers: starts the threads (`merge-thread.ts`) and hands them their work. The base and the outer
 * state lie in shared memory, which all of them and the referee read in place; what is not used any more is used again, so that
 * there are two versions of everything and no garbage.
 */
import { Worker } from "node:worker_threads";
import { transfer, wrap, type Remote } from "comlink";
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { assert, messageIn } from "../base/assert.ts";
import {
  taken,
  WORKERS_MAX,
  type Crew,
  type Memory,
  type Piece,
  type RangeWorker,
  type Trouble,
} from "../update/crew.ts";
import type { MergeThread } from "./merge-thread.ts";

/** From so many parameters on another worker is worth its thread. */
const WORKER_PARAMETERS_MIN = 2 ** 18;

export interface CrewHandle extends Crew {
  /** Resolves with the reason when a thread is gone, other than by `close`: nothing can be merged any more. */
  readonly died: Promise<unknown>;
  close(): Promise<void>;
}

/** How many workers a model of P `parameters` gets where there are so many `cores`. */
export function workersFor(parameters: number, cores: number): number {
  return Math.max(1, Math.min(WORKERS_MAX, cores, Math.floor(parameters / WORKER_PARAMETERS_MIN)));
}

/** Starts `count` threads, 1 to WORKERS_MAX. Rejects when one cannot start. */
export async function startCrew(count: number): Promise<CrewHandle> {
  assert(count >= 1 && count <= WORKERS_MAX, `Cannot start merge workers: got ${count}, need 1 to ${WORKERS_MAX}`);
  const threads = Array.from(
    { length: count },
    () => new Worker(new URL("./merge-thread.ts", import.meta.url), { name: "merge" }),
  );
  const failure = new Failure();
  for (const thread of threads) {
    thread.once("error", (error) => failure.set(`A merge worker failed: ${messageIn(error)}`));
    thread.once("exit", (code) => failure.set(`A merge worker's thread ended with code ${code}`));
  }
  const close = async (): Promise<void> => {
    for (const thread of threads) {
      thread.removeAllListeners("exit");
    }
    await Promise.all(threads.map((thread) => thread.terminate()));
  };
  const remotes = threads.map((thread): Remote<MergeThread> => wrap(nodeEndpoint(thread)));
  const [first] = remotes as [Remote<MergeThread>];
  try {
    await Promise.all(remotes.map((remote) => failure.orResult(remote.ready())));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    workers: remotes.map((remote) => workerOf(remote, failure)),
    memory: sharedMemory(),
    seal: (bytes) => failure.orResult(first.seal(bytes)),
    died: failure.happened,
    close,
  };
}

/** A thread's calls, which reject once any thread is gone. What is passed on is transferred; a payload may be the store's own. */
function workerOf(remote: Remote<MergeThread>, failure: Failure): RangeWorker {
  return {
    begin: (task) => failure.orResult(remote.begin(task)),
    cut: (payload, cuts, place) => {
      const copy = new Uint8Array(payload);
      return failure.orResult<readonly (Piece | null)[] | Trouble>(
        remote.cut(transfer(copy, [copy.buffer]), cuts, place),
      );
    },
    load: (piece, place) => failure.orResult(remote.load(transfer(piece, [piece.bytes.buffer]), place)),
    merge: (group) => failure.orResult(remote.merge(group)),
    squares: (sum) => failure.orResult(remote.squares(sum)),
    advance: (task) => failure.orResult(remote.advance(task)),
    pack: (keep) => failure.orResult(remote.pack(keep)),
  };
}

/** The first failure of a thread. Calls wait in a set of their own: a promise for ever pending would keep all that raced with it. */
class Failure {
  readonly #first = Promise.withResolvers<unknown>();
  readonly happened = this.#first.promise;
  readonly #waiting = new Set<(error: unknown) => void>();
  #error: Error | null = null;

  set(sentence: string): void {
    this.#error ??= new Error(`${sentence}; nothing can be merged any more`);
    this.#first.resolve(this.#error);
    for (const reject of this.#waiting) {
      reject(this.#error);
    }
  }

  /** What `call` gives, or the failure if that is first. */
  async orResult<T>(call: Promise<T>): Promise<T> {
    const { promise, reject } = Promise.withResolvers<never>();
    if (this.#error !== null) {
      reject(this.#error);
    }
    this.#waiting.add(reject);
    try {
      return await Promise.race([call, promise]);
    } finally {
      this.#waiting.delete(reject);
    }
  }
}

function sharedMemory(): Memory {
  const free = new Map<number, ArrayBufferLike[]>();
  return {
    take: (bytes) => free.get(bytes)?.pop() ?? taken(bytes, () => new SharedArrayBuffer(bytes)),
    give: (buffer) => {
      free.set(buffer.byteLength, [...(free.get(buffer.byteLength) ?? []), buffer]);
    },
  };
}
