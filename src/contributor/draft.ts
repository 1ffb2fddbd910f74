/**
 * The state while one tick edits its own copy of it, the effects so far, and the few changes that both halves of the tick
 * make: giving an assignment back, ending a link, failing.
 */
import type { ErrorCode } from "../base/assert.ts";
import type { Rng } from "../base/rng.ts";
import { OFFER_PAUSE_MS } from "../protocol/limits.ts";
import type { ContributionId } from "../base/bytes.ts";
import {
  DIAL_BACK_OFF,
  LASTED_MS,
  RTC_BACK_OFF,
  type BackOff,
  type ContributorState,
  type Effect,
  type Outcome,
} from "./state.ts";

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

/** The verdict on a contribution is no longer waited for. */
export function settle(draft: Draft, id: ContributionId, outcome: Outcome): void {
  const { pending, late, upload } = draft.state;
  const last = pending?.id === id;
  const rest = last && late !== null && upload !== null; // the relay had all of it before the last one was begun
  set(draft, {
    pending: last ? null : pending,
    late: late?.id === id ? null : late,
    upload: upload?.id !== id ? upload : rest ? { ...upload, id: late.id, held: late.pieces } : null,
  });
  draft.effects.push({ type: "settle", id, outcome });
}

export function fail(draft: Draft, code: ErrorCode, sentence: string): void {
  set(draft, { failure: { code, sentence }, assigned: null });
  hangUp(draft, sentence);
}

export function hangUp(draft: Draft, reason: string): void {
  draft.effects.push({ type: "hangUp", reason });
  endLink(draft, reason);
}

/** The WebRTC lane is gone, or could not be opened: it is tried again, updates go by the dialled link meanwhile. */
export function endRtc(draft: Draft, reason: string): void {
  const { state, nowMs, rng } = draft;
  if (state.rtc !== "unavailable") {
    const rtcMs = nowMs + OFFER_PAUSE_MS + waitMs(rng, state.rtcAttempts, RTC_BACK_OFF);
    set(draft, { rtc: "none", laneReason: reason, rtcMs, rtcAttempts: state.rtcAttempts + 1 });
  }
}

/** Full jitter: whoever lost the same relay at the same moment does not come back at the same moment. */
export function waitMs(rng: Rng, attempts: number, { baseMs, capMs }: BackOff): number {
  return Math.ceil(rng.float() * Math.min(capMs, baseMs * 2 ** Math.min(attempts, 20)));
}

/** The link is gone: dial again after a random share of the back-off. Work in hand goes on. */
export function endLink(draft: Draft, reason: string): void {
  const { state, nowMs, rng } = draft;
  // A welcome alone is no success: another session of this device may end this one, and this one that, for ever.
  const lasted = state.link.type === "open" && nowMs - state.openMs >= LASTED_MS;
  const attempts = lasted ? 0 : state.attempts;
  const untilMs = nowMs + waitMs(rng, attempts, DIAL_BACK_OFF);
  set(draft, {
    link: { type: "waiting", untilMs },
    dial: state.dial + 1,
    attempts: attempts + 1,
    trouble: reason,
    upload: null,
    readied: null,
    rtc: state.rtc === "unavailable" ? "unavailable" : "none",
    rtcMs: 0,
    laneReason: state.rtc === "unavailable" ? state.laneReason : "",
  });
}
