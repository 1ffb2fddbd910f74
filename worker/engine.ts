/**
 * Engines of a browser's worker. Which of them is taken is decided by `engines/choose.ts`.
 */
import type { InTurn } from "../src/base/turn.ts";
import type { BegunEngine, ChosenEngine, WantedEngine } from "../src/engines/choose.ts";
import { gpuMemoryLimit } from "../src/engines/memory.ts";
import { beginEngine as begin, openEngine as open, type OpenEngineOptions } from "../src/engines/open.ts";
import type { Tunings } from "../src/engines/tunings.ts";
import type { Pace } from "../src/tensor/engine.ts";
import type { Program } from "../src/tensor/program.ts";

export interface OpenOptions {
  /** The output of the measured Program that is read. */
  readonly output: string;
  /** Measured where a device has no room for the Program. */
  readonly instead?: Program;
  /** How the engine's runs are cut and paused; without it they are not. */
  readonly pace?: Pace;
  /** Where the engine's choices are kept; undefined where nothing can be kept. */
  readonly tunings: Tunings | undefined;
}

/** Chooses by measuring `program`. Throws HeddleError "no-engine" and what engines throw. */
export function openEngine(
  wanted: WantedEngine,
  program: Program,
  options: OpenOptions,
  inTurn?: InTurn,
): Promise<ChosenEngine> {
  return open(optionsFor(wanted, program, options), inTurn);
}

/** The same for who begins at once, on the processor while a GPU is opened. */
export function beginEngine(wanted: WantedEngine, program: Program, options: OpenOptions): Promise<BegunEngine> {
  return begin(optionsFor(wanted, program, options));
}

function optionsFor(
  wanted: WantedEngine,
  program: Program,
  { pace, tunings, ...work }: OpenOptions,
): OpenEngineOptions {
  // One core stays the person's while a page is open, also of two: what draws it must not wait for ours.
  const wasmOptions = navigator.hardwareConcurrency > 2 ? {} : { threads: 1 };
  return {
    wanted,
    work: { program, ...work },
    gpuOptions: { ...(pace === undefined ? {} : { pace }), memoryBytesMax: gpuMemoryLimit(navigator) },
    wasmOptions,
    tunings,
  };
}
