/**
 * A corpus: the shards of some data sets, one after the other, as one long sequence of tokens (bytes). Nothing is copied;
 * a window may run across the end of a shard into the next one.
 */
import { assert } from "../base/assert.ts";

export interface Corpus {
  readonly shards: readonly Uint8Array[];
  /** Position of each shard's first token, and behind the last one the number of all tokens. */
  readonly starts: readonly number[];
  /** Number of tokens. */
  readonly tokens: number;
}

/** A corpus of these shards, in this order. They must not change afterwards. */
export function createCorpus(shards: readonly Uint8Array[]): Corpus {
  const starts = [0];
  let tokens = 0;
  for (const shard of shards) {
    tokens += shard.length;
    starts.push(tokens);
  }
  return { shards, starts, tokens };
}

/** Copies the tokens from position `start` on into `into`, as many as it holds. They must all be in the corpus. */
export function copyTokens(corpus: Corpus, start: number, into: Uint8Array | Uint32Array): void {
  const end = start + into.length;
  assert(start >= 0 && end <= corpus.tokens, `Cannot copy tokens ${start} to ${end}: the corpus has ${corpus.tokens}`);
  let at = start;
  for (let shard = shardAt(corpus, start); at < end; shard += 1) {
    const bytes = corpus.shards[shard] as Uint8Array;
    const first = corpus.starts[shard] as number;
    const stop = Math.min(end, first + bytes.length);
    into.set(bytes.subarray(at - first, stop - first), at - start);
    at = stop;
  }
}

/** The last shard that begins at or before `position`, by bisection. */
function shardAt({ shards, starts }: Corpus, position: number): number {
  let low = 0;
  let high = shards.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((starts[middle] as number) <= position) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}
