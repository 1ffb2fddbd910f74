/** Starts threads of the WASM engine in Node. A thread alone does not keep the process alive. */
import { Worker } from "node:worker_threads";
import type { SpawnThread } from "./thread.ts";

export const spawn: SpawnThread = (start) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./thread-node.ts", import.meta.url), { workerData: start });
    worker.once("message", () => {
      worker.unref();
      resolve({ terminate: () => void worker.terminate() });
    });
    worker.once("error", reject);
    worker.once("exit", () => reject(new Error("Cannot start a thread: it ended before it was ready")));
  });
