/** Starts threads of the WASM engine as module workers, in browsers and in Deno. */
import type { SpawnThread } from "./thread.ts";

export const spawn: SpawnThread = (start) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL("../../worker/wasm-thread.ts", import.meta.url), { type: "module" });
    worker.addEventListener("message", () => resolve({ terminate: () => worker.terminate() }), { once: true });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      reject(new Error(`Cannot start a thread: ${event.message}`));
    });
    worker.postMessage(start);
  });
