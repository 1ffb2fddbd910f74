/** One tick in the making: the state so far and what the tick will return. Shared by the phases' files, never kept. */
import { present } from "../base/assert.ts";
import type { ContributionId, ContributorId } from "../base/bytes.ts";
import type { Rng } from "../base/rng.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { Losses, RelayMessage } from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";
import type { CoordinatorState, Effect, LiveState, Session, SessionId } from "./live.ts";
import { applyEvent, blobsOf } from "./state.ts";

export interface Draft {
  state: CoordinatorState;
  readonly events: LedgerEvent[];
  readonly effects: Effect[];
  readonly nowMs: number;
  readonly rng: Rng;
}

/** Writes `event` to the ledger and folds it into the state, by the same function that reads the ledger. */
export function record(draft: Draft, event: LedgerEvent): void {
  draft.events.push(event);
  const durable = applyEvent(draft.state.durable, event, draft.nowMs);
  if (event.type === "merged" || event.type === "skipped") {
    const kept = blobsOf(durable);
    const blobs = [...blobsOf(draft.state.durable)].filter((digest) => !kept.has(digest));
    if (blobs.length > 0) {
      draft.effects.push({ type: "forget", blobs });
    }
  }
  draft.state = { ...draft.state, durable };
}

export function setLive(draft: Draft, change: Partial<LiveState>): void {
  draft.state = { ...draft.state, live: { ...draft.state.live, ...change } };
}

/** Changes one session. */
export function setSession(draft: Draft, id: SessionId, change: Partial<Session>): void {
  const session = draft.state.live.sessions.get(id);
  if (session !== undefined) {
    setLive(draft, { sessions: draft.state.live.sessions.set(id, { ...session, ...change }) });
    noteSession(draft, id);
    leaveContribution(draft, session);
  }
}

/** Adds a session of a contributor that has none. */
export function addSession(draft: Draft, session: Session): void {
  const { sessions, sessionOf: ids } = draft.state.live;
  setLive(draft, {
    sessions: sessions.set(session.id, session),
    sessionOf: ids.set(session.contributor, session.id),
  });
  noteSession(draft, session.id);
}

export function dropSession(draft: Draft, session: Session): void {
  const { sessions, sessionOf: ids } = draft.state.live;
  setLive(draft, { sessions: sessions.delete(session.id), sessionOf: ids.delete(session.contributor) });
  noteSession(draft, session.id);
  leaveContribution(draft, session);
}

/** Brings up to date what is known of a session: after a change of it, or of what its contributor has done in this round. */
export function noteSession(draft: Draft, id: SessionId): void {
  const { durable, live } = draft.state;
  const session = live.sessions.get(id);
  const has = (set: LiveState["trainers"], member: boolean): LiveState["trainers"] =>
    member ? set.add(id) : set.delete(id);
  const isReady = session?.ready === durable.head.version;
  const answered = session !== undefined && durable.answers.has(session.contributor);
  const isOver = answered || (session !== undefined && live.ended.has(session.contributor));
  setLive(draft, {
    seekers: has(live.seekers, isReady && session?.task === null && !isOver),
    trainers: has(live.trainers, session?.task?.type === "train"),
    unready: has(live.unready, answered && !isReady),
  });
}

/** Whoever validated a contribution, as `before` says, does so no more. */
function leaveContribution(draft: Draft, { id, task: before }: Session): void {
  const { live } = draft.state;
  if (before?.type !== "validate" || live.sessions.get(id)?.task?.assignment === before.assignment) {
    return;
  }
  const judging = live.judging.get(before.contribution);
  if (judging?.type === "validator" && judging.session === id) {
    setLive(draft, {
      judging: live.judging.delete(before.contribution),
      loose: live.loose.add(before.contribution),
    });
  }
}

export function send(draft: Draft, session: SessionId, message: RelayMessage): void {
  draft.effects.push({ type: "send", session, message });
}

/** Writes down a verdict and tells its author, who may be gone: then it is told when it returns. */
export function decide(
  draft: Draft,
  contribution: ContributionId,
  {
    verdict,
    by,
    losses,
  }: { readonly verdict: Verdict; readonly by: ContributorId | "relay"; readonly losses: Losses | null },
): void {
  record(draft, { type: "judged", contribution, verdict, by, losses });
  const { durable, live } = draft.state;
  setLive(draft, { judging: live.judging.delete(contribution), loose: live.loose.delete(contribution) });
  const { contributor } = present(durable.contributions.get(contribution), "a contribution that is judged").header;
  const session = live.sessionOf.get(contributor);
  if (session !== undefined) {
    send(draft, session, { type: "verdict", contribution, verdict });
  }
}
