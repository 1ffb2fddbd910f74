/**
 * Entry of a WASM engine's thread: a web worker in browsers and Deno, a worker thread in Node. `spawn.ts` starts it. A failure
 * reaches the parent as the worker's error: in Node a rejection does by itself, on the web it has to be reported.
 */
import { serveThread, type ThreadStart } from "./thread.ts";

if (typeof self === "undefined") {
  const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads");
  void serveThread(workerData as ThreadStart, () => parentPort?.postMessage("ready"));
} else {
  self.addEventListener(
    "message",
    (event: MessageEvent<ThreadStart>) => {
      serveThread(event.data, () => self.postMessage("ready")).then(
        () => self.close(),
        (error: unknown) => reportError(error), // whoever hears of it ends this worker: closed here, nobody might
      );
    },
    { once: true },
  );
}
