/**
 * The contributor as a pure state machine: `tick(state, event, now, rng)` returns the next state and what is to be done.
 *
 * It works in two halves. `take` notes what happened; `advance` (`advance.ts`) then looks at the whole state and starts whatever is due
 * (dial, fetch, work, upload, say ready). Because the second half depends on the state alone, it does not matter in which
 * order things happened, and every recovery is the ordinary path: a lost link, a restart with an unanswered contribution and
 * a first start all pass through the same lines. Two rules carry the bookkeeping: a contribution is kept and sent again
 * until its verdict is here, and no work on a newer version is asked for before that, or where the charter takes what is late
 * before the verdict on the one before it.
 */
import { equalBytes, type Bytes } from "../base/bytes.ts";
import type { Rng } from "../base/rng.ts";
import { BEAT_MS, NONCE_BYTES, PROTOCOL_VERSION, UPDATES_KEPT } from "../protocol/limits.ts";
import type { Assignment, RelayMessage, VersionInfo } from "../protocol/messages.ts";
import { REASONS, verdictSentence, type Reason, type Verdict } from "../protocol/verdict.ts";
import { advance } from "./advance.ts";
import { endLink, endRtc, fail, hangUp, release, set, settle, type Draft } from "./draft.ts";
import {
  ANSWER_MS,
  CONTRIBUTIONS_SHOWN_MAX,
  HANDSHAKE_MS,
  HEARD_MAX,
  EARLY_KEPT,
  EARLY_MS,
  REBUILDS_MAX,
  RETRY_MS,
  RETRY_SPREAD,
  SPEED_MS,
  SPEED_SAMPLES_MAX,
  isThere,
  STALL_MS,
  type Assigned,
  type ContributorEvent,
  type ContributorState,
  type Effect,
  type JobResult,
  type Outcome,
  type Pending,
} from "./state.ts";
import { takeConfirmation, takeProgress } from "./upload.ts";

export interface Ticked {
  readonly state: ContributorState;
  readonly effects: readonly Effect[];
}

export function tick(state: ContributorState, event: ContributorEvent, nowMs: number, rng: Rng): Ticked {
  const draft: Draft = { state, effects: [], nowMs, rng };
  take(draft, event);
  advance(draft);
  return { state: draft.state, effects: draft.effects };
}

/** When a state that was just ticked wants to be woken though nothing happens; null when only an event can change it. */
export function wakeMs(state: ContributorState, nowMs: number): number | null {
  const { link, upload, uploadMs, assigned } = state;
  if (state.intent === "stopped" || state.failure !== null) {
    return null;
  }
  if (link.type !== "open") {
    return link.untilMs;
  }
  const times = [state.beatMs, state.rtcMs, state.prepareMs, state.fetchMs, state.readyMs, uploadMs];
  if (upload !== null) {
    const { movedMs } = upload;
    times.push(isThere(state) ? Math.max(movedMs, state.headMs) + ANSWER_MS : movedMs + STALL_MS);
  }
  if (assigned !== null) {
    times.push(assigned.deadlineMs);
  }
  // What was due at an earlier time has been done, or waits for an event.
  const later = times.filter((timeMs) => timeMs > nowMs);
  return later.length === 0 ? null : Math.min(...later);
}

