/**
 * What a spawned thread does, the same in every runtime: load the module over the shared memory, say that it is ready, and
 * then stay inside WebAssembly, asleep between runs, until the engine is disposed of. `thread-entry.ts` is its entry.
 */

/** What a thread is told when it starts; it passes through `postMessage`. */
export interface ThreadStart {
  readonly bytes: BufferSource;
  readonly memory: WebAssembly.Memory;
  /** Address of the control block. */
  readonly control: number;
  readonly threadIndex: number;
  readonly threadCount: number;
}

/** Starts a thread; resolves once it is ready, rejects when it cannot start. */
export type SpawnThread = (start: ThreadStart) => Promise<{ terminate(): void }>;

/** Returns when the engine lets the thread go. `ready` is called when runs may begin. */
export async function serveThread(start: ThreadStart, ready: () => void): Promise<void> {
  const { instance } = await WebAssembly.instantiate(start.bytes, { env: { memory: start.memory } });
  ready();
  (instance.exports["serve"] as (...args: number[]) => void)(start.control, start.threadIndex, start.threadCount);
}
