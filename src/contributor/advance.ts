/**
 * The second half of a tick: looks at the whole state and starts whatever is due. Nothing here knows which event came last,
 * so every recovery takes the same lines as a first start.
 */
import { BEAT_MS, PING_MS } from "../protocol/limits.ts";
import { endRtc, hangUp, release, set, settle, type Draft } from "./draft.ts";
import {
  ANSWER_MS,
  DIAL_MS,
  isThere,
  sendingOf,
  SILENT_BEATS,
  STALL_MS,
  type Assigned,
  type ContributorState,
  type Pending,
} from "./state.ts";

/** Starts whatever the state says is due. */
export function advance(draft: Draft): void {
  if (draft.state.intent === "stopped" || draft.state.failure !== null) {
    standDown(draft);
    return;
  }
  advanceLink(draft);
  dropEndedWork(draft);
  if (draft.state.link.type !== "open") {
    return;
  }
  advancePreparation(draft);
  advanceUpload(draft);
  if (draft.state.intent === "working") {
    advanceWork(draft);
  }
}

function standDown(draft: Draft): void {
  abort(draft);
  set(draft, { assigned: null, report: null });
  if (draft.state.preparation === "done" && draft.state.job === null) {
    set(draft, { preparation: "none", prepareMs: 0 });
    draft.effects.push({ type: "putAway" });
  }
  if (draft.state.link.type === "waiting") {
    return;
  }
  if (draft.state.link.type === "open") {
    draft.effects.push({ type: "send", message: { type: "leave" } });
  }
  hangUp(draft, "The contributor left");
  set(draft, { attempts: 0 });
}

function advanceLink(draft: Draft): void {
  const { state, nowMs } = draft;
  switch (state.link.type) {
    case "waiting":
      if (nowMs >= state.link.untilMs) {
        set(draft, { link: { type: "dialling", untilMs: nowMs + DIAL_MS }, dial: state.dial + 1 });
        draft.effects.push({ type: "dial", dial: draft.state.dial });
      }
      return;
    case "dialling":
    case "greeting":
      if (nowMs >= state.link.untilMs) {
        hangUp(draft, "The relay does not answer");
      }
      return;
    case "open":
      if (nowMs >= state.beatMs) {
        beat(draft);
      }
      return;
    default:
      state.link satisfies never;
  }
}

/** One beat more without a word from the relay. A device that was asleep has missed its own beats, and counts none of them. */
function beat(draft: Draft): void {
  const { state, nowMs } = draft;
  const [silentBeats, rtcSilentBeats] = [state.silentBeats + 1, state.rtcSilentBeats + 1];
  set(draft, { beatMs: nowMs + BEAT_MS, silentBeats, rtcSilentBeats });
  if (silentBeats >= SILENT_BEATS) {
    hangUp(draft, "The relay has gone silent");
    return;
  }
  if (state.rtc === "open" && rtcSilentBeats >= SILENT_BEATS) {
    dropRtc(draft, "The relay has gone silent on WebRTC.");
  }
  if (nowMs >= state.pingedMs + PING_MS) {
    set(draft, { pingedMs: nowMs });
    draft.effects.push({ type: "send", message: { type: "ping" } });
  }
}

function dropRtc(draft: Draft, reason: string): void {
  draft.effects.push({ type: "closeRtc", reason });
  endRtc(draft, reason);
}

/** An assignment ends with its round; a paused contributor gives its assignment back; work without assignment is stopped. */
function dropEndedWork(draft: Draft): void {
  const { assigned, head, intent } = draft.state;
  if (assigned !== null) {
    const ended = head !== null && head.version > assigned.assignment.baseVersion;
    if (ended || intent === "paused") {
      if (!ended) {
        release(draft, assigned.assignment.id);
      }
      set(draft, { assigned: null, readied: null });
    }
  }
  const { job } = draft.state;
  const wanted =
    job?.type === "ahead" ? mayGoAhead(draft.state) : job?.assignment === draft.state.assigned?.assignment.id;
  if (job !== null && !wanted) {
    abort(draft);
  }
}

function abort(draft: Draft): void {
  const { job } = draft.state;
  if (job !== null && !job.aborted) {
    set(draft, { job: { ...job, aborted: true } });
    draft.effects.push({ type: "abort" });
  }
}

function advancePreparation(draft: Draft): void {
  const { state, nowMs } = draft;
  if (state.rtc === "none" && nowMs >= state.rtcMs) {
    set(draft, { rtc: "opening" });
    draft.effects.push({ type: "openRtc", dial: state.dial });
  }
  if (state.preparation === "none" && state.run !== null && state.job === null && nowMs >= state.prepareMs) {
    set(draft, { preparation: "running" });
    draft.effects.push({ type: "prepare", run: state.run.digest, charter: state.run.charter, losses: state.rebuilds });
  }
  const { preparation } = draft.state;
  const hasDesk = preparation === "running" || preparation === "done";
  const mayFetch = hasDesk && state.intent === "working" && state.fetching === null && nowMs >= state.fetchMs;
  if (mayFetch && state.head !== null && isBehind(state)) {
    set(draft, { fetching: state.head.digest });
    draft.effects.push({ type: "fetch", head: state.head, earlier: state.earlier });
  }
}

