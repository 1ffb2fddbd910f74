/** What an arm will cost, by arithmetic: six operations a parameter and token, and what judging and evaluating add. */
import { parameterLayout } from "../src/model/layout.ts";
import type { Arm, Experiment } from "./experiment.ts";

/**
 * Operations a second of one thread of the WASM engine in training, everything of a run included: the sample model in
 * `npm run experiment -- sample-iid`, on the 2-core machine of docs/benchmarks.md, 2026-11-28.
 */
const FLOPS = 31e9;
/** A batch's loss costs a third of its step. */
const FORWARD_SHARE = 1 / 3;
/** Batches that a validator measures, and that the referee reads for a version and each of its sources. */
const [JUDGED, EVALUATED] = [4, 8];

/** Steps of all contributors, lost ones included. */
export function stepsOf({ contributors, rounds, charter, vanishShare, tokensMax }: Arm): number {
  const { inner, model, round } = charter;
  const whole = rounds * contributors * round.stepsMax;
  const wanted = tokensMax === null ? whole : tokensMax / (inner.batch * model.time);
  return Math.min(whole, wanted / (1 - vanishShare / 2)); // who vanishes does half of its steps
}

/** Processor time of making, packing, checking and merging one update, a parameter. */
const UPDATE_S = 2e-7;

export function processorSOf(arm: Arm): number {
  const { contributors, charter, way, sources } = arm;
  if (arm.work === "noise") {
    return UPDATE_S * parameterLayout(charter.model).size * contributors * arm.rounds;
  }
  const { inner, model, round } = charter;
  const steps = stepsOf(arm);
  const stepS = (6 * parameterLayout(model).size * inner.batch * model.time) / FLOPS;
  const rounds = steps / (contributors * round.stepsMax);
  const judged = way === "federated" ? rounds * contributors * JUDGED : 0;
  const evaluated = (1 + rounds) * EVALUATED * (sources.length > 1 ? 1 + sources.length : 1);
  return stepS * (steps + FORWARD_SHARE * (judged + evaluated));
}

export function experimentS({ arms, seeds }: Experiment): number {
  return seeds.length * arms.reduce((sum, arm) => sum + processorSOf(arm), 0);
}
