/**
 * Engines of a browser's worker. Which of them is taken is decided by `engines/choose.ts`.
 */
import type { ChosenEngine, WantedEngine } from "../src/engines/choose.ts";
import { openEngine as open } from "../src/engines/open.ts";
import type { Tunings } from "../src/engines/tunings.ts";
import type { Pace } from "../src/tensor/engine.ts";
import type { Program } from "../src/tensor/program.ts";

export interface OpenOptions {
  /** The output of the measured Program that is read. */
  readonly output: string;
  /** How the engine's runs are cut and paused; without it they are not. */
  readonly pace?: Pace;
  /** Where the engine's choices are kept; undefined where nothing can be kept. */
  readonly tunings: Tunings | undefined;
}

/** Chooses by measuring `program`. Throws HeddleError "no-engine" and what engines throw. */
export function openEngine(
  wanted: WantedEngine,
  program: Program,
  { output, pace, tunings }: OpenOptions,
): Promise<ChosenEngine> {
  // One core stays the person's while a page is open, also of two: what draws it must not wait for ours.
  const wasmOptions = navigator.hardwareConcurrency > 2 ? {} : { threads: 1 };
  return open({
    wanted,
    work: { program, output },
    gpuOptions: pace === undefined ? {} : { pace },
    wasmOptions,
    tunings,
  });
}