/** Notes what happened. */
function take(draft: Draft, event: ContributorEvent): void {
  const { state, nowMs } = draft;
  switch (event.type) {
    case "start":
      begin(draft);
      return;
    case "resume":
      set(draft, { intent: state.intent === "stopped" ? "stopped" : "working" });
      return;
    case "pause":
      set(draft, { intent: state.intent === "stopped" ? "stopped" : "paused" });
      return;
    case "stop":
      set(draft, { intent: "stopped" });
      return;
    case "woke":
      return;
    case "linked":
      if (event.dial === state.dial && state.link.type === "dialling") {
        const { publicKey, agent, engine, device, privateData } = state.identity;
        const hello = { publicKey, nonce: nonceOf(draft.rng), agent, engine, device, privateData };
        set(draft, { link: { type: "greeting", untilMs: nowMs + HANDSHAKE_MS, proven: false } });
        set(draft, { beatMs: nowMs + BEAT_MS, silentBeats: 0, pingedMs: nowMs });
        draft.effects.push({ type: "send", message: { type: "hello", protocol: PROTOCOL_VERSION, ...hello } });
      }
      return;
    case "linkEnded":
      if (event.dial === state.dial) {
        endLink(draft, event.reason);
      }
      return;
    case "received":
      if (event.dial === state.dial) {
        set(draft, event.lane === "ws" ? { silentBeats: 0 } : { rtcSilentBeats: 0 });
        receive(draft, event.message);
      }
      return;
    case "carried":
      takeProgress(draft, event);
      return;
    case "proven":
      if (event.dial === state.dial) {
        set(draft, { relay: event.relay });
        set(draft, { link: state.link.type === "greeting" ? { ...state.link, proven: true } : state.link });
      }
      return;
    case "garbled":
      if (event.dial === state.dial) {
        hangUp(draft, event.reason);
      }
      return;
    case "rtcOpened":
      set(draft, { rtc: state.rtc === "opening" ? "open" : state.rtc, laneReason: "" });
      set(draft, { rtcSilentBeats: 0, rtcAttempts: 0 });
      return;
    case "rtcEnded":
      endRtc(draft, event.reason);
      return;
    case "prepared":
      if (endOvertaken(draft)) {
        return;
      }
      set(draft, { preparation: "done", trouble: "" });
      if (state.pending === null && state.late === null) {
        takeRemembered(draft, event);
      }
      return;
    case "moved": {
      const { kind, device, sentence } = event.engine;
      set(draft, { identity: { ...state.identity, engine: kind, device, engineSentence: sentence } });
      return;
    }
    case "unprepared":
      if (endOvertaken(draft)) {
        return;
      }
      set(draft, { preparation: "none", prepareMs: nowMs + RETRY_MS, trouble: event.reason });
      if (event.fatal !== null) {
        fail(draft, event.fatal, event.reason);
      }
      return;
    case "fetched":
      set(draft, { fetching: null, trouble: "", base: { version: event.version, digest: event.digest } });
      return;
    case "unfetched":
      set(draft, { fetching: null, fetchMs: nowMs + RETRY_MS, trouble: event.reason });
      return;
    case "supplied":
      takeSupply(draft, event.assignment, event.trouble);
      return;
    case "troubled":
      set(draft, { trouble: event.reason });
      return;
    case "stepped":
      noteStep(draft, event.assignment, event.step, event.tokens);
      return;
    case "finished":
      finishJob(draft, event.assignment, event.result);
      return;
    default:
      event satisfies never;
  }
}

/** Whether the preparation that has ended was for a run that is forgotten; then the next may begin. */
function endOvertaken(draft: Draft): boolean {
  const overtaken = draft.state.preparation === "overtaken";
  if (overtaken) {
    set(draft, { preparation: "none" });
  }
  return overtaken;
}

/** Starts, and after a failure forgets the run: the relay may serve another one by now. */
function begin(draft: Draft): void {
  const { state } = draft;
  set(draft, { intent: "working" });
  if (state.failure !== null) {
    const forgotten = {
      relay: null,
      run: null,
      head: null,
      earlier: [],
      trail: null,
      base: null,
      fetching: null,
      pending: null,
      late: null,
      upload: null,
    } as const;
    set(draft, {
      ...forgotten,
      failure: null,
      preparation: state.preparation === "running" || state.preparation === "overtaken" ? "overtaken" : "none",
      prepareMs: 0,
      rebuilds: 0,
      trouble: "",
      attempts: 0,
    });
  }
}

function nonceOf(rng: Rng): Bytes {
  return Uint8Array.from({ length: NONCE_BYTES }, () => rng.below(256));
}

const OTHER_RELAY =
  "The relay has another key than before: it is another relay, or somebody is in between. Start again to take part in what it serves now.";

/** What a relay may say before it has proven its key. */
const UNPROVEN: readonly RelayMessage["type"][] = ["challenge", "refused", "banned", "ice", "ping", "pong"];

/** Whoever leaves the challenge out has proven nothing, and is believed nothing. */
function isOutOfTurn({ link }: Draft["state"], { type }: RelayMessage): boolean {
  const welcomes = type === "welcome" && link.type === "greeting" && link.proven;
  return link.type !== "open" && !welcomes && !UNPROVEN.includes(type);
}

