/** Entry of a WASM engine's thread: a web worker in browsers and Deno, a worker thread in Node. `spawn.ts` starts it. */
import { serveThread, type ThreadStart } from "./thread.ts";

if (typeof self === "undefined") {
  const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads");
  void serveThread(workerData as ThreadStart, () => parentPort?.postMessage("ready"));
} else {
  self.addEventListener(
    "message",
    (event: MessageEvent<ThreadStart>) => {
      void serveThread(event.data, () => self.postMessage("ready")).finally(() => self.close());
    },
    { once: true },
  );
}
