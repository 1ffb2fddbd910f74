/**
 * Makes the engine that this machine should use, the same way in browsers, Deno and Node: what `choose.ts` decides, with the
 * engines of `gpu/` and `wasm/`. A GPU has to pass the self-test before anything is computed on it.
 */
import { HeddleError } from "../base/assert.ts";
import { atOnce, createTurn, type InTurn } from "../base/turn.ts";
import { createGpuEngine, probeGpu, type GpuEngineOptions } from "../gpu/engine.ts";
import { selfTest } from "../gpu/self-test.ts";
import { barredHere, circumstancesOf } from "../gpu/tried.ts";
import { systemClock } from "../net/system-clock.ts";
import type { Engine } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { createWasmEngine, type WasmEngineOptions } from "../wasm/engine.ts";
import {
  beginEngine as begin,
  chooseEngine,
  type BegunEngine,
  type ChooseOptions,
  type ChosenEngine,
  type GpuFound,
  type WantedEngine,
} from "./choose.ts";
import { explainPlans } from "./explain.ts";
import { measureProgram, type MeasureOptions } from "./measure.ts";
import { proveEngine } from "./prove.ts";
import { inTime, keepBeside, readTuned, type Tunings } from "./tunings.ts";

export interface OpenEngineOptions {
  /** "auto" takes a real GPU where there is one, else WASM; a software GPU adapter only when "webgpu" is asked for. */
  readonly wanted?: WantedEngine;
  /** Where WebGPU is; without it `navigator.gpu`. Node has none of its own: bring that of the package `webgpu`. */
  readonly gpu?: GPU | null;
  /**
   * A Program and one of its outputs: "auto" then takes the GPU only where it runs it faster than WASM does, and the self-test
   * runs beside the first compile, which rejects when the device fails it; the search for kernels comes after the test.
   * `instead` is measured on what has no room for it.
   */
  readonly work?: Pick<MeasureOptions, "program" | "instead" | "output">;
  readonly gpuOptions?: Omit<GpuEngineOptions, "gpu" | "adapter">;
  /** Fused unless it says otherwise. */
  readonly wasmOptions?: WasmEngineOptions;
  /** Where the tuner's choices are kept from one start to the next; any place for a text will do. */
  readonly tunings?: Tunings | undefined;
  /** Gets the text of every Plan that the engine compiles afterwards. */
  readonly onPlan?: ((text: string) => void) | undefined;
}

/** The engine for this machine. Throws HeddleError "no-engine" when what was asked for by name is not there. */
export async function createEngine(options: OpenEngineOptions = {}): Promise<Engine> {
  return (await openEngine(options)).engine;
}

/** The same, with a sentence that says why it is this one. What is timed waits for its turn. */
export async function openEngine(options: OpenEngineOptions, inTurn: InTurn = atOnce): Promise<ChosenEngine> {
  return explained(await chooseEngine(choicesFor(options), inTurn), options);
}

/** An engine to begin with at once, and how to open the one to go over to, if there is one. Throws as `openEngine` does. */
export async function beginEngine(options: OpenEngineOptions): Promise<BegunEngine> {
  const begun = await begin(choicesFor(options));
  const { ahead } = begun;
  return {
    ...explained(begun, options),
    ahead: ahead === null ? null : async (inTurn) => explained(await ahead(inTurn), options),
  };
}

function explained({ engine, sentence }: ChosenEngine, { onPlan }: OpenEngineOptions): ChosenEngine {
  return { engine: onPlan === undefined ? engine : explainPlans(engine, onPlan), sentence };
}

/** Two engines on one adapter, for training and for writing, keep what they tried in the same place. */
const keepingInTurn = createTurn();

/** So long a search waits for the store, which others wait for. */
const KEEP_MS_MAX = 300;

/** Keeps something when its turn comes; resolves when that is done, or takes too long. */
async function keepPatiently(keep: () => Promise<void>): Promise<void> {
  await inTime(keepingInTurn(keep), undefined, KEEP_MS_MAX, systemClock);
}

interface Found extends GpuFound {
  readonly gpu: GPU;
  readonly adapter: GPUAdapter;
  readonly identity: string;
}

function choicesFor({
  wanted = "auto",
  gpu = globalThis.navigator?.gpu ?? null,
  work,
  gpuOptions = {},
  wasmOptions = {},
  tunings,
}: OpenEngineOptions): ChooseOptions<Found> {
  /** An adapter can be opened once; a second engine finds its own. */
  const opened = new WeakSet<GPUAdapter>();
  return {
    wanted,
    probeGpu: async () => {
      const found = gpu === null ? null : await probeGpu(gpu);
      return found === null || gpu === null ? null : { ...found, gpu };
    },
    createGpu: async ({ gpu: found, adapter, identity }, inTurn) => {
      const here = circumstancesOf(identity);
      const kept = await readTuned(tunings, here, systemClock);
      /** Kernels that a search found here computed wrong numbers, as far as is known: there is none any more. */
      let { barred } = kept;
      const keep = tunings === undefined ? undefined : keepBeside(tunings, here);
      // The self-test computes as well; who waits for it does so before the turn, so that others compute meanwhile.
      const searchInTurn: InTurn = async (search) => {
        await verdict;
        if (barred) {
          throw new HeddleError("device-wrong", "Cannot search for kernels: those that a search found here were wrong");
        }
        return inTurn(search);
      };
      const { engine, verdict } = await proveEngine({
        tuned: kept.tuned,
        create: async (tuned) => {
          const first = opened.has(adapter) ? {} : { adapter };
          opened.add(adapter);
          // An engine that is thrown away with its tuning has no more to say.
          const onTuned = async (text: string): Promise<void> =>
            barred ? undefined : keepPatiently(async () => keep?.(text));
          const searching = barred ? { tuneMsMax: 0 } : {};
          const own = { ...withTuning(tuned), onTuned, ...gpuOptions, ...searching };
          return createGpuEngine({ ...own, gpu: found, ...first, inTurn: searchInTurn });
        },
        test: (tuned) => testDevice({ ...withTuning(tuned), ...gpuOptions, gpu: found }, work?.program),
        bar: async () => {
          barred = true;
          await keepPatiently(async () => tunings?.write(identity, barredHere(here)));
        },
      });
      void verdict.then(
        () => performance.mark("heddle self-test"),
        () => undefined, // whoever compiles sees it
      );
      if (work === undefined) {
        await verdict;
      }
      return engine;
    },
    createWasm: () => createWasmEngine({ fused: true, ...wasmOptions }),
    ...(work === undefined
      ? {}
      : {
          measure: (engine, inTurn) => measureProgram(engine, { ...work, nowMs: () => performance.now(), inTurn }),
        }),
  };
}

/** The self-test has states of its own under the model's names, hence a device of its own. It searches for no kernels. */
async function testDevice({ pace: _pace, ...options }: GpuEngineOptions, work: Program | undefined): Promise<void> {
  using tested = await createGpuEngine({ ...options, tuneMsMax: 0 });
  const attention = work?.ops.find((op) => op.type === "attention");
  await selfTest(tested, { storage: options.choice?.storage, headDim: attention?.headDim });
}

function withTuning(tuned: string | undefined): Pick<GpuEngineOptions, "tuned"> {
  return tuned === undefined ? {} : { tuned };
}
