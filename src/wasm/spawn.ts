/**
 * How the WASM engine starts its threads where nobody says otherwise: as module workers in browsers and Deno, as worker
 * threads in Node. The addresses are spelled out where they are used, because bundlers look for exactly that.
 */
import type { SpawnThread } from "./thread.ts";

/** With more threads than this, each has too little to do at the sizes that run in browsers. */
const THREADS_DEFAULT_MAX = 8;

/** Some libraries put Node's own Worker into its global scope, where the web's would be; it is no EventTarget. */
export const spawnThread: SpawnThread = (start) =>
  typeof Worker === "function" && Worker.prototype instanceof EventTarget ? spawnOnWeb(start) : spawnOnNode(start);

/**
 * One core of more than two is left to the person. A single thread where memory cannot be shared (pages that are not
 * cross-origin isolated), and on a page's main thread, which must not wait.
 */
export function defaultThreads(): number {
  if (typeof SharedArrayBuffer === "undefined" || typeof document !== "undefined") {
    return 1;
  }
  const cores = navigator.hardwareConcurrency;
  return Math.min(THREADS_DEFAULT_MAX, cores > 2 ? cores - 1 : cores);
}

const spawnOnWeb: SpawnThread = (start) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./thread-entry.ts", import.meta.url), { type: "module" });
    worker.addEventListener("message", () => resolve({ terminate: () => worker.terminate() }), { once: true });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      worker.terminate();
      reject(new Error(`Cannot start a thread: ${event.message}`));
    });
    worker.postMessage(start);
  });

/** A thread alone does not keep the process alive. */
const spawnOnNode: SpawnThread = (start) =>
  new Promise((resolve, reject) => {
    const threads = process.getBuiltinModule("node:worker_threads");
    const entry = new URL(/* @vite-ignore */ "./thread-entry.ts", import.meta.url);
    const worker = new threads.Worker(entry, { workerData: start });
    worker.once("message", () => {
      worker.unref();
      resolve({ terminate: () => void worker.terminate() });
    });
    worker.once("error", reject);
    worker.once("exit", () => reject(new Error("Cannot start a thread: it ended before it was ready")));
  });
