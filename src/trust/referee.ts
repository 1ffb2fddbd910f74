/**
 * The relay's referee: the loss of a version on held-out text, and what an update does to the losses of its base. On the WASM
 * engine it gives the same numbers on every machine. Relays run it on a thread of its own (`relay/referee-thread.ts`),
 * experiments in the process that trains.
 */
import { evaluationBatches } from "../data/batch.ts";
import type { Corpus } from "../data/corpus.ts";
import type { Charter } from "../protocol/charter.ts";
import type { Losses } from "../protocol/messages.ts";
import type { SparseUpdate } from "../update/unpack.ts";
import { measureLosses, type LossMeter, type MeasureFacts } from "./measure.ts";

/** Windows of held-out text that an evaluation reads at least: the same whatever the charter's batch, where that divides them. */
const EVALUATION_WINDOWS = 64;

export interface RefereeOptions {
  /** Measures batches of the charter's B sequences of T tokens. */
  readonly evaluator: LossMeter;
  readonly charter: Charter;
  /** The charter's training data. */
  readonly train: Corpus;
  /** The charter's held-out data. */
  readonly evaluation: Corpus;
}

export interface RefereeWork {
  /** Mean loss of `params` [P] on the charter's evaluation data, nats per byte. */
  evaluate(params: Float32Array): Promise<number>;
  /** What `update` does to the losses of `base` [P]. */
  measure(base: Float32Array, update: SparseUpdate, facts: MeasureFacts): Promise<Losses>;
}

export function createReferee({ evaluator, charter, train, evaluation }: RefereeOptions): RefereeWork {
  return {
    evaluate: (params) => heldOutLoss(evaluator, { charter, evaluation, params }),
    measure: (base, update, facts) => measureLosses({ evaluator, base, update, corpus: train, facts, charter }),
  };
}

export interface HeldOut {
  readonly charter: Pick<Charter, "inner" | "model">;
  readonly evaluation: Corpus;
  /** [P] */
  readonly params: Float32Array;
}

/** Mean loss on windows spread evenly over held-out text, nats per byte: 64 of them, or more where B does not divide that. */
export async function heldOutLoss(evaluator: LossMeter, { charter, evaluation, params }: HeldOut): Promise<number> {
  const { batch } = charter.inner;
  const { time } = charter.model;
  evaluator.load(params);
  const batches = evaluationBatches(evaluation, { batch, time, count: Math.ceil(EVALUATION_WINDOWS / batch) });
  let sum = 0;
  for (const each of batches) {
    sum += await evaluator.loss(each);
  }
  return sum / batches.length;
}
