/**
 * Gathering and training: opens a round as soon as one contributor is ready, gives work to whoever comes while at least
 * half of the time remains, and closes the round when nothing more can be expected, at the deadline at the latest.
 */
import { send, setLive, setSession, record, type Draft } from "./draft.ts";
import { trainAssignment } from "./assignment.ts";
import { DRAW_MS, type CoordinatorState, type Session } from "./live.ts";
import { judgeNorms } from "./judging.ts";

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
export function trainingDueMs({ durable, live }: CoordinatorState): number[] {
  switch (durable.stage) {
    case "idle":
      return [live.pauseUntilMs];
    case "open":
      return [live.closeMs, live.patientUntilMs, ...[...live.absent.values()].map(({ untilMs }) => untilMs)];
    case "closed":
      return [];
    default:
      return durable.stage satisfies never;
  }
}

function openRound(draft: Draft): void {
  const { charter, durable, live } = draft.state;
  const someone = [...live.sessions.values()].some((session) => mayTrain(draft.state, session));
  if (!someone || draft.nowMs < live.pauseUntilMs) {
    return;
  }
  record(draft, { type: "opened", round: durable.round, baseVersion: durable.head.version, seed: draft.rng.uint32() });
  const trainUntilMs = draft.nowMs + charter.round.trainMs;
  setLive(draft, {
    trainUntilMs,
    closeMs: trainUntilMs + charter.round.graceMs,
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
  const answered = [...durable.contributions.values()].some(({ header }) => header.contributor === contributor);
  return durable.stage === "idle" || !(answered || live.ended.has(contributor));
}

function closeRound(draft: Draft): void {
  const { durable, live } = draft.state;
  const { nowMs } = draft;
  const awaited =
    nowMs < live.patientUntilMs ||
    [...live.sessions.values()].some(({ task }) => task?.type === "train") ||
    [...live.absent.values()].some(({ untilMs }) => nowMs < untilMs);
  if (awaited && nowMs < live.closeMs) {
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
