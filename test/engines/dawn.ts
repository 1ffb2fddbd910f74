/**
 * Opens Dawn in Node, from the package `webgpu`, and slows its polling: Dawn asks on every turn of the event loop whether
 * the GPU is done. On a software adapter that takes a whole core from the driver, which compiles and computes with it.
 */
import { create, globals } from "webgpu";

/** A `GPU` made with Dawn's `flags` ("backend=null"); WebGPU's constants become global. `VK_ICD_FILENAMES` names the driver. */
export function openDawn(flags: readonly string[] = []): GPU {
  const gpu = create([...flags]);
  // The object must stay reachable: its collection ends Dawn under the devices.
  Object.assign(globalThis, globals, { gpuInUse: gpu, setImmediate: (poll: () => void) => setTimeout(poll, 1) });
  return gpu;
}
