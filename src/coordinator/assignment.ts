/**
 * Assignments. A training assignment is a function of the round's seed and the contributor, so a relay that restarts in the
 * middle of a round knows the assignments it gave, and a contributor that returns gets the one it had. A validation is drawn
 * after its contribution was committed, from randomness that nobody had before.
 */
import { present } from "../base/assert.ts";
import type { ContributionId, ContributorId } from "../base/bytes.ts";
import { createRng, type Rng } from "../base/rng.ts";
import { keepOf, type Charter } from "../protocol/charter.ts";
import type { TrainAssignment, ValidateAssignment } from "../protocol/messages.ts";
import type { MeasureFacts } from "../trust/measure.ts";
import { amongOf, factsOf, type Contribution, type DurableState, type RoundFacts } from "./state.ts";

/** Seeds the batches of a contributor in a round. */
export function trainSeed({ seed, round }: Pick<RoundFacts, "seed" | "round">, contributor: ContributorId): number {
  return createRng("assignment", seed, round, contributor).uint32();
}

/** The name of a contributor's training assignment in the state's round. */
export function trainName({ seed, round }: Pick<RoundFacts, "seed" | "round">, contributor: ContributorId): string {
  const tag = createRng("assignment name", seed, round, contributor).uint32();
  return `t${round}-${hex(tag)}-${contributor.slice(0, 12)}`;
}

export function trainAssignment(
  { durable, charter }: { readonly durable: DurableState; readonly charter: Charter },
  contributor: ContributorId,
  trainMs: number,
): TrainAssignment {
  return {
    type: "train",
    id: trainName(durable, contributor),
    round: durable.round,
    baseVersion: durable.head.version,
    baseDigest: durable.head.digest,
    seed: trainSeed(durable, contributor),
    stepsMax: charter.round.stepsMax,
    keep: keepOf(charter.uplink, contributorsOf(durable)),
    trainMs: Math.max(0, Math.ceil(trainMs)),
  };
}

/** The most who contributed to one of the rounds which are remembered, and 1 at least: known before anybody comes. */
function contributorsOf({ past }: DurableState): number {
  return Math.max(1, ...past.map(({ contributors }) => contributors));
}

/**
 * What a validator or the referee must know of `contribution`, with a fresh seed for the data to measure on. One that came late
 * was trained on the batches of its own round.
 */
export function measureFacts(durable: DurableState, { id, header }: Contribution, rng: Rng): MeasureFacts {
  const facts = present(factsOf(durable, header.round), `the round of contribution ${id}`);
  return {
    round: header.round,
    author: header.contributor,
    authorSeed: trainSeed(facts, header.contributor),
    authorSteps: header.steps,
    privateData: header.privateData,
    among: amongOf(durable),
    seed: rng.uint32(),
  };
}

export function validateAssignment(
  { durable, charter }: { readonly durable: DurableState; readonly charter: Charter },
  contribution: Contribution,
  rng: Rng,
): ValidateAssignment {
  const facts = measureFacts(durable, contribution, rng);
  return {
    type: "validate",
    id: validateName(durable.round, contribution.id, rng),
    ...facts,
    baseVersion: durable.head.version,
    baseDigest: durable.head.digest,
    contribution: contribution.id,
    payload: contribution.header.payload,
    judgeMs: charter.round.judgeMs,
  };
}

function validateName(round: number, contribution: ContributionId, rng: Rng): string {
  return `v${round}-${hex(rng.uint32())}-${contribution.slice(0, 12)}`;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
