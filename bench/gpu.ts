/**
 * Speed of the WebGPU engine: `npm run bench gpu [PARTS]` prints one JSON object; PARTS are any of train, thrift,
 * memory, steady, counts and self-test, all by default; kernels are for `ladder.ts`. In Node the adapter is Dawn's, on the
 * Vulkan driver that `VK_ICD_FILENAMES` names; Deno runs it as well (`deno run -A --unstable-webgpu
 * --unstable-raw-imports bench/gpu.ts`). Ways of training are compared interleaved, within one launch; losses are
 * checked before steps are timed. A figure is the median of several rounds, with half the distance between the
 * quartiles as its spread, in percent. Compare figures only within one launch.
 */
import process from "node:process";
import { assert } from "../src/base/assert.ts";
import { createRng } from "../src/base/rng.ts";
import { median } from "../src/base/statistics.ts";
import { STEP_INNER as INNER, STEP_MODEL as MODEL } from "../src/engines/task.ts";
import { createGpuEngine, probeGpu, type GpuEngine } from "../src/gpu/engine.ts";
import type { KernelChoice } from "../src/gpu/kernels.ts";
import { selfTest } from "../src/gpu/self-test.ts";
import { halfTensors } from "../src/gpu/storage.ts";
import { initialParameters } from "../src/model/layout.ts";
import { trainProgram } from "../src/model/llama.ts";
import { memoryOf } from "../src/model/memory.ts";
import { createTrainer, type Thrift, type Trainer } from "../src/model/trainer.ts";
import type { InnerConfig, ModelConfig } from "../src/protocol/charter.ts";
import { findAdapter } from "./contest/adapter.ts";
import { rounded, spreadPercent, takeRounds, type Runner } from "./contest/statistics.ts";
import { watchWebGpu, type Counts } from "./contest/watch.ts";
import { readNames } from "./load/options.ts";

const TRAIN_ROUNDS = 3;
const STEADY_STEPS = 1_000;

/** A training step: kernels and storage that the engine is held to, ways to spare memory. */
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
    choice: { fusion: "none", matmul: "register", attention: "flash-16" },
  },
];
const THRIFTS: readonly Way[] = [
  { label: "plain" },
  { label: "recomputed", thrift: { recompute: true } },
  { label: "4 micro-batches", thrift: { accumulate: 4 } },
  { label: "4 micro-batches, recomputed", thrift: { accumulate: 4, recompute: true } },
];

const PARTS = ["train", "thrift", "memory", "steady", "counts", "self-test"] as const;
const parts = readNames("part", process.argv.slice(2), PARTS);
const wants = (part: (typeof PARTS)[number]): boolean => parts.includes(part);