function receive(draft: Draft, message: RelayMessage): void {
  const { state } = draft;
  if (isOutOfTurn(state, message)) {
    hangUp(draft, `The relay said "${message.type}" before it had proven its key`);
    return;
  }
  switch (message.type) {
    case "challenge": {
      const { nonce, relay, signature } = message;
      if (state.relay !== null && !equalBytes(state.relay, relay)) {
        fail(draft, "changed", OTHER_RELAY);
        return;
      }
      draft.effects.push({ type: "prove", nonce, relay, signature, dial: state.dial });
      return;
    }
    case "welcome": {
      const { run, charter, contributor, head, earlier } = message;
      const expected = state.run?.digest ?? state.identity.run;
      if (expected !== null && expected !== run) {
        const sentence = `${REASONS["wrong-run"]} Start again to take part in the run that the relay serves now.`;
        fail(draft, state.identity.run === null ? "changed" : "refused", sentence);
        return;
      }
      set(draft, { link: { type: "open" }, openMs: draft.nowMs, trouble: "", contributor });
      set(draft, { run: { digest: run, charter }, head, earlier, headMs: draft.nowMs, readied: null, readyMs: 0 });
      return;
    }
    case "assign":
      takeAssignment(draft, message.assignment);
      return;
    case "have":
      takeConfirmation(draft, message.contribution, message.pieces);
      return;
    case "verdict":
      takeVerdict(draft, message.contribution, message.verdict);
      return;
    case "version":
      takeVersion(draft, message.head);
      return;
    case "refused":
      takeRefusal(draft, message.reason, message.retryMs);
      return;
    case "banned":
      fail(draft, "refused", `${REASONS.banned} The reason given: ${message.why}`);
      return;
    case "ping": // the runner has answered on the link by which it came
    case "pong":
    case "rtc": // the runner hands answers to whoever waits for them
    case "ice":
    case "meet": // the runner's peers see to these
    case "alone":
    case "signal":
      return;
    default:
      message satisfies never;
  }
}

function takeVersion(draft: Draft, head: VersionInfo): void {
  const { head: before, earlier } = draft.state;
  if (head.digest !== before?.digest) {
    const follows = before !== null && head.parent === before.digest;
    set(draft, { earlier: follows ? [...earlier, before].slice(1 - UPDATES_KEPT) : [] });
  }
  set(draft, { head, headMs: draft.nowMs });
}

function takeAssignment(draft: Draft, assignment: Assignment): void {
  const { state, nowMs } = draft;
  const made = [state.pending?.round, state.late?.round];
  const answered = assignment.type === "train" && made.includes(assignment.round);
  if (answered) {
    set(draft, { readied: null }); // its contribution is on the way; the relay has taken "ready" for lost work
    return;
  }
  if (state.assigned?.assignment.id === assignment.id) {
    return; // said again after a reconnect
  }
  const givenMs = assignment.type === "train" ? assignment.trainMs : assignment.judgeMs;
  const payload = assignment.type === "train" ? "here" : "wanted";
  const assigned: Assigned = { assignment, deadlineMs: nowMs + givenMs, payload };
  set(draft, { assigned, readied: null, trouble: "" });
}

/** What is to be checked is here; where it cannot be fetched the assignment goes back. */
function takeSupply(draft: Draft, assignment: string, trouble: string | null): void {
  const { assigned } = draft.state;
  if (assigned?.assignment.id !== assignment) {
    return; // given up meanwhile
  }
  if (trouble === null) {
    set(draft, { assigned: { ...assigned, payload: "here" } });
  } else {
    release(draft, assignment);
    set(draft, { assigned: null, readied: null, trouble });
  }
}

/** Contributions from before a restart; the relay may have said their verdicts before the notebook was read. */
function takeRemembered(draft: Draft, { pending, late }: Pick<ContributorState, "pending" | "late">): void {
  set(draft, { pending, late });
  for (const one of [late, pending].filter((made) => made !== null)) {
    showContribution(draft, one);
    const heard = draft.state.heard.find(({ id }) => id === one.id);
    if (heard !== undefined) {
      takeVerdict(draft, one.id, heard.verdict);
    }
  }
}

function takeVerdict(draft: Draft, id: Pending["id"], verdict: Verdict): void {
  const { state } = draft;
  const accepted = verdict.type === "accepted";
  set(draft, { heard: [{ id, verdict }, ...state.heard].slice(0, HEARD_MAX) });
  const shown = state.contributions.find((contribution) => contribution.id === id);
  if (shown !== undefined && shown.verdict === null) {
    set(draft, {
      accepted: state.accepted + (accepted ? 1 : 0),
      refused: state.refused + (accepted ? 0 : 1),
      contributions: state.contributions.map((contribution) =>
        contribution === shown ? { ...shown, verdict, sentence: verdictSentence(verdict) } : contribution,
      ),
    });
  }
  if (state.pending?.id === id || state.late?.id === id) {
    const outcome = outcomeOf(verdict);
    set(draft, {
      trail: outcome === "discarded" ? null : draft.state.trail,
      earlyMs: earlyAfter(verdict, state.earlyMs),
    });
    settle(draft, id, outcome);
  }
}

/** Who is always a little later than the others makes for nothing what it could have made in time. */
function earlyAfter(verdict: Verdict, earlyMs: number): number {
  if (verdict.type === "accepted") {
    return EARLY_KEPT * earlyMs < EARLY_MS / 2 ? 0 : EARLY_KEPT * earlyMs;
  }
  return verdict.reason === "late" ? Math.max(EARLY_MS, 2 * earlyMs) : earlyMs;
}

