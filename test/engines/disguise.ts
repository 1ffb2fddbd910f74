/** Software adapters under the name of a real GPU, and devices that compile other texts than they are given. */
import { present } from "../../src/base/assert.ts";
import { probeGpu } from "../../src/gpu/engine.ts";

/** An adapter that the engine takes for a real GPU, so that it chooses kernels as it would there. */
export async function asRealGpu(gpu: GPU): Promise<GPUAdapter> {
  const { adapter } = present(await probeGpu(gpu), "adapter");
  Object.defineProperty(adapter, "isFallbackAdapter", { value: false });
  Object.defineProperty(adapter, "info", { value: { vendor: "some", architecture: "gpu" } });
  return adapter;
}

/** The text of every shader that `device` makes from now on, changed. */
export function changeShaders(device: GPUDevice, change: (code: string) => string): void {
  const create = device.createShaderModule.bind(device);
  const value = (descriptor: GPUShaderModuleDescriptor): GPUShaderModule =>
    create({ ...descriptor, code: change(descriptor.code) });
  Object.defineProperty(device, "createShaderModule", { value });
}
