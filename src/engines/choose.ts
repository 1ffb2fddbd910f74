/**
 * Which engine a contributor trains on, the same in browsers, Deno and Node: a real GPU where it is faster than this
 * machine's processor in a short measurement, else WASM. A software GPU adapter computes on the processor, slower than WASM
 * does, so it is taken only when WebGPU was asked for by name. How engines are made and measured comes in as arguments.
 */
import { HeddleError } from "../base/assert.ts";
import type { Engine } from "../tensor/engine.ts";

export type WantedEngine = "auto" | "webgpu" | "wasm";

/** What a probe found; `gpu/device.ts` makes one from an adapter. */
export interface GpuFound {
  /** The adapter computes on the CPU. */
  readonly software: boolean;
}

export interface ChooseOptions<Found extends GpuFound> {
  readonly wanted: WantedEngine;
  /** Null where there is no WebGPU or no adapter. */
  readonly probeGpu: () => Promise<Found | null>;
  readonly createGpu: (found: Found) => Promise<Engine>;
  readonly createWasm: () => Promise<Engine>;
  /**
   * Runs per second of a short, typical piece of work; `measureProgram` in `measure.ts` is one. Without it a real GPU is taken
   * to be faster.
   */
  readonly measure?: (engine: Engine) => Promise<number>;
}

export interface ChosenEngine {
  readonly engine: Engine;
  /** Why this one, for people. */
  readonly sentence: string;
}

/** Throws HeddleError "no-engine" when what was asked for by name is not there. The engine not taken is disposed of. */
export async function chooseEngine<Found extends GpuFound>(options: ChooseOptions<Found>): Promise<ChosenEngine> {
  const { wanted, probeGpu, createGpu, createWasm } = options;
  if (wanted === "wasm") {
    return { engine: await createWasm(), sentence: "The processor is used, as asked." };
  }
  const found = await probeGpu().catch(() => null);
  if (wanted === "webgpu") {
    if (found === null) {
      throw new HeddleError("no-engine", "Cannot use WebGPU: there is no WebGPU adapter here");
    }
    return { engine: await createGpu(found), sentence: "WebGPU is used, as asked." };
  }
  if (found === null) {
    return { engine: await createWasm(), sentence: "The processor is used: there is no WebGPU here." };
  }
  if (found.software) {
    const sentence = "The processor is used directly: the only WebGPU adapter here is a slower, software one.";
    return { engine: await createWasm(), sentence };
  }
  return fasterOf(options, found);
}

async function fasterOf<Found extends GpuFound>(options: ChooseOptions<Found>, found: Found): Promise<ChosenEngine> {
  const { measure } = options;
  const gpu = await tryEngine(() => options.createGpu(found), measure ?? (async () => 1));
  if (gpu.engine === null) {
    return { engine: await options.createWasm(), sentence: `The processor is used: the GPU failed (${gpu.reason}).` };
  }
  if (measure === undefined) {
    return { engine: gpu.engine, sentence: "The GPU is used." };
  }
  const wasm = await tryEngine(options.createWasm, measure);
  if (wasm.engine === null) {
    return { engine: gpu.engine, sentence: "The GPU is used." };
  }
  const ratio = gpu.perS / wasm.perS;
  if (ratio >= 1) {
    wasm.engine[Symbol.dispose]();
    return { engine: gpu.engine, sentence: `The GPU is used: it is ${times(ratio)} as fast as the processor here.` };
  }
  gpu.engine[Symbol.dispose]();
  return {
    engine: wasm.engine,
    sentence: `The processor is used: it is ${times(1 / ratio)} as fast as the GPU for a model of this size.`,
  };
}

type Tried = { readonly engine: Engine; readonly perS: number } | { readonly engine: null; readonly reason: string };

/** Makes an engine and measures it; one that fails on the way is disposed of and its reason kept. */
async function tryEngine(create: () => Promise<Engine>, measure: (engine: Engine) => Promise<number>): Promise<Tried> {
  let engine: Engine | undefined;
  try {
    engine = await create();
    return { engine, perS: await measure(engine) };
  } catch (error) {
    engine?.[Symbol.dispose]();
    return { engine: null, reason: error instanceof Error ? error.message : String(error) };
  }
}

function times(ratio: number): string {
  return ratio < 1.15 ? "about" : `${ratio < 10 ? ratio.toFixed(1) : Math.round(ratio)} times`;
}
