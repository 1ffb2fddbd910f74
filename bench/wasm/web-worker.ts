/** As much of the web's Worker as jax-js needs to use threads in Node: a module from a blob, messages, errors. */
import { resolveObjectURL } from "node:buffer";
import { Worker as Thread } from "node:worker_threads";
import { present } from "../../src/base/assert.ts";

const PRELUDE = `
  const { parentPort } = require("node:worker_threads");
  globalThis.self = globalThis;
  globalThis.postMessage = (message) => parentPort.postMessage(message);
  parentPort.on("message", (data) => self.onmessage({ data }));
`;

class BlobWorker {
  onmessage: ((event: { readonly data: unknown }) => void) | null = null;
  onerror: ((error: Error) => void) | null = null;
  readonly #thread: Promise<Thread>;

  constructor(url: string) {
    this.#thread = this.#start(present(resolveObjectURL(url), "a blob"));
  }

  async #start(blob: { text(): Promise<string> }): Promise<Thread> {
    const thread = new Thread(PRELUDE + (await blob.text()), { eval: true });
    thread.on("message", (data) => this.onmessage?.({ data }));
    thread.on("error", (error) => this.onerror?.(error as Error));
    return thread;
  }

  postMessage(message: unknown): void {
    void this.#thread.then((thread) => thread.postMessage(message));
  }
}

/** Gives this process a global Worker, and says that it has so many processors. */
export function provideWorkers(threads: number): void {
  Object.defineProperty(globalThis, "Worker", { value: BlobWorker, configurable: true });
  Object.defineProperty(navigator, "hardwareConcurrency", { value: threads });
}

/** Runs `task` without the global Worker, by which our engine would take this process for a browser. */
export async function withoutWorkers<Result>(task: () => Promise<Result>): Promise<Result> {
  const provided = Object.getOwnPropertyDescriptor(globalThis, "Worker");
  Reflect.deleteProperty(globalThis, "Worker");
  try {
    return await task();
  } finally {
    if (provided !== undefined) {
      Object.defineProperty(globalThis, "Worker", provided);
    }
  }
}
