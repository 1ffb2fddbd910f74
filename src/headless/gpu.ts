/** Where a headless contributor finds WebGPU: Deno has it built in, Node gets it from Dawn's npm package. */
import type * as Dawn from "webgpu";

/** Dawn's instance must stay referenced: once it is collected the process crashes. */
let instance: GPU | null = null;

/** The runtime's GPU object, or null when there is no WebGPU here. */
export async function headlessGpu(): Promise<GPU | null> {
  if (typeof navigator !== "undefined" && "gpu" in navigator) {
    return navigator.gpu;
  }
  if (instance === null) {
    const dawn: typeof Dawn | null = await import("webgpu").catch(() => null);
    if (dawn === null) {
      return null;
    }
    Object.assign(globalThis, dawn.globals);
    instance = dawn.create([]);
  }
  return instance;
}
