/**
 * What a run leaves behind: a point for each version of the shared base, sums at its end, and what was checked on the way.
 * It is a function of the arm and the seed and nothing else; times of the host are kept elsewhere.
 */
import type { Digest } from "../src/base/bytes.ts";
import type { Arm } from "./experiment.ts";
import type { Traffic } from "./wire.ts";

export interface Point {
  /** Versions of the base; for a synchronous arm as many steps as a round has. */
  readonly version: number;
  /** Tokens that went into it, of all contributors. */
  readonly tokens: number;
  /** Virtual time since the start. */
  readonly timeMs: number;
  /** Mean loss on held-out text, nats per byte; over all sources and for each. */
  readonly loss: number;
  readonly losses: Readonly<Record<string, number>>;
  /** Bytes that crossed the network until then, per contributor. */
  readonly up: Traffic;
  readonly down: Traffic;
  /** Contributions of the round, and of these the refused ones. */
  readonly contributions: number;
  readonly refused: number;
  readonly digest: Digest;
}

export interface RunRecord {
  readonly experiment: string;
  readonly arm: Arm;
  readonly seed: number;
  /** P, padding included. */
  readonly parameters: number;
  readonly points: readonly Point[];
  readonly sums: Sums;
}

export interface Sums {
  /** Of all contributors, lost work included. */
  readonly steps: number;
  readonly accepted: number;
  /** By reason. */
  readonly refused: Readonly<Record<string, number>>;
  /** Rounds without an accepted contribution. */
  readonly skipped: number;
  /** Share of the time from the first round on that a contributor's device stood idle, on average. */
  readonly idleShare: number;
  /** Contributors that were cut off in a round. */
  readonly vanished: number;
  /** Times that a contributor's replica of the base was compared with the ledger's digest; all were equal. */
  readonly replicasCompared: number;
}

/** Told of each point as soon as it is known. */
export type OnPoint = (point: Point) => void;

/** Thrown when something that must hold did not; its message says what. */
export class BrokenRun extends Error {
  override readonly name = "BrokenRun";
}

export function meanTraffic(traffic: Traffic, contributors: number): Traffic {
  const { joining, updates, judging, messages } = traffic;
  const each = (bytes: number): number => Math.round(bytes / contributors);
  return { joining: each(joining), updates: each(updates), judging: each(judging), messages: each(messages) };
}