const { gpu, identity } = await findAdapter();
const f16 = (await probeGpu(gpu))?.adapter.features.has("shader-f16") === true;
/** Where the device has it. */
const HALVES: readonly Way[] = f16 ? [{ label: "f16 values", choice: { storage: "f16" } }] : [];
const watch = watchWebGpu({ maySleep: false });
const results: Record<string, unknown> = { adapter: identity };
if (wants("train")) {
  results["train step, tokens/s"] = await compareTraining([...KERNELS, ...HALVES]);
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
if (wants("self-test")) {
  results["self-test, ms"] = await timeSelfTest();
}
// Dawn keeps the process alive, so it has to be ended once the figures are out.
process.stdout.write(`${JSON.stringify(results, null, 2)}\n`, () => process.exit(0));

interface Rate {
  readonly median: number;
  readonly spreadPercent: number;
}

/** Whole training steps, loss read back, by label. */
async function compareTraining(ways: readonly Way[]): Promise<Record<string, Rate>> {
  using stack = new DisposableStack();
  const runners: Runner[] = [];
  for (const { label, choice = {}, thrift = {} } of ways) {
    const engine = stack.use(await createGpuEngine({ gpu, choice }));
    const trainer = stack.use(await createTrainer(engine, { ...options(), thrift }));
    runners.push({ name: label, run: await stepper(trainer) });
  }
  const samples = await takeRounds(runners, { rounds: TRAIN_ROUNDS, nowMs: () => performance.now() });
  return Object.fromEntries(
    [...samples].map(([name, allMs]) => {
      const rates = allMs.map((ms) => (1_000 * INNER.batch * MODEL.time) / ms);
      return [name, { median: rounded(median(rates)), spreadPercent: Math.round(spreadPercent(rates)) }];
    }),
  );
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

/** What one step in the steady state asks of the device, and the bytes of all buffers that exist then. */
async function countStep(): Promise<Counts> {
  using engine: GpuEngine = await createGpuEngine({ gpu });
  using trainer = await createTrainer(engine, options());
  return await watch.count(await stepper(trainer));
}

/**
 * The bytes of all buffers on the device after a training step, beside the least by arithmetic: parameters, gradients,
 * moments, inputs and the most values that live at one time.
 */
async function measureMemory(): Promise<Record<string, Record<string, number>>> {
  const figures: Record<string, Record<string, number>> = {};
  for (const { label, choice = {}, thrift = {} } of [...THRIFTS, ...HALVES]) {
    using engine: GpuEngine = await createGpuEngine({ gpu, choice });
    using trainer = await createTrainer(engine, { ...options(), thrift });
    const { peakBytes: bufferBytes } = await watch.count(await stepper(trainer));
    const program = trainProgram(MODEL, INNER.batch, thrift);
    const halves = choice.storage === "f16" ? halfTensors(program) : new Set();
    const { stateBytes, valueBytes } = memoryOf(program, (id) => (halves.has(id) ? 2 : 4));
    const leastBytes = stateBytes + valueBytes;
    const ratio = Number((bufferBytes / leastBytes).toFixed(3));
    figures[label] = { bufferBytes, leastBytes, ratio };
  }
  return figures;
}

/** A small model for a thousand steps: bytes on the device and buffers made, and what the process holds, early and late. */
async function measureSteadiness(): Promise<Record<string, number>> {
  using engine: GpuEngine = await createGpuEngine({ gpu });
  const model = { ...MODEL, vocabulary: 64, channels: 16, layers: 1, heads: 2, kvHeads: 1, hidden: 32, time: 16 };
  using trainer = await createTrainer(engine, { model, inner: { ...INNER, batch: 1 } });
  trainer.load(initialParameters(model));
  const tokens = Uint32Array.from({ length: model.time }, (_, n) => (n * 7) % 64);
  const targets = tokens.map((token) => (token + 7) % 64);
  const figures: Record<string, number> = {};
  let done = 0;
  for (const until of [STEADY_STEPS / 10, STEADY_STEPS]) {
    const { buffers, peakBytes } = await watch.count(async () => {
      for (; done < until; done += 1) {
        await trainer.step({ tokens, targets });
      }
    });
    figures[`bufferBytes up to step ${until}`] = peakBytes;
    figures[`buffers created up to step ${until}`] = buffers;
    figures[`resident MB after step ${until}`] = Math.round(process.memoryUsage().rss / 1e6);
  }
  return figures;
}

/** On a new device, which compiles its kernels first, and once more; as a software adapter has it, and as a GPU, with its large tiles. */
async function timeSelfTest(): Promise<Record<string, { readonly first: number; readonly again: number }>> {
  const figures: Record<string, { readonly first: number; readonly again: number }> = {};
  for (const [label, software] of [
    ["every op", true],
    ["and large tiles", false],
  ] as const) {
    using engine: GpuEngine = await createGpuEngine({ gpu, tuneMsMax: 0 });
    const tested = Object.create(engine, { software: { value: software } }) as GpuEngine;
    const timed = async (): Promise<number> => {
      const begunMs = performance.now();
      await selfTest(tested);
      return rounded(performance.now() - begunMs);
    };
    figures[label] = { first: await timed(), again: await timed() };
  }
  return figures;
}
