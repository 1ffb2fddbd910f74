/**
 * Speed of the WebGPU engine: `npm run bench gpu [PARTS]` prints one JSON object; PARTS are any of matmul, attention, train
 * and counts, all by default. In Node the adapter is Dawn's, on the Vulkan driver that `VK_ICD_FILENAMES` names; Deno runs
 * it as well (`deno run -A --unstable-webgpu --unstable-raw-imports bench/gpu.ts`). Kernels are compared interleaved, within one
 * launch; results are checked before they are timed. A figure is the median of several rounds, with half the distance
 * between the quartiles as its spread, in percent. Compare figures only within one launch, and ratios between machines.
 */
import process from "node:process";
import { assert } from "../src/base/assert.ts";
import { createRng } from "../src/base/rng.ts";
import { createGpuEngine, probeGpu, type GpuEngine } from "../src/gpu/engine.ts";
import type { KernelChoice } from "../src/gpu/kernels.ts";
import { MATMUL_RUNGS } from "../src/gpu/matmul.ts";
import type { GpuPlan } from "../src/gpu/plan.ts";
import { initialParameters } from "../src/model/layout.ts";
import { createTrainer, type Trainer } from "../src/model/trainer.ts";
import type { Program } from "../src/tensor/program.ts";
import { record } from "../src/tensor/record.ts";
import { createTwin } from "../src/tensor/twin.ts";
import type { InnerConfig, ModelConfig } from "../src/protocol/charter.ts";
import { INNER, MODEL } from "./task.ts";

const SHAPES = [
  { m: 256, n: 256, k: 256 },
  { m: 512, n: 512, k: 512 },
  { m: 1024, n: 1024, k: 1024 },
  { m: 1024, n: 384, k: 1536 },
];
/** The naive product is there to be believed; at larger sizes one run takes seconds. */
const NAIVE_MAX = 256;
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
if (wants("matmul")) {
  for (const shape of SHAPES) {
    results[`matmul ${shape.m}×${shape.k}·${shape.k}×${shape.n}, GFLOP/s`] = await compareMatmuls(shape);
  }
}
if (wants("attention")) {
  for (const time of [256, 512]) {
    results[`attention T ${time}, GFLOP/s of the full square`] = await compareAttentions(time, "forward");
    results[`attention backward T ${time}, GFLOP/s of the full square`] = await compareAttentions(time, "backward");
  }
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

/** `program` on an engine for each choice, with the same inputs; outputs must be within 1e-4 of the largest `expected`. */
async function comparePlans(
  program: Program,
  choices: readonly (readonly [string, Partial<KernelChoice>])[],
  { expected, work }: { readonly expected: ReadonlyMap<string, (at: number) => number>; readonly work: number },
): Promise<Record<string, Rate>> {
  await using stack = new AsyncDisposableStack();
  const runners: Runner[] = [];
  for (const [label, choice] of choices) {
    const engine = stack.use(await createGpuEngine({ gpu, choice }));
    const plan: GpuPlan = stack.use(await engine.compile(program));
    for (const { name, shape, role } of program.tensors) {
      if (role === "input") {
        plan.write(name, inputOf(name, shape));
      }
    }
    const outputs = await plan.run([...expected.keys()]);
    for (const [output, value] of expected) {
      const got = outputs[output] ?? new Float32Array();
      for (let at = 0; at < got.length; at += 997) {
        const [a, b] = [got[at] as number, value(at)];
        assert(
          Math.abs(a - b) <= 1e-4 * Math.max(1, Math.abs(b)),
          `Cannot time ${label}: element ${at} is ${a}, not ${b}`,
        );
      }
    }
    runners.push({ label, run: () => plan.run().then(() => plan.idle()) });
  }
  return await rates(runners, work, ROUNDS);
}

function inputOf(name: string, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const rng = createRng("bench", name);
  return Float32Array.from({ length: shape.reduce((all, length) => all * length, 1) }, () => rng.float() - 0.5);
}

/** x · wᵀ on every rung. */
async function compareMatmuls({ m, n, k }: { m: number; n: number; k: number }): Promise<Record<string, Rate>> {
  const r = record("matmul");
  r.matmul(r.input("x", [m, k]), r.input("w", [n, k]), { transB: true });
  const [x, w] = [inputOf("x", [m, k]), inputOf("w", [n, k])];
  const value = (at: number): number => {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let i = 0; i < k; i += 1) {
      sum += (x[row * k + i] as number) * (w[column * k + i] as number);
    }
    return sum;
  };
  const rungs = MATMUL_RUNGS.filter((rung) => rung !== "naive" || m <= NAIVE_MAX);
  const choices = rungs.map((matmul) => [matmul, { matmul }] as const);
  const work = (2 * m * n * k) / 1e9;
  return await comparePlans(r.finish(["product"]), choices, { expected: new Map([["product", value]]), work });
}

/** Causal attention of 6 heads of width 64, as if every query saw every key: 4·H·T²·D, backward 2.5 times that. */
async function compareAttentions(time: number, way: "forward" | "backward"): Promise<Record<string, Rate>> {
  const heads = { batch: 1, time, heads: 6, kvHeads: 6, headDim: 64 };
  const shape = [time, heads.heads * heads.headDim];
  const r = record("attention");
  const [q, k, v] = [r.input("q", shape), r.input("k", shape), r.input("v", shape)];
  let outputs = ["attended"];
  if (way === "forward") {
    r.attention(q, k, v, heads);
  } else {
    const [out, dout, lse] = [r.input("out", shape), r.input("dout", shape), r.input("lse", [heads.heads * time])];
    const [dq, dk, dv] = [r.value("dq", shape), r.value("dk", shape), r.value("dv", shape)];
    const delta = r.value("delta", [heads.heads * time]);
    r.push({ type: "attentionBackward", q, k, v, out, lse, dout, delta, dq, dk, dv, ...heads });
    outputs = ["dq", "dk", "dv"];
  }
  const program = r.finish(outputs);
  using twin = createTwin();
  using reference = await twin.compile(program);
  for (const { name, shape: size, role } of program.tensors) {
    if (role === "input") {
      reference.write(name, inputOf(name, size));
    }
  }
  const values = await reference.run(outputs);
  const expected = new Map(outputs.map((output) => [output, (at: number) => values[output]?.[at] ?? Number.NaN]));
  const work = (4 * heads.heads * time ** 2 * heads.headDim * (way === "forward" ? 1 : 2.5)) / 1e9;
  const choices = [
    ["flash", { attention: "flash" }],
    ["rows", { attention: "rows" }],
  ] as const;
  return await comparePlans(program, choices, { expected, work });
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
