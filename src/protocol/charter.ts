/**
 * The charter of a run: everything that decides what is trained and how contributions are handled. It is data, fixed when
 * the run starts; its digest is in the first ledger event. `sample.ts` holds the charter of the sample run.
 */
import type { Digest } from "../base/bytes.ts";

/** A Llama-family decoder. Rows N = batch·time; the vocabulary is bytes (256) unless a tokenizer says otherwise. */
export interface ModelConfig {
  readonly vocabulary: number;
  readonly channels: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** Feed-forward width F. */
  readonly hidden: number;
  /** Sequence length T in training. */
  readonly time: number;
  /** Head shares the embedding's matrix. */
  readonly tied: boolean;
  readonly ropeBase: number;
  readonly normEps: number;
  /** Seed of the initial weights. */
  readonly seed: number;
}

/** Inner optimiser: AdamW on each contributor. */
export interface InnerConfig {
  /** Sequences per step, B. */
  readonly batch: number;
  readonly learningRate: number;
  readonly warmupSteps: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Global-norm clip; 0 switches it off. */
  readonly clip: number;
  /** Learning rate of the layers' matrices, which Muon trains then; 0: AdamW trains them as it does the rest. */
  readonly matrixRate: number;
  /** Muon's momentum. */
  readonly matrixMomentum: number;
}

/** Sparsification and quantisation of one direction of traffic. */
export interface Compression {
  /** Entries kept of each chunk of 4,096 (1 … 4,096). */
  readonly keep: number;
  /**
   * Bits per kept value: b of 1 to 4 (its sign and one of 2^(b−1) levels, which each chunk has its own) or 64 (exact, for tests
   * of exactness and, on open texts, for institutions).
   */
  readonly bits: 1 | 2 | 3 | 4 | 64;
  /** Error-feedback decay β: residual ← β·residual + delta. */
  readonly beta: number;
}

/** Compression of what goes up. */
export interface UplinkConfig extends Compression {
  /**
   * Entries of a chunk that a round's contributors keep between them, in even shares, where a share is more than `keep`: of few
   * each can send more than of many, for as much work on the relay; 0: `keep`, however many there are.
   */
  readonly together: number;
  /**
   * Whether training begins from what earlier updates left out, too, as faded as it is then sent; else from the base alone, where
   * a device learns the same again.
   */
  readonly carry: boolean;
}

/** Entries that each of so many (1 at least) contributors keeps of a chunk. */
export function keepOf({ keep, together }: UplinkConfig, contributors: number): number {
  return Math.max(keep, Math.ceil(together / contributors));
}

/** What a device sends that has no residual yet, or loses it again and again: what it leaves out is likely to be lost. */
export interface NewcomerConfig {
  /** Contributions to the run, as far as this device remembers, with which it counts as a newcomer; 0: nobody does. */
  readonly contributions: number;
  /** Entries that a newcomer keeps of each chunk, where that is more than others keep. */
  readonly keep: number;
}

/** Entries of a chunk that anybody may send. */
export function keepMaxOf({ uplink, newcomers }: Pick<Charter, "uplink" | "newcomers">): number {
  return Math.max(keepOf(uplink, 1), newcomers.contributions === 0 ? 1 : newcomers.keep);
}

/** Outer optimiser on the relay. */
export interface OuterConfig {
  readonly learningRate: number;
  /** Nesterov momentum; 0 switches it off. */
  readonly momentum: number;
  /** Clip each contribution to this multiple of the round's median norm; 0 switches it off. */
  readonly clipToMedian: number;
  /**
   * Whole power of its clipped norm that a contribution's weight goes with; 0: none. Steps of the inner optimisers are as long on a
   * weak gradient as on a strong one, so who has moved further has found more that its steps agree about.
   */
  readonly normPower: number;
  /**
   * Radial-directional averaging: the merged delta is stretched to the weighted mean norm of what went into it, which the mean
   * of vectors that do not point the same way falls short of.
   */
  readonly radial: boolean;
  /** Versions over which the stretch goes, on a straight line from all of it, to none; 0 keeps it as it is. */
  readonly radialRounds: number;
  /** What the learning rate is multiplied by after `round.decayRounds` versions, on a straight line from 1; above 1 it grows. */
  readonly endShare: number;
}

export interface RoundConfig {
  /** Time given to train, from the assignment. */
  readonly trainMs: number;
  /** Inner steps at most, H, those taken ahead included. */
  readonly stepsMax: number;
  /**
   * Steps that a contributor may take ahead of its next assignment, from where its last one ended, while the update travels
   * and is judged; 0: none. What they made of the parameters is added to the next base.
   */
  readonly aheadMax: number;
  /** Share of what steps ahead made that is added. */
  readonly aheadShare: number;
  /** Time for uploads after the training deadline, at most. */
  readonly graceMs: number;
  /** Share of those who train whose contributions make a quorum: once there is one, the rest get less time than `graceMs`. */
  readonly quorum: number;
  /** For the rest: how much longer than the quorum took after the training deadline, in proportion. */
  readonly patience: number;
  /** Time given to a validator. */
  readonly judgeMs: number;
  /** Rounds in which the inner learning rate falls, in a straight line, to `decayTo` of it; 0 keeps it as it is. */
  readonly decayRounds: number;
  /** Share of the learning rate that is left after `decayRounds` rounds. */
  readonly decayTo: number;
  /**
   * What a contribution that arrives one round late weighs among those of the round that it is merged with, as a share of what
   * it would in its own; 0: it is refused.
   */
  readonly lateShare: number;
}

export interface TrustConfig {
  /** Refuse a contribution whose norm exceeds this multiple of the round's (or the recent rounds') median. */
  readonly normMax: number;
  /** Least relative improvement of the loss on assigned data. */
  readonly improvementMin: number;
  /** Least improvement as a share of the median of others' (in proportion where the norm is smaller than theirs); 0: not asked. */
  readonly improvementShare: number;
  /** Largest relative worsening of the loss on random data. */
  readonly harmMax: number;
  /** Share of accepted verdicts that the relay's referee measures again. */
  readonly auditShare: number;
  /** Sequences that a validator measures, of each kind. */
  readonly sequences: number;
}

/** Tapestry's data categories. Only fully-open data may travel in this version; the others stay with their member. */
export const CATEGORIES = ["fully-open", "unique-open", "controlled", "sovereign", "private"] as const;
export type Category = (typeof CATEGORIES)[number];

/** One content-addressed file of tokens (bytes of UTF-8 text in this version). */
export interface Shard {
  readonly digest: Digest;
  readonly bytes: number;
}

export interface Dataset {
  readonly name: string;
  /** SPDX identifier or a plain sentence. */
  readonly licence: string;
  readonly category: Category;
  readonly shards: readonly Shard[];
}

export interface Charter {
  readonly name: string;
  readonly purpose: string;
  readonly model: ModelConfig;
  readonly inner: InnerConfig;
  readonly uplink: UplinkConfig;
  readonly newcomers: NewcomerConfig;
  readonly downlink: Compression;
  readonly outer: OuterConfig;
  readonly round: RoundConfig;
  readonly trust: TrustConfig;
  readonly train: readonly Dataset[];
  /** Held-out data, never assigned for training. */
  readonly evaluation: Dataset;
  /** Seeds assignments and batches. */
  readonly seed: number;
}
