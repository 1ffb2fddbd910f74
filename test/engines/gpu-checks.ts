/**
 * What must hold of the WebGPU engine beyond the contract: a run allocates nothing, and no failure of the device goes by
 * unseen. The device's own methods are wrapped to count what is created and to break things on purpose.
 */
import { present } from "../../src/base/assert.ts";
import { median } from "../../src/base/statistics.ts";
import { createGpuEngine, probeGpu, type GpuEngine, type GpuEngineOptions } from "../../src/gpu/engine.ts";
import { selfTest } from "../../src/gpu/self-test.ts";
import type { Pace } from "../../src/tensor/engine.ts";
import { record } from "../../src/tensor/record.ts";
import { memoryOf } from "../../src/model/memory.ts";
import { cases, modelCase } from "./cases.ts";
import { checkCut } from "./cut-check.ts";
import { asRealGpu, changeShaders } from "./disguise.ts";
import { guardAdapter } from "./guard.ts";
import { checkHalves } from "./half-check.ts";
import { checkPartialSums, checkSplit, checkTooBig, checkWindows } from "./limit-check.ts";
import { checkMistakes, checkOrder } from "./order-check.ts";
import { checkSizes } from "./self-test-check.ts";
import { attempt, compare, expectCode, isolated, runCases, type CaseResult } from "./run-cases.ts";

export const GPU_CHECKS = {
  guard: "a kernel that writes beyond its tensor is caught by the guard around it",
  allocates: "a run creates no buffer, bind group, pipeline or shader",
  submits: "a run is cut into submits, one after the other, where its pace says",
  mistakes: "an array of the wrong type and a Plan that is disposed of while it runs are named, and the engine goes on",
  order: "a run that is cut into submits is neither read nor written to nor overtaken in between",
  fence: "the end of a run is heard of within 50 ms",
  selfTest: "the self-test passes",
  wrongKernel: "the self-test refuses a device whose way back through attention is 0.3 % off, and names the op",
  sizes: "the self-test refuses a GPU whose large tiles, or whose attention beyond its first tile of keys, are wrong",
  badShader: 'a shader that does not compile is refused as "device-wrong", by the kernel\'s name',
  noMemory: 'a buffer that the device has no memory for is refused as "model-too-big", and the device goes on',
  noRoom: 'outputs that there is no memory to read through are refused as "model-too-big"',
  tuned: "a search for the fastest kernels is kept as a text that spares the next one, on this adapter only",
  asOnGpu: "what a GPU takes where nothing was measured, cut sums included, trains to the twin's numbers",
  windows: "a state that is larger than a binding may be is bound window by window",
  split: "a model with tables and matrices larger than a binding may be trains to the twin's numbers",
  partialSums: "a sum is cut into no more parts than one binding spans",
  cut: "what would hold the screen up for too long is cut, to the same bits where no sum is",
  tooBig: 'a model that does not fit is refused as "model-too-big", with the sizes',
  dropped: "a submit that the device drops makes run or read reject, and every later one",
  halves:
    'values that are kept as f16 take half the bytes, are finite or NaN as they were; a device without f16 is "no-engine"',
  lost: 'a lost device makes run and read reject with "device-lost"',
} as const;

/** Every check whose name `wanted` lets through. */
export async function runGpuChecks(
  gpu: GPU,
  wanted: (one: { readonly name: string }) => boolean,
): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const [key, check] of Object.entries(CHECKS)) {
    const name = GPU_CHECKS[key as keyof typeof GPU_CHECKS];
    if (wanted({ name })) {
      results.push(await attempt(name, () => check(gpu)));
    }
  }
  return results;
}

const CHECKS: Readonly<Record<keyof typeof GPU_CHECKS, (gpu: GPU) => Promise<string>>> = {
  guard: checkGuard,
  allocates: checkAllocations,
  submits: checkSubmits,
  mistakes: checkMistakes,
  order: checkOrder,
  fence: checkFence,
  selfTest: checkSelfTest,
  wrongKernel: checkWrongKernel,
  sizes: checkSizes,
  badShader: checkBadShader,
  noMemory: checkNoMemory,
  noRoom: checkNoRoom,
  tuned: checkTuned,
  asOnGpu: checkAsOnGpu,
  windows: checkWindows,
  split: checkSplit,
  partialSums: checkPartialSums,
  cut: checkCut,
  tooBig: checkTooBig,
  dropped: checkDropped,
  halves: checkHalves,
  lost: checkLost,
};

