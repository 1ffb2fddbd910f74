/**
 * Makes the engine that this machine should use, the same way in browsers, Deno and Node: what `choose.ts` decides, with the
 * engines of `gpu/` and `wasm/`. A GPU has to pass the self-test before anything is computed on it.
 */
import { createGpuEngine, probeGpu, type GpuEngineOptions } from "../gpu/engine.ts";
import { selfTest } from "../gpu/self-test.ts";
import type { Engine } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { createWasmEngine, type WasmEngineOptions } from "../wasm/engine.ts";
import { chooseEngine, type ChosenEngine, type WantedEngine } from "./choose.ts";
import { explainPlans } from "./explain.ts";
import { measureProgram } from "./measure.ts";

export interface OpenEngineOptions {
  /** "auto" takes a real GPU where there is one, else WASM; a software GPU adapter only when "webgpu" is asked for. */
  readonly wanted?: WantedEngine;
  /** Where WebGPU is; without it `navigator.gpu`. Node has none of its own: bring that of the package `webgpu`. */
  readonly gpu?: GPU | null;
  /** A Program and one of its outputs: "auto" then takes the GPU only where it runs it faster than WASM does. */
  readonly work?: { readonly program: Program; readonly output: string };
  readonly gpuOptions?: Omit<GpuEngineOptions, "gpu" | "adapter">;
  readonly wasmOptions?: WasmEngineOptions;
  /** Gets the text of every Plan that the engine compiles afterwards. */
  readonly onPlan?: ((text: string) => void) | undefined;
}

/** The engine for this machine. Throws HeddleError "no-engine" when what was asked for by name is not there. */
export async function createEngine(options: OpenEngineOptions = {}): Promise<Engine> {
  return (await openEngine(options)).engine;
}

/** The same, with a sentence that says why it is this one. */
export async function openEngine({
  wanted = "auto",
  gpu = globalThis.navigator?.gpu ?? null,
  work,
  gpuOptions = {},
  wasmOptions = {},
  onPlan,
}: OpenEngineOptions): Promise<ChosenEngine> {
  const { engine, sentence } = await chooseEngine({
    wanted,
    probeGpu: async () => {
      const found = gpu === null ? null : await probeGpu(gpu);
      return found === null || gpu === null ? null : { ...found, gpu };
    },
    createGpu: async ({ gpu: found, adapter }) => {
      // The self-test has states of its own under the model's names, hence an engine of its own.
      using tested = await createGpuEngine({ ...gpuOptions, gpu: found });
      await selfTest(tested);
      return createGpuEngine({ ...gpuOptions, gpu: found, adapter });
    },
    createWasm: () => createWasmEngine(wasmOptions),
    ...(work === undefined
      ? {}
      : { measure: (engine) => measureProgram(engine, { ...work, nowMs: () => performance.now() }) }),
  });
  return { engine: onPlan === undefined ? engine : explainPlans(engine, onPlan), sentence };
}
