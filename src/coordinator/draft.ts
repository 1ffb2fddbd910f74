/** One tick in the making: the state so far and what the tick will return. Shared by the phases' files, never kept. */
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
  /** The sessions, where this tick has a copy of its own of them. */
  ownSessions?: Map<SessionId, Session>;
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

/** Changes one session. The map is copied once a tick: a round begins and ends with a change to each of thousands. */
export function setSession(draft: Draft, id: SessionId, change: Partial<Session>): void {
  const { sessions } = draft.state.live;
  const session = sessions.get(id);
  if (session !== undefined) {
    const own = draft.ownSessions === sessions ? draft.ownSessions : new Map(sessions);
    own.set(id, { ...session, ...change });
    draft.ownSessions = own;
    setLive(draft, { sessions: own });
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
  const author = draft.state.durable.contributions.get(contribution)?.header.contributor;
  const session = [...draft.state.live.sessions.values()].find((one) => one.contributor === author);
  if (session !== undefined) {
    send(draft, session.id, { type: "verdict", contribution, verdict });
  }
}
