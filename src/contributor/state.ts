/**
 * What a contributor knows and what can happen to it: the state, events and effects of `tick.ts`. All are plain data; links,
 * parameters, the engine and the store are held by `run.ts`, which turns effects into calls and their results into events.
 */
import type { ErrorCode } from "../base/assert.ts";
import type { Bytes, ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import type { Charter } from "../protocol/charter.ts";
import type { Lane } from "../net/link.ts";
import { BEAT_MS, DEAD_MS } from "../protocol/limits.ts";
import type {
  Assignment,
  ContributorMessage,
  RelayMessage,
  ValidateAssignment,
  VersionInfo,
} from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";
import type { ContributionView } from "./view.ts";
import type { EngineInUse } from "./work.ts";

/** A session's: the dialled one and the one beside it. */
export type SessionLane = Exclude<Lane, "memory">;

/** A back-off with full jitter: before try n + 1 a random share of `baseMs` · 2^n, at most of `capMs`. */
export interface BackOff {
  readonly baseMs: number;
  readonly capMs: number;
}
/** Between dials. */
export const DIAL_BACK_OFF: BackOff = { baseMs: 100, capMs: 30_000 };
/** A session that lasted so long ends the back-off. */
export const LASTED_MS = 2_000;
/** Between tries to open the WebRTC lane, after the pause that the relay asks for. */
export const RTC_BACK_OFF: BackOff = { baseMs: 5_000, capMs: 600_000 };
/** Who is told when to come back comes later than that by a random share of the wait, at most of this much of it. */
export const RETRY_SPREAD = 0.5;
/** Beats without a message after which a lane is silent. */
export const SILENT_BEATS = DEAD_MS / BEAT_MS;
/** Time for a dial, and for the handshake from hello to welcome. */
export const DIAL_MS = 15_000;
export const HANDSHAKE_MS = 15_000;
/** A sent contribution whose round is over is given up after this long without a verdict. */
export const ANSWER_MS = 20_000;
/** Whose contribution came too late ends training so much earlier the next time, and twice as much after each one more, half of its time at most. */
export const EARLY_MS = 250;
/** What is left of that after a contribution that was accepted: now and then it finds out whether it is needed still. */
export const EARLY_KEPT = 0.9;
/** An upload of which the relay takes and confirms nothing for this long goes on by another lane. */
export const STALL_MS = 15_000;
/** Pause after a failed download, after a refusal without a time, and before another engine is tried. */
export const RETRY_MS = 1_000;
/** Times in a row that an engine is replaced before a person must look. */
export const REBUILDS_MAX = 3;
/** Contributions shown, and speed samples kept. */
export const CONTRIBUTIONS_SHOWN_MAX = 50;
export const SPEED_SAMPLES_MAX = 64;
/** Verdicts remembered for a contribution that the notebook still has to name. */
export const HEARD_MAX = 16;
/** Window of the speed that is shown. */
export const SPEED_MS = 20_000;

/** What this device says of itself in `hello`. */
export interface Identity {
  readonly publicKey: Bytes;
  readonly agent: string;
  readonly engine: "webgpu" | "wasm" | "twin";
  readonly device: string;
  /** Why this engine, for people; not sent. */
  readonly engineSentence: string;
  readonly privateData: boolean;
  /** The run that the person agreed to take part in, or null for whichever the relay serves; not sent. */
  readonly run: Digest | null;
}

export interface Failure {
  readonly code: ErrorCode;
  readonly sentence: string;
}

export type LinkState =
  /** To be dialled at `untilMs`. */
  | { readonly type: "waiting"; readonly untilMs: number }
  | { readonly type: "dialling"; readonly untilMs: number }
  /** Hello is sent; challenge, prove and welcome follow. `proven`: the relay has the key that it names. */
  | { readonly type: "greeting"; readonly untilMs: number; readonly proven: boolean }
  | { readonly type: "open" };

/** A contribution without a verdict. Its bytes are in the store; `id` finds them. */
export interface Pending {
  readonly id: ContributionId;
  readonly round: number;
  readonly baseVersion: number;
  readonly wireBytes: number;
  /** Pieces that it is sent in; 1 where it is sent whole. */
  readonly pieces: number;
  readonly steps: number;
  readonly loss: number;
}

/** How a contribution was last sent: on which dialled link (by number), by which lane, and how far it is. */
export interface Upload {
  readonly id: ContributionId;
  readonly dial: number;
  readonly lane: SessionLane;
  /** When it was begun, the relay last confirmed a piece, or the lane last brought a frame of one over. */
  readonly movedMs: number;
  /** Pieces that the relay has confirmed; null before it has said anything. */
  readonly held: number | null;
  /** Pieces that were handed to the lane. */
  readonly sent: number;
}

export interface ContributorState {
  readonly identity: Identity;
  /** What the person wants. */
  readonly intent: "stopped" | "working" | "paused";
  /** Why this cannot go on without the person. */
  readonly failure: Failure | null;

  readonly link: LinkState;
  /** Counts dials; events of earlier links are ignored. */
  readonly dial: number;
  /** Dials since the last session that lasted. */
  readonly attempts: number;
  /** When the relay welcomed this link, or the last that was open. */
  readonly openMs: number;
  /** The last refusal or the end of the last link, in words. */
  readonly trouble: string;
  /** The next beat; and beats since the last message, on the dialled link and on the WebRTC one. */
  readonly beatMs: number;
  readonly silentBeats: number;
  readonly rtcSilentBeats: number;
  readonly pingedMs: number;
  readonly rtc: "unavailable" | "none" | "opening" | "open";
  /** No try to open that lane before this time; and tries since it was last open. */
  readonly rtcMs: number;
  readonly rtcAttempts: number;
  readonly laneReason: string;

  /** The key that the relay has proven; another one is another relay's. */
  readonly relay: Bytes | null;
  readonly contributor: ContributorId | null;
  readonly run: { readonly digest: Digest; readonly charter: Charter } | null;
  /** "overtaken": one for a run that was forgotten still runs; the next begins when it has ended. */
  readonly preparation: "none" | "running" | "done" | "overtaken";
  readonly prepareMs: number;
  /** Engines that failed since training was last finished. */
  readonly rebuilds: number;

  readonly head: VersionInfo | null;
  /** The versions that led to the head, as far back as they are known; oldest first. */
  readonly earlier: readonly VersionInfo[];
  /** When the head was learned. */
  readonly headMs: number;
  readonly base: { readonly version: number; readonly digest: Digest } | null;
  /** Digest of the version being fetched. */
  readonly fetching: Digest | null;
  /** No fetch before this time. */
  readonly fetchMs: number;

  /** The version that it said to be ready for, on this link and since the last assignment. */
  readonly readied: number | null;
  /** No ready before this time. */
  readonly readyMs: number;
  readonly assigned: Assigned | null;
  /** So much before its deadline training ends. */
  readonly earlyMs: number;
  /** What the engine is doing; outlives a dropped assignment for the moment it takes to stop. */
  readonly job: { readonly assignment: string; readonly type: JobType; readonly aborted: boolean } | null;
  /** Where training may go on ahead of the next assignment, and the steps taken there; null when there is nothing to go on from. */
  readonly trail: Trail | null;
  /** The last contribution, until its verdict is here. */
  readonly pending: Pending | null;
  /** The one before it, where that was still on its way when the last one was made. */
  readonly late: Pending | null;
  /** Of one of them; the older one's comes first. */
  readonly upload: Upload | null;
  /** No upload before this time. */
  readonly uploadMs: number;
  /** The last verdicts, newest first. */
  readonly heard: readonly { readonly id: ContributionId; readonly verdict: Verdict }[];
  /** A finished report that waits for an open link. */
  readonly report: { readonly body: Bytes; readonly signature: Bytes } | null;

  readonly step: number;
  readonly stepsMax: number;
  readonly speed: readonly { readonly timeMs: number; readonly tokens: number }[];
  readonly tokensTotal: number;
  readonly accepted: number;
  readonly refused: number;
  readonly validated: number;
  readonly contributions: readonly ContributionView[];
}

export interface Assigned {
  readonly assignment: Assignment;
  readonly deadlineMs: number;
  /** What is to be checked; training, which needs nothing more, has it. Training ahead goes on until it is here. */
  readonly payload: "wanted" | "fetching" | "here";
}

/** "ahead" is training without an assignment, from where the last one ended. */
export type JobType = Assignment["type"] | "ahead";

export interface Trail {
  /** The assignment whose end it goes on from. */
  readonly assignment: string;
  readonly baseVersion: number;
  readonly steps: number;
}

/** How a job ended. */
export type JobResult =
  /** `steps`: taken ahead since the last assignment. */
  | { readonly type: "ahead"; readonly steps: number }
  | { readonly type: "contribution"; readonly pending: Pending }
  | { readonly type: "report"; readonly body: Bytes; readonly signature: Bytes }
  | { readonly type: "dropped" }
  /** `lost`: the device went away or computes wrong, and another engine may be tried. */
  | { readonly type: "broken"; readonly reason: string; readonly code: ErrorCode; readonly lost: boolean };

export type ContributorEvent =
  | { readonly type: "start" | "pause" | "resume" | "stop" | "woke" }
  | { readonly type: "linked"; readonly dial: number }
  /** A dial failed or a link ended. */
  | { readonly type: "linkEnded"; readonly dial: number; readonly reason: string }
  | { readonly type: "received"; readonly dial: number; readonly lane: SessionLane; readonly message: RelayMessage }
  /** The other end of a lane has taken more of what was sent. */
  | { readonly type: "carried"; readonly dial: number; readonly lane: SessionLane }
  /** The relay has the key that it names. */
  | { readonly type: "proven"; readonly dial: number; readonly relay: Bytes }
  /** What arrived is no message of this protocol, or not the relay's. */
  | { readonly type: "garbled"; readonly dial: number; readonly reason: string }
  | { readonly type: "rtcOpened" }
  | { readonly type: "rtcEnded"; readonly reason: string }
  /** Data are here, the engine is ready, and what was remembered of the run is restored. */
  | { readonly type: "prepared"; readonly pending: Pending | null; readonly late: Pending | null }
  /** The work is on another engine. */
  | { readonly type: "moved"; readonly engine: EngineInUse }
  | { readonly type: "unprepared"; readonly reason: string; readonly fatal: ErrorCode | null }
  | { readonly type: "fetched"; readonly version: number; readonly digest: Digest }
  | { readonly type: "unfetched"; readonly reason: string }
  /** What is to be checked is here, or why it cannot be fetched. */
  | { readonly type: "supplied"; readonly assignment: string; readonly trouble: string | null }
  /** Something failed that the work can go on without. */
  | { readonly type: "troubled"; readonly reason: string }
  | { readonly type: "stepped"; readonly assignment: string; readonly step: number; readonly tokens: number }
  | { readonly type: "finished"; readonly assignment: string; readonly result: JobResult };

export type Effect =
  | { readonly type: "dial"; readonly dial: number }
  | { readonly type: "hangUp"; readonly reason: string }
  | { readonly type: "send"; readonly message: ContributorMessage }
  /** Check that the relay has the key it names, then sign the nonce and send `prove`. */
  | {
      readonly type: "prove";
      readonly nonce: Bytes;
      readonly relay: Bytes;
      readonly signature: Bytes;
      readonly dial: number;
    }
  | { readonly type: "openRtc"; readonly dial: number }
  | { readonly type: "closeRtc"; readonly reason: string }
  | { readonly type: "prepare"; readonly run: Digest; readonly charter: Charter; readonly losses: number }
  | { readonly type: "fetch"; readonly head: VersionInfo; readonly earlier: readonly VersionInfo[] }
  /** Fetch what is to be checked. */
  | { readonly type: "supply"; readonly assignment: ValidateAssignment }
  | { readonly type: "work"; readonly assignment: Assignment; readonly deadlineMs: number }
  /** Train ahead, from where the last assignment ended, until `stepsMax` steps are taken there. */
  | { readonly type: "ahead"; readonly assignment: string; readonly stepsMax: number }
  | { readonly type: "abort" }
  /** Send a contribution, or offer it where it is sent in pieces. */
  | { readonly type: "upload"; readonly id: ContributionId; readonly lane: SessionLane }
  /** Send the pieces `from` … `to` − 1 of what was offered. */
  | {
      readonly type: "pieces";
      readonly id: ContributionId;
      readonly lane: SessionLane;
      readonly from: number;
      readonly to: number;
    }
  | { readonly type: "settle"; readonly id: ContributionId; readonly outcome: Outcome }
  /** Put the engine away. */
  | { readonly type: "putAway" };

/** What is to be sent, or was sent last: the older one until the relay has it, then the last one. */
export function sendingOf({ pending, late, upload }: Sendings): Pending | null {
  const after = pending !== null && (upload?.id === pending.id || hasAll(late, upload));
  return late === null || after ? pending : late;
}

/** Whether the relay has all of what was sent last. */
export function isThere(state: Sendings): boolean {
  return hasAll(sendingOf(state), state.upload);
}

type Sendings = Pick<ContributorState, "pending" | "late" | "upload">;

function hasAll(sent: Pending | null, upload: Upload | null): boolean {
  return sent !== null && upload?.id === sent.id && upload.held !== null && upload.held >= sent.pieces;
}

/**
 * What becomes of the residual that a contribution was packed from: what was accepted leaves it, what came late or is unknown
 * stays to be sent again, and what was found to be harmful is thrown away, or every later contribution would contain it too.
 */
export type Outcome = "accepted" | "kept" | "discarded";

export function createState(identity: Identity, rtcAvailable: boolean): ContributorState {
  return {
    identity,
    intent: "stopped",
    failure: null,
    link: { type: "waiting", untilMs: 0 },
    dial: 0,
    attempts: 0,
    openMs: 0,
    trouble: "",
    beatMs: 0,
    silentBeats: 0,
    rtcSilentBeats: 0,
    pingedMs: 0,
    rtc: rtcAvailable ? "none" : "unavailable",
    rtcMs: 0,
    rtcAttempts: 0,
    laneReason: rtcAvailable ? "" : "This program has no WebRTC.",
    relay: null,
    contributor: null,
    run: null,
    preparation: "none",
    prepareMs: 0,
    rebuilds: 0,
    head: null,
    earlier: [],
    headMs: 0,
    base: null,
    fetching: null,
    fetchMs: 0,
    readied: null,
    readyMs: 0,
    assigned: null,
    earlyMs: 0,
    job: null,
    trail: null,
    pending: null,
    late: null,
    upload: null,
    uploadMs: 0,
    heard: [],
    report: null,
    step: 0,
    stepsMax: 0,
    speed: [],
    tokensTotal: 0,
    accepted: 0,
    refused: 0,
    validated: 0,
    contributions: [],
  };
}
