/**
 * Finding and opening a GPU: which adapter there is, whether it is a real GPU or a program that pretends to be one, and a
 * device with the limits that training wants. `Watch` collects everything that can go wrong later (loss, validation,
 * memory), so that the Plans can ask at every fence and never train on silently. WebGPU drops the whole submit on an
 * error and carries on with old buffers; without the watch that looks like a loss that stops falling.
 */
import { AssertionError, HeddleError } from "../base/assert.ts";
import { nudgerFor } from "./nudge.ts";

const MiB = 2 ** 20;

/**
 * A GPU that has answered nothing for so long never will: no submit is meant to take a second, but in some browsers it waits for
 * kernels that are compiled beside it. A software adapter may be at one dispatch for minutes.
 */
const SILENT_MS_MAX = 60_000;
const SOFTWARE_SILENT_MS_MAX = 600_000;
/** The time is counted in so many parts: when a machine that was suspended wakes up, only the part under way is over. */
const SILENT_PARTS = 10;

/** What an adapter says of itself. `software`: it computes on the CPU, where the WASM engine is an order faster. */
export interface AdapterDescription {
  /** In words, for people: "nvidia ampere", "google swiftshader (software)". */
  readonly description: string;
  /** All that it says, for a cache to tell adapters apart. */
  readonly identity: string;
  readonly software: boolean;
}

/** The limits that Plans are checked against, in bytes unless the name says otherwise. */
interface Limits {
  readonly bindingBytesMax: number;
  readonly bufferBytesMax: number;
  readonly groupsPerDimensionMax: number;
  /** Tensors that a dispatch may have. */
  readonly storageBuffersMax: number;
}

/** What every device binds at once, and what is enough for all that can share a dispatch in a model. */
const STORAGE_BUFFERS_MIN = 8;
const STORAGE_BUFFERS_WANTED = 12;

interface Scoped<T> {
  readonly value: T;
  readonly done: Promise<void>;
}

interface Watch {
  /** The first failure, if there was one. */
  failure(): HeddleError | undefined;
  /** Throws the first failure, if there was one. */
  check(): void;
  /**
   * The outcome of `work`, or the failure if the device fails first: a lost device may never settle a promise. One that settles
   * nothing at all for too long has failed as "device-lost"; so work of many promises is given promise by promise.
   */
  settle<T>(work: Promise<T>): Promise<T>;
  /** Runs `work` (which only records and submits) and resolves when the device has found no fault with it. */
  scoped<T>(what: string, work: () => T): Scoped<T>;
  /** The same for work that nothing depends on yet: what the device refuses of it, memory for one, leaves it usable. */
  attempt<T>(what: string, work: () => T): Scoped<T>;
}

export interface OpenDevice extends AdapterDescription {
  readonly device: GPUDevice;
  /** Invocations that a subgroup has at least; 0 if kernels may not use subgroups. */
  readonly lanesMin: number;
  /** Kernels may read and write f16. */
  readonly f16: boolean;
  readonly limits: Limits;
  readonly watch: Watch;
}

/** What the device is like, as far as the choice of a kernel goes. */
export type DeviceKind = Pick<OpenDevice, "software" | "lanesMin">;

/** Asks for the fastest adapter. Returns null where there is none; never throws. */
export async function probeGpu(gpu: GPU): Promise<({ readonly adapter: GPUAdapter } & AdapterDescription) | null> {
  try {
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    return adapter === null ? null : { adapter, ...describeAdapter(adapter) };
  } catch {
    // Some browsers reject where the specification says null; both mean that WebGPU is not to be had here.
    return null;
  }
}

export function describeAdapter(adapter: GPUAdapter): AdapterDescription {
  const {
    vendor = "",
    architecture = "",
    device = "",
    description = "",
    isFallbackAdapter = false,
  } = adapter.info ?? {};
  const words = [vendor, architecture, device, description].join(" ");
  const software = isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b/i.test(words);
  const known = [vendor, architecture].filter((word) => /[a-z]/i.test(word)).join(" ");
  const name = known || description || "unnamed GPU";
  return { description: software ? `${name} (software)` : name, identity: words, software };
}

/**
 * Opens `adapter` with the largest buffers it offers, and as many at once as are of use. Throws HeddleError "no-engine" when it gives no device. An adapter
 * can be opened once; after a loss, probe again.
 */
