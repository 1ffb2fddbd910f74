/**
 * Engines of a browser's worker. Which of them is taken is decided by `engines/choose.ts`.
 */
import type { ChosenEngine, WantedEngine } from "../src/engines/choose.ts";
import { openEngine as open } from "../src/engines/open.ts";
import type { Program } from "../src/tensor/program.ts";

/** Submits of a training step: keeps each one short enough that the desktop stays smooth. */
const SUBMITS_PER_RUN = 4;

/** Chooses by measuring `program`, whose `output` is read. Throws HeddleError "no-engine" and what engines throw. */
export function openEngine(wanted: WantedEngine, program: Program, output: string): Promise<ChosenEngine> {
  return open({ wanted, work: { program, output }, gpuOptions: { submitsPerRun: SUBMITS_PER_RUN } });
}