/** The guard's own control: 64 invocations write three elements without looking where the tensor ends. */
async function checkGuard(gpu: GPU): Promise<string> {
  const guard = guardAdapter(present(await probeGpu(gpu), "adapter").adapter);
  const device = await guard.adapter.requestDevice();
  const code = `@group(0) @binding(0) var<storage, read_write> out: array<f32>;
    @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { if (i < LENGTH) { out[i] = 1; } }`;
  const write = (length: number): void => {
    const module = device.createShaderModule({ code: code.replace("LENGTH", `${length}u`) });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
    const buffer = device.createBuffer({ label: "three", size: 16, usage: GPUBufferUsage.STORAGE });
    const entries = [{ binding: 0, resource: { buffer, offset: 0, size: 12 } }];
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
    buffer.destroy();
  };
  for (const length of [3, 4, 64]) {
    guard.watch(`${length}`);
    write(length);
  }
  const faults = await guard.finish();
  device.destroy();
  if ([...faults.keys()].join() !== "4,64") {
    throw new Error(`Caught ${[...faults.values()].join("; ") || "nothing"}, need the writes of 4 and of 64 elements`);
  }
  return [...faults.values()].join("; ");
}

interface Watched {
  readonly engine: GpuEngine;
  readonly device: GPUDevice;
  /** Calls of each wrapped method so far. */
  readonly calls: Map<string, number>;
  readonly buffers: GPUBuffer[];
}

const CREATORS = [
  "createBuffer",
  "createBindGroup",
  "createBindGroupLayout",
  "createPipelineLayout",
  "createComputePipeline",
  "createComputePipelineAsync",
  "createShaderModule",
] as const;

/** An engine on a device whose creating methods are counted. */
async function watched(gpu: GPU, options: Partial<GpuEngineOptions> = {}): Promise<Watched> {
  const probe = await probeGpu(gpu);
  if (probe === null) {
    throw new Error("There is no adapter");
  }
  const { adapter } = probe;
  const calls = new Map<string, number>();
  const buffers: GPUBuffer[] = [];
  const seen: GPUDevice[] = [];
  const request = adapter.requestDevice.bind(adapter);
  const requestDevice = async (descriptor?: GPUDeviceDescriptor): Promise<GPUDevice> => {
    const device = await request(descriptor);
    seen.push(device);
    for (const name of CREATORS) {
      const create = (device[name] as (argument: unknown) => unknown).bind(device);
      Object.defineProperty(device, name, {
        configurable: true,
        value: (argument: unknown): unknown => {
          calls.set(name, (calls.get(name) ?? 0) + 1);
          const made = create(argument);
          if (name === "createBuffer") {
            const buffer = made as GPUBuffer;
            const map = buffer.mapAsync.bind(buffer);
            Object.defineProperty(buffer, "mapAsync", {
              value: (mode: number): Promise<undefined> => {
                calls.set("mapAsync", (calls.get("mapAsync") ?? 0) + 1);
                return map(mode);
              },
            });
            buffers.push(buffer);
          }
          return made;
        },
      });
    }
    const submit = device.queue.submit.bind(device.queue);
    Object.defineProperty(device.queue, "submit", {
      value: (commands: GPUCommandBuffer[]): void => {
        // What is empty is there to be heard of sooner (`gpu/nudge.ts`).
        calls.set("submit", (calls.get("submit") ?? 0) + Math.min(1, commands.length));
        submit(commands);
      },
    });
    return device;
  };
  Object.defineProperty(adapter, "requestDevice", { value: requestDevice });
  const engine = await createGpuEngine({ ...options, gpu, adapter });
  return { engine, device: seen[0] as GPUDevice, calls, buffers };
}

