/**
 * The other half of the coordinator's state, which a restart forgets: who is connected, what they were asked, when it is
 * due. With it, what can happen to a coordinator and what it can ask its host to do.
 */
import { Map as PersistentMap, OrderedMap, OrderedSet, Set as PersistentSet } from "immutable";
import type { Bytes, ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import type { Charter } from "../protocol/charter.ts";
import type { ContributionHeader, Losses, RelayMessage, VersionInfo } from "../protocol/messages.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { Reason } from "../protocol/verdict.ts";
import type { MeasureFacts } from "../trust/measure.ts";
import type { DurableState } from "./state.ts";

/** Pause after a round without an accepted contribution, so that somebody who comes and goes cannot fill the ledger. */
export const SKIP_PAUSE_MS = 2_000;
/** A contributor whose link dropped in the middle of its training is waited for this long, within the round's deadline. */
export const RETURN_MS = 5_000;
/** After a restart a round is not closed early before contributors had this long to come back. */
export const RESTART_PATIENCE_MS = 15_000;
/** Longest wait, after a round closed, for its contributors to say that they are ready to validate. */
export const DRAW_MS = 1_000;
/** Once a quorum has contributed, the rest get at least this share of `graceMs` after the training deadline. */
export const GRACE_SHARE_MIN = 0.25;
/** When a participant that was refused as "busy" may come back. */
export const BUSY_RETRY_MS = 30_000;
/** What a report may take on the wire beyond the validator's time. */
export const REPORT_GRACE_MS = 2_000;

/** Numbers sessions within one life of the relay. */
export type SessionId = number;

export interface Session {
  readonly id: SessionId;
  readonly contributor: ContributorId;
  /** The version it holds and wants work on; null until it says so, and from each assignment on until it says so again. */
  readonly ready: number | null;
  readonly task:
    | { readonly type: "train"; readonly assignment: string; readonly returned: boolean }
    | { readonly type: "validate"; readonly assignment: string; readonly contribution: ContributionId }
    | null;
}

/** How far the judging of one contribution is. */
export type Judging =
  | { readonly type: "validator"; readonly session: SessionId }
  /** `report` is what a validator measured before, and who it was. */
  | { readonly type: "referee"; readonly report: { readonly losses: Losses; readonly by: ContributorId } | null };

/** Its maps and sets are persistent, and what a tick asks of all sessions or contributions is kept up to date (`draft.ts`). */
export interface LiveState {
  /** In the order in which they came. */
  readonly sessions: OrderedMap<SessionId, Session>;
  readonly sessionOf: PersistentMap<ContributorId, SessionId>;
  /** Sessions that want training: ready for the head, without a task, and nothing has come of them in this round. */
  readonly seekers: PersistentSet<SessionId>;
  /** Sessions whose task is training. */
  readonly trainers: PersistentSet<SessionId>;
  /** Sessions that are not ready for the head again after their contribution to this round. */
  readonly unready: PersistentSet<SessionId>;
  /** Training until here; contributions until `closeMs`. */
  readonly trainUntilMs: number;
  readonly closeMs: number;
  /** When a quorum of this round's trainers had contributed; null until then. */
  readonly quorumMs: number | null;
  /** No early close before this. */
  readonly patientUntilMs: number;
  /** Trainers whose link dropped, and until when they are waited for; the earliest first. */
  readonly absent: OrderedMap<ContributorId, { readonly assignment: string; readonly untilMs: number }>;
  /** Whose assignment in this round has ended without a recorded contribution. */
  readonly ended: PersistentSet<ContributorId>;
  /** Validators are drawn at this time at the latest; null when they have been. */
  readonly drawMs: number | null;
  readonly judging: PersistentMap<ContributionId, Judging>;
  /** Validators are waited for until here; infinite where there are none. */
  readonly judgeUntilMs: number;
  /** What still waits for the referee when it has measured something after this is refused as busy; infinite while validators are waited for. */
  readonly refereeUntilMs: number;
  /** Contributions without a verdict that have no validator, or whose validator has left them; the referee is to look. */
  readonly loose: OrderedSet<ContributionId>;
  readonly merging: boolean;
  /** No new round before this. */
  readonly pauseUntilMs: number;
  /** The operator wants this relay to stop once the round has ended; nobody new is let in. */
  readonly draining: boolean;
  /** Contributions refused without a ledger entry since the last version. */
  readonly refused: number;
}

export interface CoordinatorState {
  readonly charter: Charter;
  readonly durable: DurableState;
  readonly live: LiveState;
}

export type OperatorCommand =
  | { readonly type: "pause" }
  | { readonly type: "resume" }
  | { readonly type: "drain" }
  | { readonly type: "ban"; readonly contributor: ContributorId; readonly why: string }
  | { readonly type: "unban"; readonly contributor: ContributorId };

export type CoordinatorEvent =
  | {
      readonly type: "joined";
      readonly session: SessionId;
      readonly contributor: ContributorId;
      readonly publicKey: Bytes;
      readonly agent: string;
    }
  | { readonly type: "left"; readonly session: SessionId; readonly leave: boolean }
  | { readonly type: "ready"; readonly session: SessionId; readonly version: number }
  | { readonly type: "released"; readonly session: SessionId; readonly assignment: string }
  /** A contribution passed `screen` and the host's checks of signature, digest and form; its payload is stored. */
  | {
      readonly type: "contributed";
      readonly session: SessionId;
      readonly contribution: ContributionId;
      readonly header: ContributionHeader;
      readonly headerBytes: Bytes;
      readonly signature: Bytes;
      readonly norm: number;
      readonly wireBytes: number;
    }
  /** A contribution did not pass the host's checks. `ends`: it was the present round's answer, so the assignment is over. */
  | {
      readonly type: "rejected";
      readonly session: SessionId;
      readonly contribution: ContributionId;
      readonly reason: Reason;
      readonly ends: boolean;
    }
  /** A report whose signature and form the host has checked. */
  | {
      readonly type: "reported";
      readonly session: SessionId;
      readonly assignment: string;
      readonly contribution: ContributionId;
      readonly losses: Losses;
    }
  /** The referee's result; null when it could not measure. */
  | { readonly type: "measured"; readonly contribution: ContributionId; readonly losses: Losses | null }
  /** The host has computed and stored the next version. */
  | {
      readonly type: "merged";
      readonly round: number;
      readonly head: VersionInfo;
      readonly server: Digest;
      readonly bytesUp: number;
      readonly bytesDown: number;
    }
  /** The operator wants something; what cannot be done changes nothing (`refusalOf` says why). */
  | { readonly type: "operated"; readonly command: OperatorCommand }
  /** Time has passed, or the relay has just started. */
  | { readonly type: "time" };

/** What the host does after the ledger events of the same tick are durable, in this order. */
export type Effect =
  | { readonly type: "send"; readonly session: SessionId; readonly message: RelayMessage }
  | { readonly type: "disconnect"; readonly session: SessionId; readonly reason: string }
  /** `again`: a validator has measured it. */
  | {
      readonly type: "measure";
      readonly contribution: ContributionId;
      readonly facts: MeasureFacts;
      readonly again: boolean;
    }
  | { readonly type: "merge"; readonly round: number; readonly contributions: readonly ContributionId[] }
  | { readonly type: "forget"; readonly blobs: readonly Digest[] }
  /** A draining relay has nothing left to do. May be asked for again. */
  | { readonly type: "drained" };

export interface Tick {
  readonly state: CoordinatorState;
  /** To be appended to the ledger, with the time of the tick. */
  readonly events: readonly LedgerEvent[];
  readonly effects: readonly Effect[];
}

const NO_SESSIONS = {
  sessions: OrderedMap<SessionId, Session>(),
  sessionOf: PersistentMap<ContributorId, SessionId>(),
  seekers: PersistentSet<SessionId>(),
  trainers: PersistentSet<SessionId>(),
  unready: PersistentSet<SessionId>(),
} as const;

/** No contribution is being judged. */
export const NOTHING_JUDGED = {
  judging: PersistentMap<ContributionId, Judging>(),
  judgeUntilMs: Number.POSITIVE_INFINITY,
  refereeUntilMs: Number.POSITIVE_INFINITY,
  loose: OrderedSet<ContributionId>(),
} as const;

/** The state of a relay that starts at `nowMs` with what its ledger says: nobody is connected, an open round gets its time anew. */
export function startState(charter: Charter, durable: DurableState, nowMs: number): CoordinatorState {
  const trainUntilMs = nowMs + charter.round.trainMs;
  return {
    charter,
    durable,
    live: {
      ...NO_SESSIONS,
      trainUntilMs,
      closeMs: trainUntilMs + charter.round.graceMs,
      quorumMs: null,
      patientUntilMs: nowMs + RESTART_PATIENCE_MS,
      absent: OrderedMap(),
      ended: PersistentSet(),
      drawMs: nowMs,
      ...NOTHING_JUDGED,
      merging: false,
      pauseUntilMs: 0,
      draining: false,
      refused: 0,
    },
  };
}

/** The session of a contributor, where it has one. */
export function sessionOf({ sessions, sessionOf: ids }: LiveState, contributor: ContributorId): Session | undefined {
  const id = ids.get(contributor);
  return id === undefined ? undefined : sessions.get(id);
}

/** Whether a contributor has a session, is waited for, or has made a contribution that is not judged yet. */
export function hasWork({ durable, live }: CoordinatorState, contributor: ContributorId): boolean {
  const undecided = [durable.answers, durable.previousAnswers].some((answers) => {
    const answer = answers.get(contributor);
    return answer !== undefined && durable.contributions.get(answer)?.verdict === null;
  });
  return undecided || live.absent.has(contributor) || live.sessionOf.has(contributor);
}
