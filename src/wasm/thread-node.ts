/** Entry of a WASM engine's thread in Node (worker_threads); `spawn-node.ts` starts it. */
import { parentPort, workerData } from "node:worker_threads";
import { serveThread, type ThreadStart } from "./thread.ts";

await serveThread(workerData as ThreadStart, () => parentPort?.postMessage("ready"));
