/**
 * Listens to everything that is asked of WebGPU, whoever asks: keeps the devices that are opened, counts calls, and puts the
 * host to sleep where it would only wait. It replaces methods of the prototypes, so that peers are measured as they are.
 */
import { assert } from "../../src/base/assert.ts";

export interface Watch {
  lastDevice(): GPUDevice;
  /** Resolves when `device` has done what was submitted to it: a copy of four bytes, mapped. */
  sync(device: GPUDevice): Promise<void>;
  /**
   * The next wait for a device first sleeps this long. In Node a pending map keeps one core busy asking, which a software
   * adapter would have computed on.
   */
  sleepBeforeWait(ms: number): void;
}

type Method = (this: unknown, ...args: never[]) => unknown;

/** `GPU…` prototypes must be in the global scope. */
export function watchWebGpu({ maySleep }: { readonly maySleep: boolean }): Watch {
  const devices: GPUDevice[] = [];
  let sleepMs = 0;
  const rest = (): void => {
    if (maySleep && sleepMs > 1) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, sleepMs);
    }
    sleepMs = 0;
  };
  before(GPUBuffer.prototype, "mapAsync", rest);
  before(GPUQueue.prototype, "onSubmittedWorkDone", rest);
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function requestDevice(this: GPUAdapter, descriptor) {
    const device = await request.call(this, descriptor);
    devices.push(device);
    return device;
  };
  const fences = new Map<GPUDevice, { readonly from: GPUBuffer; readonly to: GPUBuffer }>();
  return {
    lastDevice: () => {
      const device = devices.at(-1);
      assert(device !== undefined, "Cannot watch: no device was opened");
      return device;
    },
    sync: async (device) => {
      const fence = fences.get(device) ?? {
        from: device.createBuffer({ size: 4, usage: GPUBufferUsage.COPY_SRC }),
        to: device.createBuffer({ size: 4, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ }),
      };
      fences.set(device, fence);
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(fence.from, 0, fence.to, 0, 4);
      device.queue.submit([encoder.finish()]);
      await fence.to.mapAsync(GPUMapMode.READ);
      fence.to.unmap();
    },
    sleepBeforeWait: (ms) => {
      sleepMs = ms;
    },
  };
}

/** Calls `first` before every call of `prototype[name]`. */
function before(prototype: object, name: string, first: () => void): void {
  const methods = prototype as Record<string, Method>;
  const original = methods[name] as Method;
  methods[name] = function watched(this: unknown, ...args: never[]): unknown {
    first();
    return original.apply(this, args);
  };
}
