/**
 * Batches as a pure function of what was assigned: anyone with the corpus can derive what a contributor trained on, which is
 * what validators and audits do. A batch is B windows of T tokens; the targets are the tokens one place further on.
 */
import { HeddleError } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import { copyTokens, type Corpus } from "./corpus.ts";

/** N = B·T rows, window by window. */
export interface Batch {
  readonly tokens: Uint32Array<ArrayBuffer>; // [N]
  readonly targets: Uint32Array<ArrayBuffer>; // [N]
}

export interface BatchPlace {
  /** The assignment's seed. */
  readonly seed: number;
  readonly round: number;
  /** Contributor id. */
  readonly contributor: string;
  /** Inner step, from 0. */
  readonly step: number;
  /** B, windows. */
  readonly batch: number;
  /** T, tokens a window. */
  readonly time: number;
}

/**
 * The batch of one inner step: windows drawn uniformly, seeded by the seed, round, contributor and step. The same on every
 * machine. Throws HeddleError "bad-input" when the corpus has fewer than T + 1 tokens.
 */
export function batchAt(corpus: Corpus, { seed, round, contributor, step, batch, time }: BatchPlace): Batch {
  const places = placesIn(corpus, time);
  const rng = createRng("batch", seed, round, contributor, step);
  return gather(
    corpus,
    Array.from({ length: batch }, () => rng.below(places)),
    time,
  );
}

/**
 * `count` batches of B windows spread evenly over the corpus, the first at its start and the last at its end; they overlap
 * when the corpus is short. Throws HeddleError "bad-input" when it has fewer than T + 1 tokens.
 */
export function evaluationBatches(
  corpus: Corpus,
  { batch, time, count }: { readonly batch: number; readonly time: number; readonly count: number },
): Batch[] {
  const last = placesIn(corpus, time) - 1;
  const gaps = Math.max(1, batch * count - 1);
  const startOf = (window: number): number => Math.floor((window * last) / gaps);
  return Array.from({ length: count }, (_, i) =>
    gather(
      corpus,
      Array.from({ length: batch }, (_unused, row) => startOf(i * batch + row)),
      time,
    ),
  );
}

/** Number of places where a window of T tokens and its targets can begin. */
function placesIn(corpus: Corpus, time: number): number {
  if (corpus.tokens < time + 1) {
    throw new HeddleError(
      "bad-input",
      `Cannot draw batches: the corpus has ${corpus.tokens} bytes of text, need at least ${time + 1}`,
    );
  }
  return corpus.tokens - time;
}

function gather(corpus: Corpus, starts: readonly number[], time: number): Batch {
  const tokens = new Uint32Array(starts.length * time);
  const targets = new Uint32Array(starts.length * time);
  for (const [row, start] of starts.entries()) {
    copyTokens(corpus, start, tokens.subarray(row * time, (row + 1) * time));
    copyTokens(corpus, start + 1, targets.subarray(row * time, (row + 1) * time));
  }
  return { tokens, targets };
}