/** Sends what is finished: the report once, the contribution on every new link until its verdict is here. */
function advanceUpload(draft: Draft): void {
  const { state, nowMs } = draft;
  if (state.report !== null) {
    draft.effects.push({ type: "send", message: { type: "report", ...state.report } });
    set(draft, { report: null });
  }
  const { upload } = state;
  const sending = sendingOf(state);
  if (sending === null || state.preparation !== "done") {
    return;
  }
  const there = isThere(state);
  const begun = upload?.id === sending.id;
  const stalled = begun && !there && nowMs >= upload.movedMs + STALL_MS;
  if (stalled && upload.lane === "ws") {
    hangUp(draft, "The upload has stalled");
    return;
  }
  if (stalled) {
    dropRtc(draft, `The upload over WebRTC made no progress for ${STALL_MS / 1_000} s; it goes on without.`);
  }
  const lane = draft.state.rtc === "open" ? "rtc" : "ws";
  const laneGone = begun && upload.lane === "rtc" && lane === "ws";
  if (!begun || laneGone) {
    if (nowMs >= state.uploadMs) {
      const sent = sending.pieces === 1 ? 1 : 0;
      set(draft, { upload: { id: sending.id, dial: state.dial, lane, movedMs: nowMs, held: null, sent } });
      draft.effects.push({ type: "upload", id: sending.id, lane });
    }
    return;
  }
  if (there && nowMs >= Math.max(upload.movedMs, state.headMs) + ANSWER_MS) {
    for (const one of [state.late, state.pending]) {
      if (one !== null && isOver(state, one)) {
        settle(draft, one.id, "kept");
      }
    }
  }
}

/** Whether no round takes it any more. */
function isOver({ head, run }: ContributorState, { baseVersion }: Pending): boolean {
  const rounds = (run?.charter.round.lateShare ?? 0) > 0 ? 1 : 0;
  return head !== null && head.version > baseVersion + rounds;
}

function advanceWork(draft: Draft): void {
  const { state, nowMs } = draft;
  const { assigned, base, pending, job } = state;
  if (state.preparation !== "done") {
    return;
  }
  if (assigned?.payload === "wanted" && assigned.assignment.type === "validate") {
    set(draft, { assigned: { ...assigned, payload: "fetching" } });
    draft.effects.push({ type: "supply", assignment: assigned.assignment });
  }
  if (job !== null && (job.type !== "ahead" || !isFree(assigned))) {
    return;
  }
  if (assigned !== null) {
    const { assignment, deadlineMs } = assigned;
    const mayStart = assignment.type === "validate" ? assigned.payload === "here" : mayTrain(state);
    if (nowMs >= deadlineMs) {
      release(draft, assignment.id);
      set(draft, { assigned: null, readied: null });
    } else if (mayStart && base?.digest === assignment.baseDigest) {
      set(draft, { job: { assignment: assignment.id, type: assignment.type, aborted: false } });
      let untilMs = deadlineMs;
      set(draft, { step: 0, stepsMax: 0 });
      if (assignment.type === "train") {
        const earlyMs = Math.min(state.earlyMs, (deadlineMs - nowMs) / 2);
        untilMs -= earlyMs;
        set(draft, { stepsMax: assignment.stepsMax, earlyMs }); // more would only take longer to give back
        set(draft, { trail: null }); // it begins with what was trained ahead
      }
      draft.effects.push({ type: "work", assignment, deadlineMs: untilMs });
      return;
    } else {
      goAhead(draft);
      return;
    }
  }
  const answered = pending !== null && pending.baseVersion === base?.version ? state.upload !== null : mayTrain(state);
  if (base !== null && draft.state.readied !== base.version && answered && !isBehind(state) && nowMs >= state.readyMs) {
    set(draft, { readied: base.version });
    draft.effects.push({ type: "send", message: { type: "ready", version: base.version } });
  }
  goAhead(draft);
}

/** One contribution may be on its way while the next is made, where the relay takes it a round late. */
function mayTrain({ pending, late, run }: ContributorState): boolean {
  return late === null && (pending === null || (run?.charter.round.lateShare ?? 0) > 0);
}

/** Whether nothing is assigned that could be begun. */
function isFree(assigned: Assigned | null): boolean {
  return assigned === null || assigned.payload !== "here";
}

/** Nothing that is assigned can be begun: training goes on from where it ended, so that an update that travels costs no idle device. */
function goAhead(draft: Draft): void {
  const { trail, run, job } = draft.state;
  const stepsMax = run?.charter.round.aheadMax ?? 0;
  if (job === null && trail !== null && trail.steps < stepsMax && mayGoAhead(draft.state)) {
    set(draft, { job: { assignment: trail.assignment, type: "ahead", aborted: false }, step: trail.steps, stepsMax });
    draft.effects.push({ type: "ahead", assignment: trail.assignment, stepsMax });
  }
}

/** Until the next assignment is here; what leads past the version after the one it began at would be thrown away. */
function mayGoAhead({ intent, trail, assigned, head }: ContributorState): boolean {
  const current = trail !== null && head !== null && head.version <= trail.baseVersion + 1;
  return intent === "working" && isFree(assigned) && current;
}

/** A version may have the digest of the one before: where an update changes no bit, a round has passed all the same. */
function isBehind({ head, base }: ContributorState): boolean {
  return head !== null && (base?.version !== head.version || base.digest !== head.digest);
}