/** A Program of one addition, with a state that a run changes. */
function small() {
  const r = record("small");
  const total = r.state("total", [300]);
  r.add(total, r.input("x", [300]), total);
  return r.finish(["total"]);
}

async function checkAllocations(gpu: GPU): Promise<string> {
  const { engine, calls, buffers } = await watched(gpu);
  using _ = engine;
  const setup = cases.find(({ op }) => op === "model")?.setup();
  if (setup === undefined) {
    throw new Error("There is no case of a whole model");
  }
  using plan = await engine.compile(setup.program);
  const step = async (at: number): Promise<void> => {
    for (const [name, values] of Object.entries(setup.inputs(at))) {
      plan.write(name, values);
    }
    await plan.run(["loss", "norm"]);
  };
  await step(1);
  const before = new Map(calls);
  await step(2);
  await step(3);
  for (const name of CREATORS) {
    const made = (calls.get(name) ?? 0) - (before.get(name) ?? 0);
    if (made > 0) {
      throw new Error(`Two steps called ${name} ${made} times`);
    }
  }
  const [submits, maps] = ["submit", "mapAsync"].map((name) => ((calls.get(name) ?? 0) - (before.get(name) ?? 0)) / 2);
  if (submits !== 1 || maps !== 1) {
    throw new Error(`A step with its loss and norm took ${submits} submits and ${maps} maps, need one of each`);
  }
  const text = plan.describe();
  if (text.split("\n").length !== setup.program.ops.length + 2 || !text.includes(` ${plan.dispatchCount} dispatches`)) {
    throw new Error(`The Plan is not told op by op: ${text}`);
  }
  const bytes = buffers.reduce((sum, { size }) => sum + size, 0);
  const { stateBytes, valueBytes } = memoryOf(setup.program);
  const share = bytes / (stateBytes + valueBytes);
  if (!(share <= 1.15)) {
    throw new Error(`All buffers take ${bytes} bytes, ${share.toFixed(2)} times the ${stateBytes + valueBytes} needed`);
  }
  return `${plan.dispatchCount} dispatches, 1 submit and 1 map with loss and norm read back, ${share.toFixed(3)} of the least bytes`;
}

async function checkSubmits(gpu: GPU): Promise<string> {
  const cuts: string[] = [];
  const submitted = async (from: number, to: number, done: Promise<void>): Promise<void> => {
    cuts.push(`${from}-${to}`);
    await done;
  };
  // A run begins with a submit of nothing.
  const until = (from: number, count: number): number =>
    from === 0 && cuts.at(-1) !== "0-0" ? 0 : Math.min(count, from + 3);
  const pace: Pace = { plan: ({ length }) => ({ until: (from) => until(from, length), submitted }) };
  const { engine, calls } = await watched(gpu, { pace });
  using _ = engine;
  const r = record("chain");
  const x = r.input("x", [3]);
  let sum = x;
  for (let i = 0; i < 7; i += 1) {
    sum = r.add(sum, x, r.value(`sum ${i}`, [3]));
  }
  using plan = await engine.compile(r.finish(["sum 6"]));
  plan.write("x", Float32Array.of(1, 2, 3));
  const before = calls.get("submit") ?? 0;
  const { "sum 6": values } = await plan.run(["sum 6"]);
  const submits = (calls.get("submit") ?? 0) - before;
  if (submits !== 4 || cuts.join() !== "0-0,0-3,3-6,6-7" || values.join() !== "8,16,24") {
    throw new Error(`Got ${submits} submits of ${cuts} and [${values}], need 4 and [8,16,24]`);
  }
  // A run that is refused because another is under way takes no staging buffer away.
  const buffers = calls.get("createBuffer");
  const [one, overlapping] = await Promise.allSettled([plan.run(["sum 6"]), plan.run(["sum 6"])]);
  if (one.status !== "fulfilled" || overlapping.status !== "rejected" || calls.get("createBuffer") !== buffers) {
    throw new Error(
      `Overlapping runs are ${one.status} and ${overlapping.status}, ${calls.get("createBuffer")} buffers`,
    );
  }
  return cuts.slice(0, 4).join();
}

