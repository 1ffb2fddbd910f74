/**
 * Speed of the WebGPU engine: `npm run bench gpu [PARTS]` prints one JSON object; PARTS are any of train, thrift,
 * memory, steady and counts, all by default; kernels are for `ladder.ts`. In Node the adapter is Dawn's, on the
 * Vulkan driver that `VK_ICD_FILENAMES` names; Deno runs it as well (`deno run -A --unstable-webgpu
 * --unstable-raw-imports bench/gpu.ts`). Ways of training are compared interleaved, within one launch; losses are
 * checked before steps are timed. A figure is the median of several rounds, with half the distance between the
 * quartiles as its spread, in percent. Compare figures only within one launch.
 */
import process from "node:process";
import { assert } from "../src/base/assert.ts";
import { createRng } from "../src/base/rng.ts";
import { STEP_INNER as INNER, STEP_MODEL as MODEL } from "../src/engines/task.ts";
import { createGpuEngine, probeGpu, type GpuEngine } from "../src/gpu/engine.ts";
import type { KernelChoice } from "../src/gpu/kernels.ts";
import { initialParameters } from "../src/model/layout.ts";
import { trainProgram } from "../src/model/llama.ts";
import { memoryOf } from "../src/model/memory.ts";
import { createTrainer, type Thrift, type Trainer } from "../src/model/trainer.ts";
import type { InnerConfig, ModelConfig } from "../src/protocol/charter.ts";
import { findAdapter } from "./contest/adapter.ts";

const TRAIN_ROUNDS = 3;
const STEADY_STEPS = 1_000;

/** A training step: kernels that the engine is held to, ways to spare memory. */
interface Way {
  readonly label: string;
  readonly choice?: Partial<KernelChoice>;
  readonly thrift?: Thrift;
}

const KERNELS: readonly Way[] = [
  { label: "auto" },
  { label: "not fused", choice: { fusion: "none" } },
  {
    label: "not fused, register products, flash attention",
    choice: { fusion: "none", matmul: "register", attention: "flash" },
  },
];
const THRIFTS: readonly Way[] = [
  { label: "plain" },
  { label: "recomputed", thrift: { recompute: true } },
  { label: "4 micro-batches", thrift: { accumulate: 4 } },
  { label: "4 micro-batches, recomputed", thrift: { accumulate: 4, recompute: true } },
];

const { gpu, identity } = await findAdapter();
const parts = process.argv.slice(2);
const wants = (part: string): boolean => parts.length === 0 || parts.includes(part);
const results: Record<string, unknown> = { adapter: identity };
if (wants("train")) {
  results["train step, tokens/s"] = await compareTraining(KERNELS);
}
if (wants("thrift")) {
  results["train step in less memory, tokens/s"] = await compareTraining(THRIFTS);
}
if (wants("memory")) {
  results["memory of a train step"] = await measureMemory();
}
if (wants("steady")) {
  results["memory over many steps"] = await measureSteadiness();
}
if (wants("counts")) {
  results["one training step"] = await countStep();
}
// Dawn keeps the process alive, so it has to be ended once the figures are out.
process.stdout.write(`${JSON.stringify(results, null, 2)}\n`, () => process.exit(0));

interface Runner {
  readonly label: string;
  run(): Promise<unknown>;
}

interface Rate {
  readonly median: number;
  readonly spreadPercent: number;
}

/** Units of work per second of each runner, `work` units a run; a round runs each once, after one round to warm up. */
async function rates(runners: readonly Runner[], work: number, rounds: number): Promise<Record<string, Rate>> {
  const seconds = new Map(runners.map(({ label }) => [label, [] as number[]]));
  for (let round = -1; round < rounds; round += 1) {
    for (const { label, run } of runners) {
      const begin = performance.now();
      await run();
      if (round >= 0) {
        seconds.get(label)?.push((performance.now() - begin) / 1000);
      }
    }
  }
  return Object.fromEntries(
    [...seconds].map(([label, all]) => {
      const sorted = all.map((s) => work / s).sort((a, b) => a - b);
      const quantile = (share: number): number => sorted[Math.round(share * (sorted.length - 1))] as number;
      const median = quantile(0.5);
      const spreadPercent = Math.round((50 * (quantile(0.75) - quantile(0.25))) / median);
      return [label, { median: Number(median.toPrecision(3)), spreadPercent }];
    }),
  );
}

/** Whole training steps, loss read back, by label. */
async function compareTraining(ways: readonly Way[]): Promise<Record<string, Rate>> {
  using stack = new DisposableStack();
  const runners: Runner[] = [];
  for (const { label, choice = {}, thrift = {} } of ways) {
    const engine = stack.use(await createGpuEngine({ gpu, choice }));
    const trainer = stack.use(await createTrainer(engine, { ...options(), thrift }));
    runners.push({ label, run: await stepper(trainer) });
  }
  return await rates(runners, INNER.batch * MODEL.time, TRAIN_ROUNDS);
}

function options(): { model: ModelConfig; inner: InnerConfig } {
  return { model: MODEL, inner: INNER };
}