function outcomeOf(verdict: Verdict): Outcome {
  if (verdict.type === "accepted") {
    return "accepted";
  }
  const harmful: readonly Reason[] = ["harmful", "norm-too-large", "not-finite"];
  return harmful.includes(verdict.reason) ? "discarded" : "kept";
}

function takeRefusal(draft: Draft, reason: Reason, retryMs: number | null): void {
  const { state, nowMs } = draft;
  if (reason === "wrong-version" || reason === "wrong-run") {
    fail(draft, reason === "wrong-run" && state.identity.run === null ? "changed" : "refused", REASONS[reason]);
    return;
  }
  const { rng } = draft;
  const readyMs = nowMs + (retryMs === null ? RETRY_MS : Math.ceil(retryMs * (1 + rng.float() * RETRY_SPREAD)));
  set(draft, { trouble: REASONS[reason] });
  if (state.link.type === "open") {
    set(draft, { readied: null, readyMs });
    if (reason === "busy" && state.upload !== null && !isThere(state)) {
      set(draft, { upload: null, uploadMs: readyMs }); // it may be what there was no room for
    }
  } else {
    hangUp(draft, REASONS[reason]);
    const waiting = draft.state.link.type === "waiting" ? draft.state.link.untilMs : nowMs;
    set(draft, { link: { type: "waiting", untilMs: Math.max(waiting, readyMs) } });
  }
}

function noteStep(draft: Draft, assignment: string, step: number, tokens: number): void {
  const { state, nowMs } = draft;
  if (state.job?.assignment !== assignment) {
    return;
  }
  const recent = state.speed.filter((sample) => sample.timeMs > nowMs - SPEED_MS).slice(1 - SPEED_SAMPLES_MAX);
  set(draft, { step, speed: [...recent, { timeMs: nowMs, tokens }], tokensTotal: state.tokensTotal + tokens });
}

function finishJob(draft: Draft, id: string, result: JobResult): void {
  const { state } = draft;
  if (state.job?.type === "ahead" || result.type === "ahead") {
    finishAhead(draft, id, result);
    return;
  }
  const own = state.assigned?.assignment.id === id;
  set(draft, { job: null, assigned: own ? null : state.assigned, readied: own ? null : state.readied });
  switch (result.type) {
    case "contribution":
      set(draft, { pending: result.pending, late: state.late ?? state.pending, rebuilds: 0 });
      set(draft, { trail: { assignment: id, baseVersion: result.pending.baseVersion, steps: 0 } });
      showContribution(draft, result.pending);
      return;
    case "report": // measuring forgives no failures: training may still fail from moments that are broken
      if (own) {
        set(draft, { report: { body: result.body, signature: result.signature }, validated: state.validated + 1 });
      }
      return;
    case "dropped":
      if (own) {
        release(draft, id);
      }
      return;
    case "broken":
      release(draft, id);
      breakDown(draft, result);
      return;
    default:
      result satisfies never;
  }
}

/** Steps taken ahead count for the next contribution; a failure ends them, not the round. */
function finishAhead(draft: Draft, id: string, result: JobResult): void {
  const { trail } = draft.state;
  set(draft, { job: null });
  if (result.type === "ahead" && trail?.assignment === id) {
    set(draft, { trail: { ...trail, steps: result.steps } });
  } else {
    set(draft, { trail: null });
  }
  if (result.type === "broken" && result.lost) {
    breakDown(draft, result);
  } else if (result.type === "broken") {
    set(draft, { trouble: result.reason });
  }
}

/** Another engine is tried, or a person has to look. */
function breakDown(draft: Draft, result: Extract<JobResult, { readonly type: "broken" }>): void {
  const { state } = draft;
  if (result.lost && state.rebuilds < REBUILDS_MAX) {
    const prepareMs = draft.nowMs + RETRY_MS;
    set(draft, { preparation: "none", prepareMs, rebuilds: state.rebuilds + 1, trouble: result.reason });
  } else {
    fail(draft, result.code, result.reason);
  }
}

function showContribution(draft: Draft, pending: Pending): void {
  const { id, round, wireBytes, steps, loss } = pending;
  if (draft.state.contributions.some((contribution) => contribution.id === id)) {
    return; // remembered by the notebook, and never forgotten here
  }
  const sentence = "Sent when the relay is reached; its verdict is being waited for.";
  const shown = { id, round, sentMs: draft.nowMs, wireBytes, steps, loss, verdict: null, sentence };
  set(draft, { contributions: [shown, ...draft.state.contributions].slice(0, CONTRIBUTIONS_SHOWN_MAX) });
}
