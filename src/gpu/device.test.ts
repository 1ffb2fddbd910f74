/** The watch over a device that reports, in the scope that is closed last, whatever it is told to. */
import { expect, test, vi } from "vitest";
import { openDevice, type OpenDevice } from "./device.ts";

class GPUOutOfMemoryError extends Error {}
class GPUInternalError extends Error {}

async function deviceReporting(
  errors: readonly (Error | null)[],
  info: Partial<GPUAdapterInfo> = {},
): Promise<{ open: OpenDevice; depth: () => number }> {
  let depth = 0;
  const left = [...errors];
  const device = {
    lost: new Promise(() => undefined),
    addEventListener: () => undefined,
    pushErrorScope: () => {
      depth += 1;
    },
    popErrorScope: async () => {
      depth -= 1;
      return depth === 0 ? (left.shift() ?? null) : null;
    },
  };
  const adapter = { limits: {}, features: new Set(), info, requestDevice: async () => device };
  return { open: await openDevice(adapter as unknown as GPUAdapter), depth: () => depth };
}

test("openDevice() asks for as many buffers at once as are of use, where the adapter has them", async () => {
  for (const [offered, asked] of [
    [undefined, 8],
    [8, 8],
    [10, 10],
    [64, 12],
  ] as const) {
    let requested: GPUDeviceDescriptor = {};
    const requestDevice = async (descriptor: GPUDeviceDescriptor) => {
      requested = descriptor;
      return { lost: new Promise(() => undefined), addEventListener: () => undefined };
    };
    const limits = { maxStorageBuffersPerShaderStage: offered };
    const adapter = { limits, features: new Set(), info: {}, requestDevice } as unknown as GPUAdapter;
    const open = await openDevice(adapter);
    expect(requested.requiredLimits).toMatchObject({ maxStorageBuffersPerShaderStage: asked });
    expect(open.limits.storageBuffersMax).toBe(asked);
  }
});

test("attempt() rejects for want of memory and leaves the device usable", async () => {
  const { open } = await deviceReporting([new GPUOutOfMemoryError("full"), null]);
  const refused = open.watch.attempt("reserving", () => 7);
  expect(refused.value).toBe(7);
  await expect(refused.done).rejects.toMatchObject({ code: "model-too-big" });
  expect(open.watch.failure()).toBeUndefined();
  await open.watch.attempt("reserving less", () => 7).done;
});

test("attempt() fails the device for an internal error, and scoped() for any", async () => {
  const internal = await deviceReporting([new GPUInternalError("broken")]);
  await expect(internal.open.watch.attempt("reserving", () => 7).done).rejects.toMatchObject({ code: "device-lost" });
  expect(internal.open.watch.failure()?.code).toBe("device-lost");
  const running = await deviceReporting([new GPUOutOfMemoryError("full")]);
  await expect(running.open.watch.scoped("running", () => 7).done).rejects.toMatchObject({ code: "model-too-big" });
  expect(running.open.watch.failure()?.code).toBe("model-too-big");
});

test("scoped() closes its scopes when the work throws", async () => {
  const { open, depth } = await deviceReporting([]);
  const work = (): never => {
    throw new RangeError("too long");
  };
  expect(() => open.watch.scoped("running", work)).toThrow("too long");
  expect(depth()).toBe(0);
});

test("settle() gives up a device that never answers, a software one much later, and no other", async () => {
  vi.useFakeTimers();
  try {
    const never = new Promise<void>(() => undefined);
    const [gpu, software] = [await deviceReporting([]), await deviceReporting([], { isFallbackAdapter: true })];
    const answers = [gpu, software].map(({ open }) => expect(open.watch.settle(never)).rejects.toThrow("not answered"));
    const late = gpu.open.watch.settle(new Promise((resolve) => setTimeout(() => resolve("late"), 50_000)));
    await vi.advanceTimersByTimeAsync(59_000);
    expect(await late).toBe("late");
    expect([gpu, software].map(({ open }) => open.watch.failure()?.code)).toEqual([undefined, undefined]);
    await vi.advanceTimersByTimeAsync(53_000); // 62 s since it came
    expect([gpu, software].map(({ open }) => open.watch.failure()?.code)).toEqual(["device-lost", undefined]);
    await vi.advanceTimersByTimeAsync(600_000);
    await Promise.all(answers);
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("settle() takes whatever the device answers for a sign of life: one may wait while others come", async () => {
  vi.useFakeTimers();
  try {
    const { open } = await deviceReporting([]);
    const after = (ms: number): Promise<number> => new Promise((resolve) => setTimeout(() => resolve(ms), ms));
    const pipelines = Array.from({ length: 40 }, (_, i) => open.watch.settle(after(5_000 * (i + 1))));
    await vi.advanceTimersByTimeAsync(200_000);
    expect(await Promise.all(pipelines)).toHaveLength(40);
    expect([open.watch.failure(), vi.getTimerCount()]).toEqual([undefined, 0]);
    const failed = open.watch.settle(Promise.reject(new Error("no memory")));
    await expect(failed).rejects.toThrow("gave up");
    const never = expect(open.watch.settle(new Promise<void>(() => undefined))).rejects.toThrow("not answered");
    const first = open.watch.settle(after(50_000));
    await vi.advanceTimersByTimeAsync(105_000);
    expect([await first, open.watch.failure()]).toEqual([50_000, undefined]);
    await vi.advanceTimersByTimeAsync(6_000);
    await never;
    expect(open.watch.failure()?.code).toBe("device-lost");
  } finally {
    vi.useRealTimers();
  }
});

test("settle() on a device that has failed rejects with that failure, and leaves no rejection unhandled", async () => {
  const { open } = await deviceReporting([new GPUInternalError("broken")]);
  await expect(open.watch.scoped("running", () => 7).done).rejects.toMatchObject({ code: "device-lost" });
  const unhandled = vi.fn();
  process.on("unhandledRejection", unhandled);
  try {
    await expect(open.watch.settle(Promise.reject(new Error("late")))).rejects.toThrow("broken");
    await new Promise((resolve) => setImmediate(resolve));
    expect(unhandled).not.toHaveBeenCalled();
  } finally {
    process.off("unhandledRejection", unhandled);
  }
});
