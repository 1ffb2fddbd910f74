/**
 * The seeds of an experiment's rounds. A relay draws a round's seed when it opens; here the coordinator's generator is made
 * to draw the one that follows from the experiment's seed and the round, so that every arm, the synchronous baseline
 * included, sees the same windows of text. All other draws come from a generator of their own.
 */
import { assert } from "../src/base/assert.ts";
import { createRng, rngOf, type Rng } from "../src/base/rng.ts";
import type { LedgerEvent } from "../src/protocol/ledger.ts";

export function roundSeed(seed: number, round: number): number {
  return createRng("round", seed, round).uint32();
}

export interface CoordinatorRng {
  readonly rng: Rng;
  /** Told of each ledger entry. */
  note(event: LedgerEvent): void;
  /** Runs what takes messages: what is drawn meanwhile are challenges of sessions, not a round's seed. */
  outside<T>(work: () => T): T;
}

/** Between two rounds a coordinator draws nothing but the next round's seed; that this holds is checked with every round. */
export function createCoordinatorRng(seed: number): CoordinatorRng {
  const other = createRng("coordinator", seed);
  let round = 1;
  let idle = true;
  let outside = false;
  return {
    rng: rngOf(() => (idle && !outside ? roundSeed(seed, round) : other.uint32())),
    note: (event) => {
      if (event.type === "opened") {
        const { round: opened, seed: drawn } = event;
        assert(drawn === roundSeed(seed, opened), `Cannot go on: round ${opened} was opened with another seed`);
        idle = false;
      } else if (event.type === "merged" || event.type === "skipped") {
        round = event.round + 1;
        idle = true;
      }
    },
    outside: (work) => {
      outside = true;
      try {
        return work();
      } finally {
        outside = false;
      }
    },
  };
}
