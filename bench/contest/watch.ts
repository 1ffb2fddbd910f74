/**
 * Listens to everything that is asked of WebGPU, whoever asks: keeps the devices that are opened, counts calls, and puts the
 * host to sleep where it would only wait. It replaces methods of the prototypes, so that peers are measured as they are.
 */
import { assert } from "../../src/base/assert.ts";

/** What was asked of WebGPU, by the names of the calls, and the most bytes of buffers that one device held. */
export interface Counts {
  readonly dispatches: number;
  readonly passes: number;
  readonly submits: number;
  readonly writes: number;
  readonly maps: number;
  readonly buffers: number;
  readonly bindGroups: number;
  readonly shaders: number;
  readonly peakBytes: number;
}

type Counted = Exclude<keyof Counts, "peakBytes">;

export interface Watch {
  /** What is asked for while `work` runs. */
  count(work: () => Promise<unknown>): Promise<Counts>;
  lastDevice(): GPUDevice;
  /** Resolves when `device` has done what was submitted to it: a copy of four bytes, mapped. */
  sync(device: GPUDevice): Promise<void>;
  /**
   * The next wait for a device first sleeps this long. In Node a pending map keeps one core busy asking, which a software
   * adapter would have computed on.
   */
  sleepBeforeWait(ms: number): void;
}

const CALLS: Readonly<Record<Counted, readonly (readonly [type: string, method: string])[]>> = {
  dispatches: [
    ["GPUComputePassEncoder", "dispatchWorkgroups"],
    ["GPUComputePassEncoder", "dispatchWorkgroupsIndirect"],
  ],
  passes: [["GPUCommandEncoder", "beginComputePass"]],
  submits: [["GPUQueue", "submit"]],
  writes: [["GPUQueue", "writeBuffer"]],
  maps: [["GPUBuffer", "mapAsync"]],
  buffers: [["GPUDevice", "createBuffer"]],
  bindGroups: [["GPUDevice", "createBindGroup"]],
  shaders: [["GPUDevice", "createShaderModule"]],
};

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
  const counts = countCalls();
  const bytes = followBytes();
  before(GPUBuffer.prototype, "mapAsync", rest);
  before(GPUQueue.prototype, "onSubmittedWorkDone", rest);
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function requestDevice(this: GPUAdapter, descriptor) {
    const device = await request.call(this, descriptor);
    devices.push(device);
    bytes.opened(device);
    return device;
  };
  const fences = new Map<GPUDevice, { readonly from: GPUBuffer; readonly to: GPUBuffer }>();
  return {
    count: async (work) => {
      const before = { ...counts };
      bytes.restart();
      await work();
      const names = Object.keys(CALLS) as Counted[];
      const made = Object.fromEntries(names.map((name) => [name, counts[name] - before[name]]));
      return { ...(made as Record<Counted, number>), peakBytes: bytes.peak() };
    },
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

function countCalls(): Record<Counted, number> {
  const names = Object.keys(CALLS) as Counted[];
  const counts = Object.fromEntries(names.map((name) => [name, 0])) as Record<Counted, number>;
  for (const name of names) {
    for (const [type, method] of CALLS[name]) {
      const { prototype } = (globalThis as unknown as Record<string, { readonly prototype: object }>)[type] ?? {
        prototype: {},
      };
      before(prototype, method, () => (counts[name] += 1));
    }
  }
  return counts;
}

interface Bytes {
  opened(device: GPUDevice): void;
  restart(): void;
  /** The most bytes that a device held which something was submitted to since the restart. */
  peak(): number;
}

function followBytes(): Bytes {
  const held = new Map<GPUDevice, number>();
  const owners = new WeakMap<GPUBuffer, GPUDevice>();
  const queues = new WeakMap<GPUQueue, GPUDevice>();
  const used = new Set<GPUDevice>();
  let peaks = new Map<GPUDevice, number>();
  const change = (device: GPUDevice, bytes: number): void => {
    const now = (held.get(device) ?? 0) + bytes;
    held.set(device, now);
    peaks.set(device, Math.max(peaks.get(device) ?? 0, now));
  };
  const create = GPUDevice.prototype.createBuffer;
  GPUDevice.prototype.createBuffer = function createBuffer(this: GPUDevice, descriptor) {
    const buffer = create.call(this, descriptor);
    owners.set(buffer, this);
    change(this, buffer.size);
    return buffer;
  };
  before(GPUBuffer.prototype, "destroy", (self) => {
    const owner = owners.get(self as GPUBuffer);
    owners.delete(self as GPUBuffer);
    if (owner !== undefined) {
      change(owner, -(self as GPUBuffer).size);
    }
  });
  before(GPUQueue.prototype, "submit", (self) => {
    const device = queues.get(self as GPUQueue);
    if (device !== undefined) {
      used.add(device);
    }
  });
  return {
    opened: (device) => void queues.set(device.queue, device),
    restart: () => {
      used.clear();
      peaks = new Map(held);
    },
    peak: () => Math.max(0, ...[...used].map((device) => peaks.get(device) ?? 0)),
  };
}

/** Calls `first` before every call of `prototype[name]`, on whatever it is called. */
function before(prototype: object, name: string, first: (self: unknown) => void): void {
  const methods = prototype as Record<string, Method>;
  const original = methods[name] as Method;
  methods[name] = function watched(this: unknown, ...args: never[]): unknown {
    first(this);
    return original.apply(this, args);
  };
}
