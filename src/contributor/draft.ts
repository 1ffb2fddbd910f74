/**
 * The state while one tick edits its own copy of it, the effects so far, and the few changes that both halves of the tick
 * make: giving an assignment back, ending a link, failing.
 */
import type { Rng } from "../base/rng.ts";
import { BACKOFF_MS, BACKOFF_MS_MAX, type ContributorState, type Effect } from "./state.ts";

export interface Draft {
  state: ContributorState;
  readonly effects: Effect[];
  readonly nowMs: number;
  readonly rng: Rng;
}

export function set(draft: Draft, change: Partial<ContributorState>): void {
  draft.state = { ...draft.state, ...change };
}

export function release(draft: Draft, assignment: string): void {
  if (draft.state.link.type === "open") {
    draft.effects.push({ type: "send", message: { type: "release", assignment } });
  }
}

export function fail(draft: Draft, failure: string): void {
  set(draft, { failure, assigned: null });
  hangUp(draft, failure);
}

export function hangUp(draft: Draft, reason: string): void {
  draft.effects.push({ type: "hangUp", reason });
  endLink(draft, reason);
}

/** The link is gone: dial again after a random share of the back-off. Work in hand goes on. */
export function endLink(draft: Draft, reason: string): void {
  const { state, nowMs, rng } = draft;
  const capMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** Math.min(state.attempts, 20));
  const untilMs = nowMs + Math.ceil(rng.float() * capMs);
  set(draft, {
    link: { type: "waiting", untilMs },
    dial: state.dial + 1,
    attempts: state.attempts + 1,
    trouble: reason,
    upload: null,
    readied: null,
    rtc: state.rtc === "unavailable" ? "unavailable" : "none",
    laneReason: state.rtc === "unavailable" ? state.laneReason : "",
  });
}
