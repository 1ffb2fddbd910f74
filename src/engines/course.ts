/**
 * The benchmark that a visitor's machine runs on the public page: what the device says of itself, the speed it reaches in a
 * bare loop, the kernel ladder with the WASM engine beside it, and whole training steps. It tells what happens as plain
 * events, so that it runs in a worker; it may be stopped between any two submits, none of which should take long.
 */
import { messageIn, present } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { createGpuEngine, probeGpu, type GpuEngine } from "../gpu/engine.ts";
import { measurePeak, type Peak } from "../gpu/peak.ts";
import type { Engine } from "../tensor/engine.ts";
import { createWasmEngine, type WasmEngineOptions } from "../wasm/engine.ts";
import { climb, engineRung, gpuRungs, measureStep, type Reading, type Rung } from "./ladder.ts";
import { createPace, SUBMIT_MS_MAX } from "./pace.ts";
import { attentionWork, matmulWork, type Work } from "./works.ts";

/** What a WebGPU adapter says of itself. */
export interface GpuFacts {
  readonly description: string;
  readonly identity: string;
  readonly software: boolean;
  readonly features: readonly string[];
  /** Sizes in bytes, by their names in WebGPU. */
  readonly limits: Readonly<Record<string, number>>;
}

export type CourseEvent =
  | { readonly type: "gpu"; readonly gpu: GpuFacts | null; readonly sentence: string }
  | { readonly type: "wasm"; readonly device: string }
  | { readonly type: "progress"; readonly sentence: string; readonly done: number; readonly total: number }
  | { readonly type: "peak"; readonly peak: Peak }
  | { readonly type: "reading"; readonly reading: Reading }
  | { readonly type: "fault"; readonly sentence: string }
  | { readonly type: "end"; readonly stopped: boolean };

export interface CourseOptions {
  readonly gpu: GPU | null;
  readonly length: Length;
  readonly clock: Clock;
  readonly nowMs: () => number;
  readonly signal: { readonly aborted: boolean };
  readonly tell: (event: CourseEvent) => void;
  readonly wasmOptions?: WasmEngineOptions;
}

/** What is measured: sizes of square products, tokens of attention and of its backward, training steps or not. */
export const LENGTHS = {
  full: { sizes: [256, 512, 1024, 2048], times: [256, 512, 1024], backward: [256, 512], trains: true, rounds: 5 },
  quick: { sizes: [256, 512], times: [256], backward: [], trains: false, rounds: 5 },
  smallest: { sizes: [64], times: [64], backward: [], trains: false, rounds: 1 },
} as const;

export type Length = keyof typeof LENGTHS;

/** Larger works would keep a thread of a phone busy for many seconds. */
const WASM_FLOPS_MAX = 2 * 1024 ** 3;
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxStorageBuffersPerShaderStage",
] as const;

export async function runCourse(options: CourseOptions): Promise<void> {
  const { length, nowMs, signal, tell } = options;
  const { sizes, times, backward, trains, rounds } = LENGTHS[length];
  const works = [
    ...sizes.map((size) => matmulWork({ m: size, n: size, k: size })),
    ...times.map((time) => attentionWork(time, "forward")),
    ...backward.map((time) => attentionWork(time, "backward")),
  ];
  using gpu = await openGpu(options);
  using wasm = await openWasm(options);
  const trained = !trains ? [] : (["webgpu", "wasm"] as const).filter((kind) => (kind === "wasm" ? wasm : gpu));
  const total = (gpu === null ? 0 : 1) + works.length + trained.length;
  let done = 0;
  const next = (sentence: string): void => {
    tell({ type: "progress", sentence, done, total });
    done += 1;
  };
  if (gpu !== null && options.gpu !== null) {
    next("Measuring the multiply-add loop");
    const { gpu: found } = options;
    await attempt(tell, async () => tell({ type: "peak", peak: await measurePeak(found) }));
  }
  const rungsFor = (work: Work): Rung[] => [
    ...(gpu === null ? [] : gpuRungs(gpu, work.family)),
    ...(wasm === null || work.flops > WASM_FLOPS_MAX ? [] : [engineRung("wasm", wasm)]),
  ];
  await climb(works, rungsFor, {
    nowMs,
    rounds,
    submitMsMax: SUBMIT_MS_MAX,
    signal,
    onWork: ({ name }) => next(`Checking and measuring ${name}`),
    onReading: (reading) => tell({ type: "reading", reading }),
  });
  for (const kind of trained) {
    if (!signal.aborted) {
      next(`Training on ${kind === "webgpu" ? "the GPU" : "the processor"}`);
      await attempt(tell, async () => {
        using paced = kind === "webgpu" ? await openPaced(options) : null;
        const engine = paced ?? present(wasm, "the WASM engine");
        const reading = await measureStep(kind, engine, { nowMs, rounds, signal });
        if (reading !== null) {
          tell({ type: "reading", reading });
        }
      });
    }
  }
  tell({ type: "end", stopped: signal.aborted });
}

/** Tells what there is, and opens it. Null, with a sentence, where there is none or it cannot be opened. */
async function openGpu({ gpu, tell }: CourseOptions): Promise<GpuEngine | null> {
  const found = gpu === null ? null : await probeGpu(gpu);
  if (gpu === null || found === null) {
    const why = gpu === null ? "This browser has no WebGPU" : "This browser has WebGPU and no adapter for it";
    tell({ type: "gpu", gpu: null, sentence: `${why}: the WASM engine is measured alone.` });
    return null;
  }
  const { adapter, description, identity, software } = found;
  const limits = Object.fromEntries(LIMITS.map((name) => [name, Number(adapter.limits[name])]));
  const facts = { description, identity: identity.trim(), software, features: [...adapter.features].sort(), limits };
  const sentence = software
    ? "This adapter is a program that computes on the processor: expect a small part of what WASM does."
    : "";
  tell({ type: "gpu", gpu: facts, sentence });
  const engine = await attempt(tell, () => createGpuEngine({ gpu, adapter }));
  return engine ?? null;
}

/** An engine that cuts a step into submits, each one short. Kernels are measured on one that does not: they are single. */
function openPaced({ gpu, clock }: CourseOptions): Promise<GpuEngine> {
  return createGpuEngine({ gpu: present(gpu, "the GPU"), pace: createPace({ clock, duty: () => 1 }) });
}

async function openWasm({ wasmOptions, tell }: CourseOptions): Promise<Engine | null> {
  const engine = await attempt(tell, () => createWasmEngine({ fused: true, ...wasmOptions }));
  if (engine === undefined) {
    return null;
  }
  tell({ type: "wasm", device: engine.device });
  return engine;
}

/** What `work` gives; a failure becomes an event, and what can go on goes on. */
async function attempt<T>(tell: CourseOptions["tell"], work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    tell({ type: "fault", sentence: messageIn(error) });
    return undefined;
  }
}
