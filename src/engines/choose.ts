/**
 * Which engine a contributor trains on, the same in browsers, Deno and Node: a real GPU where it is faster than this
 * machine's processor in a short measurement, else WASM. A software GPU adapter computes on the processor, slower than WASM
 * does, so it is taken only when WebGPU was asked for by name. How engines are made and measured comes in as arguments.
 *
 * A GPU takes its time: its kernels are compiled and tested first. Who cannot wait begins on WASM and is told how to open the
 * GPU meanwhile.
 */
import { HeddleError, messageIn } from "../base/assert.ts";
import { atOnce, type InTurn } from "../base/turn.ts";
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
  /** Whatever it times, it times in turn. */
  readonly createGpu: (found: Found, inTurn: InTurn) => Promise<Engine>;
  readonly createWasm: () => Promise<Engine>;
  /**
   * Runs per second of a short, typical piece of work; `measureProgram` in `measure.ts` is one. Without it a real GPU is taken
   * to be faster. What it times, it times in turn.
   */
  readonly measure?: (engine: Engine, inTurn: InTurn) => Promise<number>;
}

export interface ChosenEngine {
  readonly engine: Engine;
  /** Why this one, for people. */
  readonly sentence: string;
}

/** Opens an engine beside another that works: what is timed waits for its turn. */
export type OpenBeside = (inTurn: InTurn) => Promise<ChosenEngine>;

export interface BegunEngine extends ChosenEngine {
  /** Opens the engine to go over to, which may come out as WASM again; null where `engine` is the one to stay on. */
  readonly ahead: OpenBeside | null;
}

/**
 * Throws HeddleError "no-engine" when what was asked for by name is not there. The engine not taken is disposed of. `inTurn`
 * keeps others from computing while engines are timed.
 */
export async function chooseEngine<Found extends GpuFound>(
  options: ChooseOptions<Found>,
  inTurn = atOnce,
): Promise<ChosenEngine> {
  const plan = await planFor(options);
  return plan.type === "wasm" ? { engine: await options.createWasm(), sentence: plan.sentence } : plan.open(inTurn);
}

/** The same for who begins at once: on WASM, where that is possible, while the GPU is opened. */
export async function beginEngine<Found extends GpuFound>(options: ChooseOptions<Found>): Promise<BegunEngine> {
  // Looking for a GPU may take as long as making WASM ready.
  const [planned, made] = await Promise.allSettled([planFor(options), options.createWasm()]);
  if (planned.status === "rejected") {
    if (made.status === "fulfilled") {
      made.value[Symbol.dispose]();
    }
    throw planned.reason;
  }
  const plan = planned.value;
  if (made.status === "fulfilled") {
    const [sentence, ahead] = plan.type === "wasm" ? [plan.sentence, null] : [BEGUN, plan.open];
    return { engine: made.value, sentence, ahead };
  }
  if (plan.type === "wasm") {
    throw made.reason;
  }
  return { ...(await plan.open(atOnce)), ahead: null }; // a GPU may do without WASM
}

/** Said by who begins on WASM while the GPU is opened. */
export const BEGUN = "The processor trains while the GPU gets ready.";

/** WASM to stay on, or a GPU that is to be opened, and perhaps measured, before it is known what to stay on. */
type EnginePlan =
  | { readonly type: "wasm"; readonly sentence: string }
  | { readonly type: "gpu"; readonly open: OpenBeside };

async function planFor<Found extends GpuFound>(options: ChooseOptions<Found>): Promise<EnginePlan> {
  const { wanted, probeGpu, createGpu } = options;
  if (wanted === "wasm") {
    return { type: "wasm", sentence: "The processor is used, as asked." };
  }
  const found = await probeGpu().catch(() => null);
  if (wanted === "webgpu") {
    if (found === null) {
      throw new HeddleError("no-engine", "Cannot use WebGPU: there is no WebGPU adapter here");
    }
    const sentence = "WebGPU is used, as asked.";
    return { type: "gpu", open: async (inTurn) => ({ engine: await createGpu(found, inTurn), sentence }) };
  }
  if (found === null) {
    return { type: "wasm", sentence: "The processor is used: there is no WebGPU here." };
  }
  if (found.software) {
    const sentence = "The processor is used directly: the only WebGPU adapter here is a slower, software one.";
    return { type: "wasm", sentence };
  }
  return { type: "gpu", open: (inTurn) => fasterOf(options, found, inTurn) };
}

async function fasterOf<Found extends GpuFound>(
  options: ChooseOptions<Found>,
  found: Found,
  inTurn: InTurn,
): Promise<ChosenEngine> {
  const measure = async (engine: Engine): Promise<number> => options.measure?.(engine, inTurn) ?? 1;
  const gpu = await tryEngine(() => options.createGpu(found, inTurn), measure);
  if (gpu.engine === null) {
    return { engine: await options.createWasm(), sentence: `The processor is used: the GPU failed (${gpu.reason}).` };
  }
  if (options.measure === undefined) {
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
    return { engine: null, reason: messageIn(error) };
  }
}

function times(ratio: number): string {
  return ratio < 1.15 ? "about" : `${ratio < 10 ? ratio.toFixed(1) : Math.round(ratio)} times`;
}
