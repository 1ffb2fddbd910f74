/**
 * Entry for Node: `node --experimental-import-text test/engines/node.ts engine=webgpu|wasm`. Prints a report. WebGPU is
 * Dawn, from the package `webgpu`; `VK_ICD_FILENAMES` chooses the Vulkan driver.
 */
import process from "node:process";
import { engineChoice, REPORT, reportEngine, reportWebGpu, type Report } from "./entry.ts";

const report = engineChoice(process.argv) === "webgpu" ? await onWebGpu() : await onWasm();
// Dawn keeps the process alive, so it has to be ended once the report is out.
process.stdout.write(REPORT.begin + JSON.stringify(report) + REPORT.end, () => process.exit(0));

async function onWebGpu(): Promise<Report> {
  const { create, globals } = await import("webgpu");
  // The object must stay reachable: its collection ends Dawn under the devices.
  const gpu = create([]);
  Object.assign(globalThis, globals, { gpuInUse: gpu });
  return await reportWebGpu(gpu);
}

async function onWasm(): Promise<Report> {
  const { createWasmEngine } = await import("../../src/wasm/engine.ts");
  return await reportEngine(await createWasmEngine({ threads: 2 }));
}
