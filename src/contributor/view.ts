/**
 * What the person sees of this device's work: a projection of the contributor's state, plain data that crosses from the
 * worker to the page and to the terminal. The page, the widget and the headless client show nothing that is not in here or
 * in the run's public record (`protocol/run-view.ts`).
 */
import type { ContributionId, ContributorId } from "../base/bytes.ts";
import type { Lane } from "../net/link.ts";
import type { Verdict } from "../protocol/verdict.ts";

export type ContributorStatus =
  | "stopped"
  | "connecting" // also while waiting to dial again; `sentence` says why
  | "fetching" // base or data on the way
  | "waiting" // ready, no assignment yet
  | "training"
  | "validating"
  | "uploading"
  | "paused"
  | "failed"; // cannot go on without the person; `sentence` says why

export interface ContributionView {
  readonly id: ContributionId;
  readonly round: number;
  readonly sentMs: number;
  readonly wireBytes: number;
  readonly steps: number;
  /** Mean training loss, nats per token. */
  readonly loss: number;
  readonly verdict: Verdict | null;
  /** The verdict in words, or what is being waited for. */
  readonly sentence: string;
}

/** What went to and came from other contributors, none of it through the relay. */
export interface PeersView {
  /** This program can; and the person agreed. */
  readonly able: boolean;
  readonly on: boolean;
  readonly bytesServed: number;
  readonly bytesFetched: number;
  /** Others who are being served. */
  readonly serving: number;
  /** What came of the last attempt, in words. */
  readonly sentence: string;
}

export interface ContributorView {
  readonly status: ContributorStatus;
  /** The status in words. */
  readonly sentence: string;
  readonly contributor: ContributorId | null;
  readonly engine: string;
  readonly device: string;
  /** Why this engine. */
  readonly engineSentence: string;
  /** Lane that updates take, and why it is not WebRTC where it is not. */
  readonly lane: Lane | null;
  readonly laneReason: string;
  readonly version: number | null;
  readonly round: number | null;
  /** Steps done in the present assignment, and its limit. */
  readonly step: number;
  readonly stepsMax: number;
  /** Share of the time the device works, 0.05 … 1. */
  readonly duty: number;
  /** Over the last few steps, pauses included. */
  readonly tokensPerS: number;
  readonly tokensTotal: number;
  /** To and from the relay. */
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly peers: PeersView;
  readonly accepted: number;
  readonly refused: number;
  readonly validated: number;
  /** The last 50, newest first. */
  readonly contributions: readonly ContributionView[];
}
