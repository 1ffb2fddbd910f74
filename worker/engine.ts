/**
 * Engines of a browser's worker: WebGPU where there is an adapter, WASM from the files of the build, with threads where the
 * page is cross-origin isolated. Which of them is taken is decided by `engines/choose.ts`.
 */
import { HeddleError, present } from "../src/base/assert.ts";
import { chooseEngine, type ChosenEngine, type WantedEngine } from "../src/engines/choose.ts";
import { measureProgram } from "../src/engines/measure.ts";
import { createGpuEngine, probeGpu } from "../src/gpu/engine.ts";
import { selfTest } from "../src/gpu/self-test.ts";
import type { Engine } from "../src/tensor/engine.ts";
import type { Program } from "../src/tensor/program.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import { spawn } from "../src/wasm/spawn-web.ts";
import plainUrl from "../build/heddle.wasm?url";
import threadsUrl from "../build/heddle-threads.wasm?url";

/** More threads than this share too little work each at the sizes that run in browsers. */
const THREADS_MAX = 8;
/** Submits of a training step: keeps each one short enough that the desktop stays smooth. */
const SUBMITS_PER_RUN = 4;

/** Chooses by measuring `program`, whose `output` is read. Throws HeddleError "no-engine" and what engines throw. */
export function openEngine(wanted: WantedEngine, program: Program, output: string): Promise<ChosenEngine> {
  return chooseEngine({
    wanted,
    probeGpu: async () => (navigator.gpu === undefined ? null : probeGpu(navigator.gpu)),
    createGpu: async ({ adapter }) => {
      const gpu = present(navigator.gpu, "the GPU");
      // The self-test has states of its own under the model's names, hence an engine of its own.
      using tested = await createGpuEngine({ gpu });
      await selfTest(tested);
      return createGpuEngine({ gpu, adapter, submitsPerRun: SUBMITS_PER_RUN });
    },
    createWasm: openWasm,
    measure: (engine) => measureProgram(engine, { program, output, nowMs: () => performance.now() }),
  });
}

/** Threads where memory can be shared; one core of more than two is left to the person. */
async function openWasm(): Promise<Engine> {
  const cores = navigator.hardwareConcurrency;
  const threads = Math.min(THREADS_MAX, cores > 2 ? cores - 1 : cores);
  if (self.crossOriginIsolated && threads > 1) {
    return createWasmEngine({ bytes: await load(threadsUrl), threads, spawn });
  }
  return createWasmEngine({ bytes: await load(plainUrl) });
}

async function load(url: string): Promise<ArrayBuffer> {
  const response = await fetch(url).catch(() => undefined);
  if (response?.ok !== true) {
    throw new HeddleError("unreachable", "Cannot load the processor engine: the relay does not answer");
  }
  return response.arrayBuffer();
}
