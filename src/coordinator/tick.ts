/**
 * The coordinator as a pure function: `tick(state, event, now, rng)` is the next state, the ledger events that led to it and
 * what the host is to do once they are durable. A round is gathering → training (`training.ts`) → judging (`judging.ts`) →
 * merging → the next; the order of things within a phase follows from the state alone, so every recovery takes the same
 * lines as a first try. After Psyche's coordinator (training.md §3.1) and a quorum that is never "all ready".
 */
import type { Rng } from "../base/rng.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { recall } from "../base/recent.ts";
import { addSession, dropSession, noteSession, record, send, setLive, setSession, type Draft } from "./draft.ts";
import { advanceJudging, judgingDueMs, takeMeasurement, takeReport } from "./judging.ts";
import {
  BUSY_RETRY_MS,
  NOTHING_JUDGED,
  RETURN_MS,
  sessionOf,
  type CoordinatorEvent,
  type CoordinatorState,
  type Session,
  type SessionId,
  type Tick,
} from "./live.ts";
import { operate, turnAway } from "./operator.ts";
import { advanceTraining, giveTraining, trainingDueMs } from "./training.ts";

type Of<K extends CoordinatorEvent["type"]> = Extract<CoordinatorEvent, { readonly type: K }>;

export function tick(state: CoordinatorState, event: CoordinatorEvent, nowMs: number, rng: Rng): Tick {
  const draft: Draft = { state, events: [], effects: [], nowMs, rng };
  take(draft, event);
  advanceTraining(draft);
  advanceJudging(draft);
  advanceTraining(draft); // a round that was skipped or merged may be followed at once
  if (draft.state.live.draining && draft.state.durable.stage === "idle") {
    draft.effects.push({ type: "drained" });
  }
  return { state: draft.state, events: draft.events, effects: draft.effects };
}

/** When a state that was ticked at `nowMs` wants a "time" event, at the latest; null while only other events can change anything. */
export function wakeAt(state: CoordinatorState, nowMs: number): number | null {
  const all = [...trainingDueMs(state), ...judgingDueMs(state)];
  const due = all.filter((timeMs) => timeMs > nowMs && timeMs < Number.POSITIVE_INFINITY);
  return due.length === 0 ? null : Math.min(...due);
}

/** Notes what happened. Nothing is begun here that follows from the state: that is for `advance…`. */
function take(draft: Draft, event: CoordinatorEvent): void {
  switch (event.type) {
    case "joined":
      join(draft, event);
      return;
    case "left":
      leave(draft, event.session, event.leave);
      return;
    case "ready":
      getReady(draft, event);
      return;
    case "released":
      release(draft, event);
      return;
    case "contributed":
      contribute(draft, event);
      return;
    case "rejected":
      reject(draft, event);
      return;
    case "reported":
      report(draft, event);
      return;
    case "measured":
      takeMeasurement(draft, event.contribution, event.losses);
      return;
    case "merged":
      merge(draft, event);
      return;
    case "operated":
      operate(draft, event.command);
      return;
    case "time":
      return;
    default:
      event satisfies never;
  }
}

/** One session a contributor: a second one replaces the first and takes over its training. */
function join(draft: Draft, { session: id, contributor, publicKey, agent }: Of<"joined">): void {
  const { durable, live, charter } = draft.state;
  const old = sessionOf(live, contributor);
  const why = durable.banned.get(contributor);
  if (why !== undefined) {
    turnAway(draft, id, why);
    return;
  }
  if (live.draining && old === undefined && awaited(draft, contributor) === null) {
    send(draft, id, { type: "refused", reason: "busy", retryMs: BUSY_RETRY_MS });
    draft.effects.push({ type: "disconnect", session: id, reason: "The relay is about to stop; it will be back" });
    return;
  }
  if (old !== undefined) {
    dropSession(draft, old);
    draft.effects.push({ type: "disconnect", session: old.id, reason: "Another session of this device has begun" });
  }
  const trains = old?.task?.type === "train" ? old.task.assignment : awaited(draft, contributor);
  const task = trains === null ? null : ({ type: "train", assignment: trains, returned: true } as const);
  setLive(draft, { absent: live.absent.delete(contributor) });
  addSession(draft, { id, contributor, ready: null, task });
  if (recall(durable.introduced, contributor) === undefined) {
    record(draft, { type: "introduced", contributor, publicKey, agent });
  }
  send(draft, id, {
    type: "welcome",
    run: durable.run,
    charter,
    contributor,
    head: durable.head,
    earlier: durable.heads.slice(0, -1),
  });
  for (const { contribution, verdict } of recall(durable.verdicts, contributor) ?? []) {
    send(draft, id, { type: "verdict", contribution, verdict });
  }
}