/** Left to itself Firefox takes 100 ms for each. */
async function checkFence(gpu: GPU): Promise<string> {
  using engine = await createGpuEngine({ gpu });
  using plan = await engine.compile(small());
  plan.write("x", new Float32Array(300).fill(1));
  const times: number[] = [];
  for (let run = 0; run < 20; run += 1) {
    const begin = performance.now();
    await plan.run(["total"]);
    times.push(performance.now() - begin);
  }
  const words = `${Math.min(...times).toFixed(1)} ms at least, ${median(times).toFixed(1)} ms in the middle`;
  if (!(median(times) < 50)) {
    throw new Error(`A run that adds 300 numbers takes ${words}`);
  }
  return words;
}

async function checkSelfTest(gpu: GPU): Promise<string> {
  using engine = await createGpuEngine({ gpu });
  await selfTest(engine);
  return engine.device;
}

async function checkWrongKernel(gpu: GPU): Promise<string> {
  const { engine, device } = await watched(gpu);
  using _ = engine;
  let changed = 0;
  changeShaders(device, (code) =>
    code.replaceAll(/dweight\w* \* SCALE/g, (found) => {
      changed += 1;
      return `1.003 * ${found}`;
    }),
  );
  const refusal = await expectCode("device-wrong", () => selfTest(engine));
  if (changed === 0 || !refusal.includes('op "attentionBackward"')) {
    throw new Error(`Changed ${changed} kernels and got: ${refusal}`);
  }
  return refusal;
}

async function checkBadShader(gpu: GPU): Promise<string> {
  const { engine, device } = await watched(gpu);
  using _ = engine;
  changeShaders(device, (code) => code.replace("fn main(", "fn main(,"));
  const refusal = await expectCode("device-wrong", () => engine.compile(small()));
  await expectCode("device-wrong", () => engine.compile(small()));
  return refusal;
}

/** Software adapters would swap for minutes before they refused, so the device is made to say so. */
async function checkNoMemory(gpu: GPU): Promise<string> {
  const { engine, device, buffers } = await watched(gpu);
  using _ = engine;
  const destroyed = new Set<GPUBuffer>();
  const watchDestroy = (): void => {
    for (const buffer of buffers) {
      const destroy = buffer.destroy.bind(buffer);
      const value = (): void => {
        destroyed.add(buffer);
        destroy();
      };
      Object.defineProperty(buffer, "destroy", { value });
    }
  };
  const pop = device.popErrorScope.bind(device);
  let scopes = 0;
  const popErrorScope = async (): Promise<GPUError | null> => {
    await pop();
    scopes += 1;
    if (scopes === 3) {
      watchDestroy();
    }
    return scopes === 3 ? new GPUOutOfMemoryError("no memory left") : null; // the outermost of the three
  };
  Object.defineProperty(device, "popErrorScope", { value: popErrorScope });
  const refusal = await expectCode("model-too-big", () => engine.compile(small()));
  const made = buffers.length;
  if (made === 0 || destroyed.size !== made) {
    throw new Error(`${destroyed.size} of ${made} buffers were destroyed`);
  }
  // The device goes on with what it has memory for.
  using plan = await engine.compile(small());
  plan.write("x", new Float32Array(300).fill(2));
  const { total } = await plan.run(["total"]);
  if (total[299] !== 2) {
    throw new Error(`Got ${total[299]} after the refusal, need 2`);
  }
  return refusal;
}

