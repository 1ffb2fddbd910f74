/**
 * Speed of the WebGPU engine: `npm run bench gpu [PARTS]` prints one JSON object; PARTS are any of peak, matmul, attention,
 * train and counts, all by default. In Node the adapter is Dawn's, on the Vulkan driver that `VK_ICD_FILENAMES` names; Deno runs
 * it as well (`deno run -A --unstable-webgpu --unstable-raw-imports bench/gpu.ts`). Kernels are compared interleaved, within one
 * launch; results are checked before they are timed. A figure is the median of several rounds, with half the distance
 * between the quartiles as its spread, in percent. Compare figures only within one launch, and ratios between machines.
 */
import process from "node:process";
import { assert } from "../src/base/assert.ts";
import { createRng } from "../src/base/rng.ts";
import { climb, gpuRungs, type Rung } from "../src/engines/ladder.ts";
import { STEP_INNER as INNER, STEP_MODEL as MODEL } from "../src/engines/task.ts";
import { attentionWork, matmulWork, type Work } from "../src/engines/works.ts";
import { createGpuEngine, probeGpu, type GpuEngine } from "../src/gpu/engine.ts";
import type { KernelChoice } from "../src/gpu/kernels.ts";
import { measurePeak } from "../src/gpu/peak.ts";
import { initialParameters } from "../src/model/layout.ts";
import { createTrainer, type Trainer } from "../src/model/trainer.ts";
import type { InnerConfig, ModelConfig } from "../src/protocol/charter.ts";

const SHAPES = [
  { m: 256, n: 256, k: 256 },
  { m: 512, n: 512, k: 512 },
  { m: 1024, n: 1024, k: 1024 },
  { m: 1024, n: 384, k: 1536 },
];
/** The naive product is there to be believed; at larger sizes one run takes seconds. */
const NAIVE_FLOPS_MAX = 2 * 256 ** 3;
const ROUNDS = 5;
const TRAIN_ROUNDS = 3;

const gpu = globalThis.navigator?.gpu ?? (await openDawn());
const parts = process.argv.slice(2);
const wants = (part: string): boolean => parts.length === 0 || parts.includes(part);
const found = await probeGpu(gpu);
if (found === null) {
  const hint = "name a Vulkan driver in VK_ICD_FILENAMES, for example /usr/lib/chromium/vk_swiftshader_icd.json";
  process.stderr.write(`Cannot measure: there is no WebGPU adapter here; ${hint}\n`);
  process.exit(1);
}
const results: Record<string, unknown> = { adapter: found.identity.trim() };
if (wants("peak")) {
  results["multiply-add loop, GFLOP/s"] = await measurePeak(gpu);
}
if (wants("matmul")) {
  Object.assign(results, await climbAll(SHAPES.map(matmulWork)));
}
if (wants("attention")) {
  const works = [256, 512].flatMap((time) => [attentionWork(time, "forward"), attentionWork(time, "backward")]);
  Object.assign(results, await climbAll(works));
}
if (wants("train")) {
  results["train step, tokens/s"] = await compareTraining();
}
if (wants("counts")) {
  results["one training step"] = await countStep();
}
// Dawn keeps the process alive, so it has to be ended once the figures are out.
process.stdout.write(`${JSON.stringify(results, null, 2)}\n`, () => process.exit(0));

async function openDawn(): Promise<GPU> {
  const { create, globals } = await import("webgpu");
  // The object must stay reachable: its collection ends Dawn under the devices.
  const dawn = create([]);
  Object.assign(globalThis, globals, { gpuInUse: dawn });
  return dawn;
}

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

/** GFLOP/s on every rung, by work: a median with its spread, or what is wrong with it. */
async function climbAll(works: readonly Work[]): Promise<Record<string, Record<string, Rate | string>>> {
  using engine = await createGpuEngine({ gpu });
  const rungsFor = (work: Work): Rung[] =>
    gpuRungs(engine, work.family).filter(({ label }) => label !== "naive" || work.flops <= NAIVE_FLOPS_MAX);
  const readings = await climb(works, rungsFor, { nowMs: () => performance.now(), rounds: ROUNDS });
  const figures: Record<string, Record<string, Rate | string>> = {};
  for (const reading of readings) {
    const rates = (figures[`${reading.work}, GFLOP/s`] ??= {});
    rates[reading.rung] = reading.type === "measured" ? rateOf(reading) : `${reading.type}: ${reading.detail}`;
  }
  return figures;
}

function rateOf({ rate, spread }: { readonly rate: number; readonly spread: number }): Rate {
  return { median: Number(rate.toPrecision(3)), spreadPercent: Math.round(100 * spread) };
}

/** Whole training steps, loss read back, with the engine's own kernels and with some of them taken away. */
async function compareTraining(): Promise<Record<string, Rate>> {
  const choices: readonly (readonly [string, Partial<KernelChoice>])[] = [
    ["auto", {}],
    ["not fused", { fusion: "none" }],
    ["not fused, register products, flash attention", { fusion: "none", matmul: "register", attention: "flash" }],
  ];
  using stack = new DisposableStack();
  const runners: Runner[] = [];
  for (const [label, choice] of choices) {
    const trainer = stack.use(await createTrainer(stack.use(await createGpuEngine({ gpu, choice })), options()));
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
  const found = await probeGpu(gpu);
  assert(found !== null, "Cannot count: there is no adapter");
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
  const request = found.adapter.requestDevice.bind(found.adapter);
  const requestDevice = async (descriptor?: GPUDeviceDescriptor): Promise<GPUDevice> => {
    const device = await request(descriptor);
    count(device, "createBuffer", (buffer) => {
      bytes += (buffer as GPUBuffer).size;
      count(buffer as object, "mapAsync");
    });
    ["createBindGroup", "createComputePipelineAsync", "createShaderModule"].forEach((name) => count(device, name));
    count(device, "createCommandEncoder", (encoder) => {
      count(encoder as object, "beginComputePass", (pass) => count(pass as object, "dispatchWorkgroups"));
    });
    ["submit", "writeBuffer"].forEach((name) => count(device.queue, name));
    return device;
  };
  Object.defineProperty(found.adapter, "requestDevice", { value: requestDevice });
  using engine: GpuEngine = await createGpuEngine({ gpu, adapter: found.adapter });
  using trainer = await createTrainer(engine, options());
  const step = await stepper(trainer);
  const before = { ...calls };
  await step();
  const made = Object.entries(calls).map(([name, total]) => [name, total - (before[name] ?? 0)] as const);
  return { ...Object.fromEntries(made), bufferBytes: bytes };
}
