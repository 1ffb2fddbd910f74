/**
 * What an experiment is, as data: a question, some arms that answer it, and the seeds over which they are repeated. An arm is
 * everything that decides a run besides its seed; its JSON is what a stored result is checked against.
 */
import type { Charter } from "../src/protocol/charter.ts";
import type { SourceName } from "./sources.ts";

export interface Experiment {
  readonly name: string;
  /** What it asks, in one sentence. */
  readonly question: string;
  readonly seeds: readonly number[];
  /** The arm that the others are compared with. */
  readonly reference: string;
  readonly arms: readonly Arm[];
}

/** What the arm's charter has in place of the sample charter's settings. */
export type CharterChanges = Pick<
  Charter,
  "model" | "inner" | "uplink" | "newcomers" | "downlink" | "outer" | "round" | "trust"
>;

export interface Arm {
  /** Part of file names: lower-case letters, digits and hyphens. */
  readonly name: string;
  readonly sentence: string;
  /**
   * "federated": the production coordinator and contributors over the simulated network. "synchronous": one optimiser, whose
   * every step takes the mean gradient over all contributors' batches, as data parallel training does.
   */
  readonly way: "federated" | "synchronous";
  /** "noise": devices take their time and move the parameters at random (`noise.ts`); nothing is learned. */
  readonly work: "training" | "noise";
  readonly contributors: number;
  /** Ends with the version of this number; a synchronous arm takes `charter.round.stepsMax` steps for each. */
  readonly rounds: number;
  /** Ends earlier, with the first version that so many tokens went into. */
  readonly tokensMax: number | null;
  readonly charter: CharterChanges;
  readonly sources: readonly SourceName[];
  /** "whole": everyone draws from all sources. "by-source": contributor n has source n mod their number, as members have. */
  readonly split: "whole" | "by-source";
  readonly devices: Devices;
  readonly links: Links;
  /** The first so many contributors have other rates. */
  readonly slow?: { readonly contributors: number; readonly links: Omit<Links, "delayMs"> };
  /** Whoever was cut off has lost its disk. */
  readonly forgets: boolean;
  /** Chance of each contributor to be cut off in a round, at any time of its training, and to come back when it is over. */
  readonly vanishShare: number;
}

export interface Devices {
  /** Virtual time of an inner step on the fastest device. */
  readonly stepMs: number;
  /** How much longer the slowest one takes; the others lie evenly between them on a logarithmic scale. */
  readonly spread: number;
}

export interface Links {
  readonly upMbitPerS: number;
  readonly downMbitPerS: number;
  /** One way, at most. */
  readonly delayMs: number;
}
