/**
 * Entry of a launch in Node: `node bench/contest/node.ts ORDER` prints the launch. WebGPU is Dawn, on the Vulkan driver that
 * VK_ICD_FILENAMES names.
 */
import process from "node:process";
import { hold, type Order } from "./contest.ts";
import { MARKS } from "./marks.ts";
import { provideWorkers } from "./web-worker.ts";

process.once("disconnect", () => process.exit(1));
// The peers' bundles are made for browsers: tfjs and onnxruntime-web ask for these before they take their path for them.
Object.defineProperty(globalThis, "WorkerGlobalScope", { value: Object });
Object.defineProperty(globalThis, "self", { value: globalThis });
const order = JSON.parse(process.argv[2] ?? "") as Order;
if (order.backend.type === "webgpu") {
  const { create, globals } = await import("webgpu");
  // The object must stay reachable: its collection ends Dawn under the devices.
  const gpu = create([]);
  Object.assign(globalThis, globals, { gpuInUse: gpu });
  Object.defineProperty(globalThis.navigator, "gpu", { value: gpu });
} else {
  // Before the peers: jax-js shares its memory, also with a single thread, where there is a Worker, and must not change its mind.
  provideWorkers();
}
const launch = await hold(order, { maySleep: true });
// Dawn keeps the process alive, so it has to be ended once the launch is out.
process.stdout.write(MARKS.begin + JSON.stringify(launch) + MARKS.end, () => process.exit(0));
