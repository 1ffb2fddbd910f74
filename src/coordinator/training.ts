/**
 * Gathering and training: opens a round as soon as one contributor is ready, gives work to whoever comes while at least
 * half of the time remains, and closes the round when nothing more can be expected, at the deadline at the latest.
 */
import type { Charter } from "../protocol/charter.ts";
import { send, setLive, setSession, record, type Draft } from "./draft.ts";
import { trainAssignment } from "./assignment.ts";
import { DRAW_MS, GRACE_SHARE_MIN, type CoordinatorState, type LiveState, type Session } from "./live.ts";
import { judgeNorms } from "./judging.ts";
import { inTime } from "./state.ts";

/** A joiner gets an assignment while at least this share of the round's time remains. */
const JOIN_SHARE = 0.5;

/** Does whatever is due before and during training. */
export function advanceTraining(draft: Draft): void {
  if (draft.state.durable.stage === "idle") {
    openRound(draft);
  }
  if (draft.state.durable.stage === "open") {
    assignTraining(draft);
    closeRound(draft);
  }
}

/** When training next needs a look. */
export function trainingDueMs({ charter, durable, live }: CoordinatorState): number[] {
  switch (durable.stage) {
    case "idle":
      return [live.pauseUntilMs];
    case "open":
      return [
        live.closeMs,
        graceEndMs(charter, live),
        live.patientUntilMs,
        ...[...live.absent.values()].map(({ untilMs }) => untilMs),
      ];
    case "closed":
      return [];
    default:
      return durable.stage satisfies never;
  }
}

function openRound(draft: Draft): void {
  const { charter, durable, live } = draft.state;
  const someone = [...live.sessions.values()].some((session) => mayTrain(draft.state, session));
  if (!someone || durable.paused || live.draining || draft.nowMs < live.pauseUntilMs) {
    return;
  }
  record(draft, { type: "opened", round: durable.round, baseVersion: durable.head.version, seed: draft.rng.uint32() });
  const trainUntilMs = draft.nowMs + charter.round.trainMs;
  setLive(draft, {
    trainUntilMs,
    closeMs: trainUntilMs + charter.round.graceMs,
    quorumMs: null,
    patientUntilMs: draft.nowMs,
    absent: new Map(),
    ended: new Set(),
  });
}

function assignTraining(draft: Draft): void {
  const remainingMs = draft.state.live.trainUntilMs - draft.nowMs;
  if (remainingMs < JOIN_SHARE * draft.state.charter.round.trainMs) {
    return;
  }
  for (const session of draft.state.live.sessions.values()) {
    if (mayTrain(draft.state, session)) {
      giveTraining(draft, session);
    }
  }
}

/** Sends a contributor its training assignment of this round, with the time that remains. */
export function giveTraining(draft: Draft, session: Session): void {
  const remainingMs = draft.state.live.trainUntilMs - draft.nowMs;
  const assignment = trainAssignment(draft.state, session.contributor, remainingMs);
  setSession(draft, session.id, { ready: null, task: { type: "train", assignment: assignment.id, returned: false } });
  send(draft, session.id, { type: "assign", assignment });
}

function mayTrain({ durable, live }: CoordinatorState, { contributor, ready, task }: Session): boolean {
  if (ready !== durable.head.version || task !== null) {
    return false;
  }
  const answered = inTime(durable).some(({ header }) => header.contributor === contributor);
  return durable.stage === "idle" || !(answered || live.ended.has(contributor));
}

/**
 * Until when the rest is waited for once there is a quorum: its uploads show what is usual now. Infinite before, and where it
 * was there before the training deadline: then it says nothing about uploads of those who train until then.
 */
function graceEndMs({ round }: Charter, { quorumMs, trainUntilMs }: LiveState): number {
  if (quorumMs === null || quorumMs < trainUntilMs) {
    return Number.POSITIVE_INFINITY;
  }
  const tookMs = quorumMs - trainUntilMs;
  return trainUntilMs + Math.max(GRACE_SHARE_MIN * round.graceMs, (1 + round.patience) * tookMs);
}

function closeRound(draft: Draft): void {
  const { nowMs } = draft;
  const { charter, durable, live } = draft.state;
  const training = [...live.sessions.values()].filter(({ task }) => task?.type === "train").length;
  const absent = [...live.absent.values()].filter(({ untilMs }) => nowMs < untilMs).length;
  const here = inTime(durable).length; // nobody waits for what is late
  const all = here + training + absent;
  const patient = nowMs < live.patientUntilMs; // after a restart most are still to come back
  const quorum = !patient && here > 0 && here >= charter.round.quorum * all;
  setLive(draft, { quorumMs: quorum ? (live.quorumMs ?? nowMs) : null }); // joiners may undo it
  if ((patient || here < all) && nowMs < Math.min(live.closeMs, graceEndMs(charter, draft.state.live))) {
    return;
  }
  record(draft, { type: "closed", round: durable.round });
  for (const session of live.sessions.values()) {
    if (session.task?.type === "train") {
      setSession(draft, session.id, { task: null });
    }
  }
  setLive(draft, { drawMs: nowMs + DRAW_MS, judging: new Map(), absent: new Map() });
  judgeNorms(draft);
}
