/**
 * One run: an arm with a seed, from nothing or from where it was cut off, to its record. Called in the process that wants it
 * (tests) or in a process of its own (`job-process.ts`).
 */
import type { Engine } from "../src/tensor/engine.ts";
import type { Arm } from "./experiment.ts";
import { runFederated } from "./federated.ts";
import { createIdle } from "./idle.ts";
import type { Journal } from "./journal.ts";
import type { OnPoint, RunRecord } from "./record.ts";
import { shareEngine } from "./seats.ts";
import { createSetting } from "./setting.ts";
import { readSources, type Source } from "./sources.ts";
import { runSynchronous } from "./synchronous.ts";

export interface Job {
  readonly experiment: string;
  readonly arm: Arm;
  readonly seed: number;
}

export interface JobOptions {
  /** Becomes the run's and is freed at its end. */
  readonly engine: Engine;
  readonly journal?: Journal;
  readonly onPoint?: OnPoint;
  readonly sources?: readonly Source[];
}

/** Throws BrokenRun when something that must hold does not, HeddleError "bad-input" for an arm that cannot be run. */
export async function runJob(
  { experiment, arm, seed }: Job,
  { engine, journal, onPoint = () => undefined, sources = readSources(arm.sources) }: JobOptions,
): Promise<RunRecord> {
  const setting = createSetting(arm, seed, sources);
  const idle = createIdle();
  const seats = shareEngine({ engine, idle, journal });
  try {
    const run = arm.way === "federated" ? runFederated : runSynchronous;
    const { points, sums } = await run({ setting, seats, idle, onPoint });
    return { experiment, arm, seed, parameters: setting.initial.length, points, sums };
  } finally {
    seats[Symbol.dispose]();
  }
}
