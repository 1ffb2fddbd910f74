/**
 * Measures what an update does to the loss: on data that its author was assigned and on data that nobody was. Validators and
 * the relay's referee run the same function; which data are read follows from the seed, which is drawn after the
 * contribution was committed, so an author cannot train on what it will be measured by.
 */
import { createRng, permutation } from "../base/rng.ts";
import { batchAt, type Batch } from "../data/batch.ts";
import type { Corpus } from "../data/corpus.ts";
import type { Charter } from "../protocol/charter.ts";
import type { Losses, ValidateAssignment } from "../protocol/messages.ts";
import { applyUpdate } from "../update/delta.ts";
import type { SparseUpdate } from "../update/unpack.ts";

/** What must be known of a contribution to derive its data; a validate assignment has it all. */
export type MeasureFacts = Pick<
  ValidateAssignment,
  "round" | "author" | "authorSeed" | "authorSteps" | "privateData" | "among" | "seed"
>;

/** The part of `model/evaluator.ts` that measuring needs. */
export interface LossMeter {
  /** Parameters [P]. */
  load(params: Float32Array): void;
  /** Mean loss, nats per token. */
  loss(batch: Batch): Promise<number>;
}

export interface MeasureOptions {
  /** Measures batches of the charter's B sequences of T tokens. */
  readonly evaluator: LossMeter;
  /** [P] */
  readonly base: Float32Array;
  readonly update: SparseUpdate;
  /** The charter's training data. */
  readonly corpus: Corpus;
  readonly facts: MeasureFacts;
  readonly charter: Pick<Charter, "model" | "inner" | "trust">;
}

/**
 * Mean losses, nats per token, on the charter's number of sequences of each kind, rounded up to whole batches: on assigned data without
 * and with the update as one of `among` in a mean, on random data without and with all of it. Assigned losses are null for private
 * data. Leaves the evaluator with the updated parameters.
 */
export async function measureLosses({
  evaluator,
  base,
  update,
  corpus,
  facts,
  charter,
}: MeasureOptions): Promise<Losses> {
  const assigned = facts.privateData ? null : assignedBatches(corpus, facts, charter);
  const random = randomBatches(corpus, facts, charter);
  evaluator.load(base);
  const assignedBefore = assigned && (await meanLoss(evaluator, assigned));
  const randomBefore = await meanLoss(evaluator, random);
  evaluator.load(applyUpdate(base, update));
  const randomAfter = await meanLoss(evaluator, random);
  if (assigned === null) {
    return { assignedBefore, assignedAfter: null, randomBefore, randomAfter };
  }
  if (facts.among > 1) {
    evaluator.load(applyUpdate(base, update, facts.among));
  }
  const assignedAfter = await meanLoss(evaluator, assigned);
  return { assignedBefore, assignedAfter, randomBefore, randomAfter };
}

/** Some of the very batches that the author says it trained on: distinct steps, chosen by the seed. */
export function assignedBatches(corpus: Corpus, facts: MeasureFacts, charter: MeasureOptions["charter"]): Batch[] {
  const { round, author, authorSeed, authorSteps, seed } = facts;
  const { batch } = charter.inner;
  const { time } = charter.model;
  const steps = permutation(authorSteps, createRng("assigned", seed)).subarray(0, batchesOf(charter));
  return Array.from(steps, (step) =>
    batchAt(corpus, { seed: authorSeed, round, contributor: author, step, batch, time }),
  );
}

/** Batches that were assigned to nobody. */
export function randomBatches(corpus: Corpus, facts: MeasureFacts, charter: MeasureOptions["charter"]): Batch[] {
  const { round, seed } = facts;
  const { batch } = charter.inner;
  const { time } = charter.model;
  return Array.from({ length: batchesOf(charter) }, (_, step) =>
    batchAt(corpus, { seed, round, contributor: `random/${seed}`, step, batch, time }),
  );
}

function batchesOf({ inner, trust }: MeasureOptions["charter"]): number {
  return Math.ceil(trust.sequences / inner.batch);
}

async function meanLoss(evaluator: LossMeter, batches: readonly Batch[]): Promise<number> {
  let sum = 0;
  for (const batch of batches) {
    sum += await evaluator.loss(batch);
  }
  return sum / batches.length;
}
