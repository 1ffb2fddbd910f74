/** Where benchmarks of the WebGPU engine compute: `navigator.gpu`, or Dawn from the package `webgpu` in Node. */
import process from "node:process";
import { probeGpu } from "../../src/gpu/engine.ts";

/** Ends the process with a sentence where there is no adapter. */
export async function findAdapter(): Promise<{ readonly gpu: GPU; readonly identity: string }> {
  const gpu = globalThis.navigator?.gpu ?? (await openDawn());
  const found = await probeGpu(gpu);
  if (found === null) {
    const hint = "name a Vulkan driver in VK_ICD_FILENAMES, for example /usr/lib/chromium/vk_swiftshader_icd.json";
    process.stderr.write(`Cannot measure: there is no WebGPU adapter here; ${hint}\n`);
    process.exit(1);
  }
  return { gpu, identity: found.identity.trim() };
}

async function openDawn(): Promise<GPU> {
  const { create, globals } = await import("webgpu");
  // The object must stay reachable: its collection ends Dawn under the devices.
  const dawn = create([]);
  Object.assign(globalThis, globals, { gpuInUse: dawn });
  return dawn;
}