/** Staging buffers that are no good, and a device that gives the reason last, after everything that follows from it. */
async function checkNoRoom(gpu: GPU): Promise<string> {
  const { engine, device } = await watched(gpu);
  using _ = engine;
  using plan = await engine.compile(small());
  plan.write("x", new Float32Array(300).fill(1));
  await plan.run();
  const [create, pop] = [device.createBuffer.bind(device), device.popErrorScope.bind(device)];
  let scopes = 0;
  const popErrorScope = async (): Promise<GPUError | null> => {
    const error = await pop();
    scopes += 1;
    return scopes % 3 === 0 ? new GPUOutOfMemoryError("no memory left") : error;
  };
  const createBuffer = (descriptor: GPUBufferDescriptor): GPUBuffer => {
    const buffer = create(descriptor);
    buffer.destroy();
    return buffer;
  };
  const replace = (methods: object): void => {
    for (const [name, value] of Object.entries(methods)) {
      Object.defineProperty(device, name, { value, configurable: true });
    }
  };
  replace({ createBuffer, popErrorScope });
  const read = await expectCode("model-too-big", () => engine.readState("total"));
  replace({ createBuffer: create, popErrorScope: pop });
  // A read changes nothing, and the next one finds what was there.
  const total = await engine.readState("total");
  if (total[299] !== 1) {
    throw new Error(`Read ${total[299]}, need 1`);
  }
  replace({ createBuffer, popErrorScope });
  const run = await expectCode("model-too-big", () => plan.run(["total"]));
  await expectCode("model-too-big", () => plan.run());
  return `${read}; ${run}`;
}

async function checkTuned(gpu: GPU): Promise<string> {
  // Enough for one candidate: which one is fastest is for the benchmark to say.
  using first = await createGpuEngine({ gpu, tuneMsMax: 1 });
  const before = first.tuned;
  const [result] = await runCases(first, { wanted: ({ op }) => op === "model in fours" });
  const { tuned } = first;
  if (before !== undefined || tuned?.includes('"rungs":{"') !== true || result?.passed !== true) {
    throw new Error(`Got ${before} before, ${tuned} after; ${result?.detail}`);
  }
  using second = await createGpuEngine({ gpu, tuned });
  const elsewhere = tuned.replace('"adapter":"', '"adapter":"another ');
  using other = await createGpuEngine({ gpu, tuned: elsewhere, tuneMsMax: 0 });
  if (second.tuned !== tuned || other.tuned !== undefined) {
    throw new Error(`Got ${second.tuned} from ${tuned}, and ${other.tuned} from ${elsewhere}`);
  }
  return tuned;
}

/** A model with 1024 rows, hence long sums in its gradients, on this adapter under the name of a GPU. */
async function checkAsOnGpu(gpu: GPU): Promise<string> {
  using engine = await createGpuEngine({ gpu, adapter: await asRealGpu(gpu), tuneMsMax: 0 });
  const size = { tied: true, kvHeads: 2, channels: 16, hidden: 32, layers: 1, time: 64, vocabulary: 32 };
  const trained = modelCase("as on a GPU", size, { batch: 16 });
  const model = { ...trained, setup: () => ({ ...trained.setup(), steps: 1 }) };
  using plan = await engine.compile(isolated(model.setup()).program);
  const cuts = plan.kernels.filter((kernel) => kernel.startsWith("matmul-sum")).length;
  if (engine.software || cuts === 0 || !plan.kernels.includes("attention-staged")) {
    throw new Error(`Got ${cuts} cuts on "${engine.device}" among ${plan.kernels.join("; ")}`);
  }
  return `${cuts} sums were cut; ${await compare(engine, model)}`;
}

async function checkDropped(gpu: GPU): Promise<string> {
  const { engine, buffers } = await watched(gpu);
  const plan = await engine.compile(small());
  plan.write("x", new Float32Array(300).fill(1));
  await plan.run();
  // A destroyed buffer makes the next submit invalid as a whole.
  for (const buffer of buffers) {
    buffer.destroy();
  }
  const first = await expectCode("device-wrong", async () => {
    await plan.run(["total"]);
  });
  await expectCode("device-wrong", () => plan.run());
  await expectCode("device-wrong", () => plan.run(["total"]));
  return first;
}

async function checkLost(gpu: GPU): Promise<string> {
  const { engine, device } = await watched(gpu);
  const plan = await engine.compile(small());
  await plan.run();
  device.destroy();
  // Until the browser says so, Firefox answers with errors about buffers of a device that is no more.
  await device.lost;
  const first = await expectCode("device-lost", async () => {
    await plan.run(["total"]);
  });
  await expectCode("device-lost", () => plan.run());
  await expectCode("device-lost", () => plan.run(["total"]));
  await expectCode("device-lost", () => engine.readState("total"));
  return first;
}
