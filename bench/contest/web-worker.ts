/**
 * As much of the web's Worker as jax-js needs to use threads in Node: a script from a blob, messages, errors. Everything else
 * gets Node's own under this name, which is what onnxruntime-web expects.
 */
import { resolveObjectURL } from "node:buffer";
import { Worker as Thread, type WorkerOptions } from "node:worker_threads";

/** Messages wait for the blob's text: nothing listens before. */
const PRELUDE = `
  const { parentPort, workerData } = require("node:worker_threads");
  globalThis.self = globalThis;
  globalThis.postMessage = (message) => parentPort.postMessage(message);
  workerData.text().then((text) => {
    (0, eval)(text);
    parentPort.on("message", (data) => self.onmessage({ data }));
  });
`;

class WebWorker extends Thread {
  onmessage?: (event: { readonly data: unknown }) => void;
  onerror?: (error: Error) => void;

  constructor(script: string | URL, options?: WorkerOptions) {
    const blob = resolveObjectURL(String(script));
    super(blob === undefined ? script : PRELUDE, blob === undefined ? options : { eval: true, workerData: blob });
    if (blob !== undefined) {
      this.on("message", (data) => this.onmessage?.({ data }));
      this.on("error", (error) => this.onerror?.(error as Error));
    }
  }
}

/** Gives this process a global Worker. It stays: onnxruntime-web puts Node's in its place, which takes no blobs. */
export function provideWorkers(): void {
  Object.defineProperty(globalThis, "Worker", { get: () => WebWorker, set: () => {} });
}