/** The training assignment that an absent contributor still has. */
function awaited(draft: Draft, contributor: Session["contributor"]): string | null {
  return draft.state.live.absent.get(contributor)?.assignment ?? null;
}

/** A contributor says that it leaves, or its link ended: then its training is waited for a moment. */
function leave(draft: Draft, id: SessionId, said: boolean): void {
  const { durable, live } = draft.state;
  const session = live.sessions.get(id);
  if (session === undefined) {
    return;
  }
  dropSession(draft, session);
  if (!said && session.task?.type === "train" && durable.stage === "open") {
    const absence = { assignment: session.task.assignment, untilMs: draft.nowMs + RETURN_MS };
    setLive(draft, { absent: live.absent.set(session.contributor, absence) });
  }
}

/** Ready while its training is open: its update is on the way, unless it has just returned and may have lost its work. */
function getReady(draft: Draft, { session: id, version }: Of<"ready">): void {
  const { durable, live } = draft.state;
  const session = live.sessions.get(id);
  if (session === undefined) {
    return;
  }
  if (version !== durable.head.version) {
    send(draft, id, { type: "version", head: durable.head });
    return;
  }
  if (session.task?.type === "train" && session.task.returned && draft.nowMs < live.trainUntilMs) {
    giveTraining(draft, session);
    return;
  }
  setSession(draft, id, { ready: version });
}

function release(draft: Draft, { session: id, assignment }: Of<"released">): void {
  if (draft.state.live.sessions.get(id)?.task?.assignment === assignment) {
    setSession(draft, id, { ready: null, task: null });
  }
}

function contribute(draft: Draft, event: Of<"contributed">): void {
  const { contribution, headerBytes: header, signature, norm, wireBytes } = event;
  record(draft, { type: "contributed", contribution, header, signature, norm, wireBytes });
  if (event.header.round === draft.state.durable.round) {
    endTraining(draft, event.session);
    noteSession(draft, event.session);
  }
}

function reject(draft: Draft, { session: id, contribution, reason, ends }: Of<"rejected">): void {
  const verdict: Verdict = { type: "refused", reason };
  const session = draft.state.live.sessions.get(id);
  if (session === undefined) {
    return;
  }
  send(draft, id, { type: "verdict", contribution, verdict });
  setLive(draft, { refused: draft.state.live.refused + 1 });
  if (ends && session.task?.type === "train") {
    setLive(draft, { ended: draft.state.live.ended.add(session.contributor) });
    endTraining(draft, id);
  }
}

function endTraining(draft: Draft, id: SessionId): void {
  if (draft.state.live.sessions.get(id)?.task?.type === "train") {
    setSession(draft, id, { task: null });
  }
}

function report(draft: Draft, { session: id, assignment, contribution, losses }: Of<"reported">): void {
  const session = draft.state.live.sessions.get(id);
  const task = session?.task;
  if (session === undefined) {
    return;
  }
  if (task?.type !== "validate" || task.assignment !== assignment || task.contribution !== contribution) {
    send(draft, id, { type: "refused", reason: "not-assigned", retryMs: null });
    return;
  }
  takeReport(draft, session, { contribution, losses });
  setSession(draft, id, { task: null });
}

function merge(draft: Draft, { round, head, server, bytesUp, bytesDown }: Of<"merged">): void {
  const { durable, live } = draft.state;
  if (!live.merging || durable.round !== round) {
    return;
  }
  const all = [...durable.contributions.values()];
  const accepted = all.filter(({ verdict }) => verdict?.type === "accepted");
  const tokens = accepted.reduce((sum, { header }) => sum + header.tokens, 0);
  const trainedMs = Math.max(1, draft.nowMs - durable.openedMs);
  record(draft, {
    type: "merged",
    round,
    head,
    contributions: accepted.map(({ id }) => id).sort(),
    server,
    bytesUp,
    bytesDown,
    tokensPerS: (tokens * 1_000) / trainedMs,
    contributors: new Set(all.map(({ header }) => header.contributor)).size,
    refused: durable.refused + live.refused,
  });
  setLive(draft, { merging: false, ...NOTHING_JUDGED, ended: live.ended.clear(), refused: 0 });
  const news = { type: "version", head } as const; // one message to all, so that it is encoded once
  for (const session of live.sessions.values()) {
    setSession(draft, session.id, { ready: null, task: null });
    send(draft, session.id, news);
  }
}