export async function openDevice(adapter: GPUAdapter): Promise<OpenDevice> {
  const { maxStorageBufferBindingSize, maxBufferSize, maxStorageBuffersPerShaderStage } = adapter.limits;
  // Deno has been seen to report sizes as BigInt.
  const limits: Limits = {
    bindingBytesMax: Number(maxStorageBufferBindingSize),
    bufferBytesMax: Number(maxBufferSize),
    groupsPerDimensionMax: 65535,
    storageBuffersMax: Math.min(STORAGE_BUFFERS_WANTED, Number(maxStorageBuffersPerShaderStage ?? STORAGE_BUFFERS_MIN)),
  };
  const requiredLimits = {
    maxStorageBufferBindingSize: limits.bindingBytesMax,
    maxBufferSize: limits.bufferBytesMax,
    maxStorageBuffersPerShaderStage: limits.storageBuffersMax,
  };
  const features = (["subgroups", "shader-f16"] as const).filter((name) => adapter.features.has(name));
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({ requiredLimits, requiredFeatures: features });
  } catch (error) {
    throw new HeddleError("no-engine", "Cannot open the GPU: the adapter refused a device", { cause: error });
  }
  // The smallest that the specification allows, where the adapter does not say.
  const lanesMin = features.includes("subgroups") ? Math.max(4, adapter.info?.subgroupMinSize ?? 4) : 0;
  const f16 = features.includes("shader-f16");
  const described = describeAdapter(adapter);
  const watch = watchDevice(device, described.software ? SOFTWARE_SILENT_MS_MAX : SILENT_MS_MAX);
  return { device, lanesMin, f16, limits, watch, ...described };
}

/** Listens to `device` for as long as it lives. */
function watchDevice(device: GPUDevice, silentMsMax: number): Watch {
  let failure: HeddleError | undefined;
  const nudgeFor = nudgerFor(device);
  const waiting = new Set<(error: HeddleError) => void>();
  /** Runs while anybody waits; whatever the device settles begins its count anew. */
  let silence: ReturnType<typeof setInterval> | undefined;
  let silentParts = 0;
  const endSilence = (): void => {
    if (waiting.size === 0) {
      clearInterval(silence);
      silence = undefined;
      silentParts = 0;
    }
  };
  const fail = (error: HeddleError): void => {
    failure ??= error;
    for (const reject of waiting) {
      reject(failure);
    }
    waiting.clear();
    endSilence();
  };
  const listen = (): void => {
    silentParts += 1;
    if (silentParts === SILENT_PARTS) {
      fail(new HeddleError("device-lost", `The GPU has not answered for ${silentMsMax / 1_000} s`));
    }
  };
  void device.lost.then((info) =>
    fail(new HeddleError("device-lost", `The GPU went away: ${info.message || info.reason || "no reason given"}`)),
  );
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    fail(failureOf("using the GPU", event.error));
  });
  const settle = <T>(work: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      if (failure !== undefined) {
        work.catch(() => undefined); // the first failure goes first
        reject(failure);
        return;
      }
      waiting.add(reject);
      silence ??= setInterval(listen, silentMsMax / SILENT_PARTS);
      const stop = (): void => {
        silentParts = 0;
        waiting.delete(reject);
        endSilence();
      };
      nudgeFor(work);
      work.then(
        (value) => {
          stop();
          resolve(value);
        },
        (error: unknown) => {
          stop();
          const ours = error instanceof HeddleError || error instanceof AssertionError;
          const lost = (): HeddleError => new HeddleError("device-lost", `The GPU gave up: ${error}`, { cause: error });
          reject(failure ?? (ours ? error : lost()));
        },
      );
    });
  const check = (): void => {
    if (failure !== undefined) {
      throw failure;
    }
  };
  const scope = <T>(what: string, work: () => T, refused: (error: HeddleError) => void): Scoped<T> => {
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("internal");
    device.pushErrorScope("validation");
    const close = (): Promise<(GPUError | null)[]> =>
      Promise.all([device.popErrorScope(), device.popErrorScope(), device.popErrorScope()]);
    let value: T;
    try {
      value = work();
    } catch (error) {
      close().catch(() => undefined); // what was thrown goes first
      throw error;
    }
    const done = settle(close()).then((errors) => {
      // What there is no memory for is invalid as well, and memory is the reason: its scope is the outermost.
      const error = errors.findLast((candidate) => candidate !== null);
      if (error !== undefined && error !== null) {
        refused(failureOf(what, error));
      }
      check();
    });
    return { value, done };
  };
  return {
    failure: () => failure,
    check,
    settle,
    scoped: (what, work) => scope(what, work, fail),
    attempt: (what, work) =>
      scope(what, work, (error) => {
        if (error.code === "device-lost") {
          fail(error);
        }
        throw error;
      }),
  };
}

/** Bytes as MiB for a sentence: one decimal below ten. */
export function inMiB(bytes: number): string {
  const size = bytes / MiB;
  return `${size < 10 ? size.toFixed(1) : Math.ceil(size)} MiB`;
}

function failureOf(what: string, error: GPUError): HeddleError {
  const type = error.constructor.name;
  if (type === "GPUOutOfMemoryError") {
    return new HeddleError("model-too-big", `The GPU ran out of memory while ${what}: ${error.message}`);
  }
  if (type === "GPUInternalError") {
    return new HeddleError("device-lost", `The GPU failed while ${what}: ${error.message}`);
  }
  return new HeddleError("device-wrong", `The GPU refused its work while ${what}: ${error.message}`);
}