/** Loads the initial weights, sees the loss fall from that of a uniform guess, and returns one step. */
async function stepper(trainer: Trainer): Promise<() => Promise<unknown>> {
  trainer.load(initialParameters(MODEL));
  const rng = createRng("bench", "train");
  const tokens = Uint32Array.from({ length: INNER.batch * MODEL.time }, () => rng.below(64));
  const targets = tokens.map((token) => (token + 1) % 64);
  const step = () => trainer.step({ tokens, targets });
  const [first, second] = [await step(), await step()];
  const uniform = Math.log(MODEL.vocabulary);
  assert(Math.abs(first.loss - uniform) < 0.2, `Cannot time training: the first loss is ${first.loss}, not ${uniform}`);
  assert(second.loss < first.loss, `Cannot time training: the loss went from ${first.loss} to ${second.loss}`);
  return step;
}

/** What one step in the steady state asks of the device: calls by name, and the bytes of all buffers that exist then. */
async function countStep(): Promise<Record<string, number>> {
  const { adapter, calls, bufferBytes } = await countedAdapter();
  using engine: GpuEngine = await createGpuEngine({ gpu, adapter });
  using trainer = await createTrainer(engine, options());
  const step = await stepper(trainer);
  const before = { ...calls };
  await step();
  const made = Object.entries(calls).map(([name, total]) => [name, total - (before[name] ?? 0)] as const);
  return { ...Object.fromEntries(made), bufferBytes: bufferBytes() };
}

/**
 * The bytes of all buffers on the device after a training step, beside the least by arithmetic: parameters, gradients,
 * moments, inputs and the most values that live at one time.
 */
async function measureMemory(): Promise<Record<string, Record<string, number>>> {
  const figures: Record<string, Record<string, number>> = {};
  for (const { label, thrift = {} } of THRIFTS) {
    const { adapter, bufferBytes } = await countedAdapter();
    using engine: GpuEngine = await createGpuEngine({ gpu, adapter });
    using trainer = await createTrainer(engine, { ...options(), thrift });
    await stepper(trainer);
    const { stateBytes, valueBytes } = memoryOf(trainProgram(MODEL, INNER.batch, thrift));
    const leastBytes = stateBytes + valueBytes;
    const ratio = Number((bufferBytes() / leastBytes).toFixed(3));
    figures[label] = { bufferBytes: bufferBytes(), leastBytes, ratio };
  }
  return figures;
}

/** A small model for a thousand steps: bytes on the device, and what the process holds, early and late. */
async function measureSteadiness(): Promise<Record<string, number>> {
  const { adapter, calls, bufferBytes } = await countedAdapter();
  using engine: GpuEngine = await createGpuEngine({ gpu, adapter });
  const model = { ...MODEL, vocabulary: 64, channels: 16, layers: 1, heads: 2, kvHeads: 1, hidden: 32, time: 16 };
  using trainer = await createTrainer(engine, { model, inner: { ...INNER, batch: 1 } });
  trainer.load(initialParameters(model));
  const tokens = Uint32Array.from({ length: model.time }, (_, n) => (n * 7) % 64);
  const targets = tokens.map((token) => (token + 7) % 64);
  const figures: Record<string, number> = {};
  for (let step = 1; step <= STEADY_STEPS; step += 1) {
    await trainer.step({ tokens, targets });
    if (step === STEADY_STEPS / 10 || step === STEADY_STEPS) {
      figures[`bufferBytes after ${step} steps`] = bufferBytes();
      figures[`buffers created after ${step} steps`] = calls["createBuffer"] ?? 0;
      figures[`resident MB after ${step} steps`] = Math.round(process.memoryUsage().rss / 1e6);
    }
  }
  return figures;
}

/** An adapter whose device counts calls by name and the bytes of its buffers. */
async function countedAdapter(): Promise<{
  readonly adapter: GPUAdapter;
  readonly calls: Record<string, number>;
  bufferBytes(): number;
}> {
  const probed = await probeGpu(gpu);
  assert(probed !== null, "Cannot count: there is no adapter");
  const calls: Record<string, number> = {};
  let bytes = 0;
  const count = (target: object, method: string, after: (made: unknown) => void = () => {}): void => {
    const call = (target as Record<string, (...args: unknown[]) => unknown>)[method]?.bind(target);
    const value = (...args: unknown[]): unknown => {
      calls[method] = (calls[method] ?? 0) + 1;
      const made = call?.(...args);
      after(made);
      return made;
    };
    Object.defineProperty(target, method, { value });
  };
  const request = probed.adapter.requestDevice.bind(probed.adapter);
  const requestDevice = async (descriptor?: GPUDeviceDescriptor): Promise<GPUDevice> => {
    const device = await request(descriptor);
    count(device, "createBuffer", (made) => {
      const buffer = made as GPUBuffer;
      bytes += buffer.size;
      count(buffer, "mapAsync");
      count(buffer, "destroy", () => (bytes -= buffer.size));
    });
    ["createBindGroup", "createComputePipelineAsync", "createShaderModule"].forEach((name) => count(device, name));
    count(device, "createCommandEncoder", (encoder) => {
      count(encoder as object, "beginComputePass", (pass) => count(pass as object, "dispatchWorkgroups"));
    });
    ["submit", "writeBuffer"].forEach((name) => count(device.queue, name));
    return device;
  };
  Object.defineProperty(probed.adapter, "requestDevice", { value: requestDevice });
  return { adapter: probed.adapter, calls, bufferBytes: () => bytes };
}
