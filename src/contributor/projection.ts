/** The contributor's state as a person sees it (`view.ts`): status, sentences, speed and traffic. */
import type { ContributorState } from "./state.ts";
import { isThere, sendingOf, SPEED_MS } from "./state.ts";
import type { ContributorStatus, ContributorView, PeersView } from "./view.ts";

/** What the state does not know: the share of time given, and the bytes counted on the links and by downloads. */
export interface Counters {
  readonly nowMs: number;
  /** 0.05 … 1 */
  readonly duty: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly peers: PeersView;
  readonly controlLane: "ws" | "memory" | "rtc" | null;
}

export function viewOf(state: ContributorState, counters: Counters): ContributorView {
  const status = statusOf(state);
  return {
    status,
    sentence: sentenceOf(state, status, counters.nowMs),
    contributor: state.contributor,
    engine: state.identity.engine,
    device: state.identity.device,
    engineSentence: state.identity.engineSentence,
    lane: state.link.type !== "open" ? null : state.rtc === "open" ? "rtc" : counters.controlLane,
    laneReason: state.rtc === "opening" ? "WebRTC is being set up." : state.laneReason,
    version: state.base?.version ?? null,
    round: state.assigned?.assignment.round ?? state.pending?.round ?? state.late?.round ?? null,
    step: state.step,
    stepsMax: state.stepsMax,
    duty: counters.duty,
    tokensPerS: status === "training" ? speedOf(state, counters.nowMs) : 0,
    tokensTotal: state.tokensTotal,
    bytesUp: counters.bytesUp,
    bytesDown: counters.bytesDown,
    peers: counters.peers,
    accepted: state.accepted,
    refused: state.refused,
    validated: state.validated,
    contributions: state.contributions,
  };
}

function statusOf(state: ContributorState): ContributorStatus {
  if (state.failure !== null) {
    return "failed";
  }
  if (state.intent !== "working") {
    return state.intent;
  }
  if (state.job !== null && !state.job.aborted) {
    return state.job.type === "validate" ? "validating" : "training";
  }
  if (state.link.type !== "open") {
    return "connecting";
  }
  if (state.preparation !== "done" || state.fetching !== null || state.base === null) {
    return "fetching";
  }
  return state.upload !== null && !isThere(state) ? "uploading" : "waiting";
}

function sentenceOf(state: ContributorState, status: ContributorStatus, nowMs: number): string {
  switch (status) {
    case "failed":
      return state.failure?.sentence ?? "";
    case "stopped":
      return "Stopped: this device does no work.";
    case "paused":
      return "Paused: connected, but doing no work until you resume.";
    case "connecting":
      return connectingSentence(state, nowMs);
    case "fetching":
      if (state.trouble !== "") {
        return state.trouble;
      }
      return state.preparation === "done" ? "Fetching the shared base." : "Fetching the data and preparing the engine.";
    case "training":
      return state.job?.type === "ahead"
        ? "Training ahead on this device while the last update is sent and checked."
        : "Training on this device.";
    case "validating":
      return "Checking another contributor's update.";
    case "uploading":
      return sendingSentence(state);
    case "waiting":
      if (state.trouble !== "") {
        return state.trouble;
      }
      return sendingOf(state) === null ? "Ready; waiting for work." : "The update is sent; waiting for its verdict.";
    default:
      return status satisfies never;
  }
}

function connectingSentence(state: ContributorState, nowMs: number): string {
  if (state.trouble === "") {
    return "Connecting to the relay.";
  }
  if (state.link.type !== "waiting") {
    return `Connecting again: ${state.trouble}`;
  }
  const seconds = Math.max(1, Math.ceil((state.link.untilMs - nowMs) / 1000));
  return `Connecting again in ${seconds} s: ${state.trouble}`;
}

/** Large updates say how far they are, in steps that a log can bear. */
function sendingSentence(state: ContributorState): string {
  const pieces = sendingOf(state)?.pieces ?? 1;
  const tenths = Math.floor((10 * (state.upload?.held ?? 0)) / pieces);
  return pieces === 1 ? "Sending the update." : `Sending the update; ${10 * tenths} % of it has arrived.`;
}

/** Tokens per second from the oldest sample of the window to now; the oldest one only opens the window. */
function speedOf(state: ContributorState, nowMs: number): number {
  const recent = state.speed.filter((sample) => sample.timeMs > nowMs - SPEED_MS);
  const first = recent[0];
  if (first === undefined || nowMs <= first.timeMs) {
    return 0;
  }
  const tokens = recent.slice(1).reduce((sum, sample) => sum + sample.tokens, 0);
  return (tokens * 1000) / (nowMs - first.timeMs);
}
