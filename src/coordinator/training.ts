/**
 * Gathering and training: opens a round as soon as one contributor is ready, gives work to whoever comes while at least
 * half of the time remains, and closes the round when nothing more can be expected, at the deadline at the latest.
 */
import { present } from "../base/assert.ts";
import type { Charter } from "../protocol/charter.ts";
import { JOIN_SHARE } from "../protocol/limits.ts";
import { send, setLive, setSession, record, type Draft } from "./draft.ts";
import { trainAssignment } from "./assignment.ts";
import {
  DRAW_MS,
  GRACE_SHARE_MIN,
  NOTHING_JUDGED,
  type CoordinatorState,
  type LiveState,
  type Session,
} from "./live.ts";
import { judgeNorms } from "./judging.ts";

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
        live.absent.first()?.untilMs ?? Number.POSITIVE_INFINITY,
      ];
    case "closed":
      return [];
    default:
      return durable.stage satisfies never;
  }
}

function openRound(draft: Draft): void {
  const { charter, durable, live } = draft.state;
  if (live.seekers.size === 0 || durable.paused || live.draining || draft.nowMs < live.pauseUntilMs) {
    return;
  }
  record(draft, { type: "opened", round: durable.round, baseVersion: durable.head.version, seed: draft.rng.uint32() });
  const trainUntilMs = draft.nowMs + charter.round.trainMs;
  setLive(draft, {
    trainUntilMs,
    closeMs: trainUntilMs + charter.round.graceMs,
    quorumMs: null,
    patientUntilMs: draft.nowMs,
    absent: live.absent.clear(),
  });
}

function assignTraining(draft: Draft): void {
  const remainingMs = draft.state.live.trainUntilMs - draft.nowMs;
  if (remainingMs < JOIN_SHARE * draft.state.charter.round.trainMs) {
    return;
  }
  const { sessions, seekers } = draft.state.live;
  for (const id of [...seekers].sort((a, b) => a - b)) {
    giveTraining(draft, present(sessions.get(id), "a session that wants training"));
  }
}

/** Sends a contributor its training assignment of this round, with the time that remains. */
export function giveTraining(draft: Draft, session: Session): void {
  const remainingMs = draft.state.live.trainUntilMs - draft.nowMs;
  const assignment = trainAssignment(draft.state, session.contributor, remainingMs);
  setSession(draft, session.id, { ready: null, task: { type: "train", assignment: assignment.id, returned: false } });
  send(draft, session.id, { type: "assign", assignment });
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
  dropAbsent(draft);
  const { charter, durable, live } = draft.state;
  const here = durable.answers.size; // nobody waits for what is late
  const all = here + live.trainers.size + live.absent.size;
  const patient = nowMs < live.patientUntilMs; // after a restart most are still to come back
  const quorum = !patient && here > 0 && here >= charter.round.quorum * all;
  setLive(draft, { quorumMs: quorum ? (live.quorumMs ?? nowMs) : null }); // joiners may undo it
  if ((patient || here < all) && nowMs < Math.min(live.closeMs, graceEndMs(charter, draft.state.live))) {
    return;
  }
  record(draft, { type: "closed", round: durable.round });
  for (const id of live.trainers) {
    setSession(draft, id, { task: null });
  }
  setLive(draft, { drawMs: nowMs + DRAW_MS, ...NOTHING_JUDGED, absent: live.absent.clear() });
  judgeNorms(draft);
}

/** Forgets those who are not waited for any more. */
function dropAbsent(draft: Draft): void {
  let { absent } = draft.state.live;
  for (const [contributor, { untilMs }] of absent) {
    if (draft.nowMs < untilMs) {
      break;
    }
    absent = absent.delete(contributor);
  }
  setLive(draft, { absent });
}
