/**
 * Entry point of the widget's frame. A facade first: the run's name and a button, a few kilobytes and no model. The terms
 * are shown in the frame, on the relay's own origin; only a guarded click on "Agree and start" loads and starts the worker,
 * at 20 % power, until 24 hours after it. One click stops, and takes the agreement back.
 */
import type { Digest } from "../base/bytes.ts";
import type { ContributorView } from "../contributor/view.ts";
import { fetchRun } from "../net/run.ts";
import type { RunView } from "../protocol/run-view.ts";
import { WIDGET_AGREEMENT_MS, agree, covers, formatAgreement, lasts, parseAgreement } from "../ui/agreement.ts";
import type { Trainer } from "../ui/bridge.ts";
import { consentParts } from "../ui/consent-parts.ts";
import { byId, make, setText } from "../ui/dom.ts";
import { consentTerms, VERSIONS_LOOKED_AT } from "../ui/facts.ts";
import { asSentence } from "../ui/format.ts";
import { MeterElement } from "../ui/meter.ts";
import { takesPart, withoutCountdown } from "../ui/part.ts";
import { openPlace, safeStore } from "../ui/place.ts";
import { onPress } from "../ui/press.ts";
import { judgeClick, watchSight } from "./guard.ts";
import { openHostLink, reportHeight } from "./host-link.ts";
import type { HostMessage, WidgetState } from "./protocol.ts";

const DUTY = 0.2;
const AGREEMENT_KEY = "heddle.widget.agreement";
const AGENT = "widget/0.1.0";
customElements.define("heddle-meter", MeterElement);
const kept = safeStore(() => localStorage);
const frame = byId("frame");
const meter = document.querySelector("heddle-meter") as MeterElement;
const link = openHostLink(hear);
const sights = new Map(
  [byId("lend"), byId("yes")].map((button) => [button, watchSight(button, () => performance.now())]),
);
let run: RunView | null = null;
let trainer: Trainer | null = null;
let view: ContributorView | null = null;
let release: (() => void) | null = null;
/** Counts starts and stops: a start that was overtaken gives up. */
let attempt = 0;
/** The embedding page's word while the worker is loaded, which is told of it then. */
let pauseAsked = false;
/** A click on the button waits for the run's record. */
let asking = false;
/** Counts look-ups: of an earlier one that answers late nothing is shown. */
let looks = 0;
/** When the buttons that are shown now came up. */
let shownMs = 0;

reportHeight(link, frame);
onPress(byId("lend"), (event) => void ask(judge(event) === "counts"));
onPress(byId("yes"), (event) => {
  const judged = judge(event);
  if (judged === "counts") {
    void agreeAndStart();
  } else if (judged === "elsewhere") {
    open("/", "_blank", "noopener");
    show("idle", "This box is too small or partly covered here, so the full page was opened instead.");
  }
});
onPress(byId("no"), () => show("idle", ""));
onPress(byId("stop"), () => {
  kept.removeItem(AGREEMENT_KEY); // there is no other button to take it back with
  stop("Stopped. Thank you for your help.");
});
onPress(byId("pause"), () => {
  if (view?.status === "paused") {
    trainer?.resume();
  } else {
    trainer?.pause();
  }
});
addEventListener("pagehide", () => trainer?.leave());
void look();

/** The run's name for the facade; the only request before consent. */
async function look(): Promise<void> {
  if (!isSecureContext) {
    // The embedding page counts too: browsers give neither keys nor the GPU to a frame of an insecure one.
    byId("lend").hidden = true;
    show("idle", "From this address nobody can contribute: browsers want a secure (https) page for it.");
    return;
  }
  looks += 1;
  const mine = looks;
  const found = await fetchRun("", { versions: VERSIONS_LOOKED_AT });
  if (looks !== mine) {
    return;
  }
  run = found ?? null;
  if (run === null) {
    show("idle", navigator.onLine ? "The relay does not answer right now. Try again." : "This device is offline.");
    return;
  }
  setText(byId("purpose"), `Your device can help: ${asSentence(run.charter.purpose)}`);
  show("idle", "");
}

/** What the host may do; there is no message that starts, resumes, raises or agrees. */
function hear(message: HostMessage): void {
  switch (message.type) {
    case "theme":
      document.documentElement.dataset["theme"] = message.theme;
      break;
    case "lang":
      // Numbers follow; the words are English until someone translates them.
      meter.numbersIn = message.lang;
      break;
    case "size":
      document.documentElement.dataset["size"] = message.size;
      break;
    case "pause":
      pauseAsked = true;
      trainer?.pause();
      break;
    default:
      message satisfies never;
  }
}

/** Whether a click was made by a person on a button that was there to be seen. */
function judge(event: MouseEvent): ReturnType<typeof judgeClick> {
  const nowMs = performance.now();
  const seen = sights.get(event.currentTarget as HTMLElement)?.() ?? { visible: false, sinceMs: nowMs };
  return judgeClick({ trusted: event.isTrusted, seen, shownMs, nowMs, width: innerWidth, height: innerHeight });
}

/** Shows the terms; with an agreement of the last 24 hours, and only for a click that counts, starts at once. */
async function ask(counted: boolean): Promise<void> {
  if (asking) {
    return;
  }
  asking = true;
  show("idle", "Asking the relay …");
  await look(); // The relay may serve another run by now, to which nobody here has agreed.
  asking = false;
  if (run === null) {
    return;
  }
  if (counted && isAgreed(run.run)) {
    await start(run.run);
    return;
  }
  const parts = consentParts(consentTerms(run, DUTY, "24 hours"));
  byId("terms-list").replaceChildren(...parts.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)]));
  show("asking", "");
  byId("terms-title").focus();
}

function isAgreed(digest: Digest): boolean {
  const given = parseAgreement(kept.getItem(AGREEMENT_KEY));
  return covers(given, { run: digest, nowMs: Date.now(), lastsMs: WIDGET_AGREEMENT_MS });
}

async function agreeAndStart(): Promise<void> {
  if (run !== null) {
    const nowMs = Date.now();
    kept.setItem(AGREEMENT_KEY, formatAgreement(agree({ run: run.run, nowMs, lastsMs: WIDGET_AGREEMENT_MS })));
    await start(run.run);
  }
}

async function start(agreed: Digest): Promise<void> {
  attempt += 1;
  const mine = attempt;
  pauseAsked = false;
  show("starting", "Getting this device ready …");
  const place = await openPlace(navigator.locks);
  if (attempt !== mine) {
    place?.();
    return;
  }
  if (place === null) {
    show("idle", "Heddle already works in another frame or tab on this site.");
    return;
  }
  release = place;
  const bridge = await import("../ui/bridge.ts").catch(() => null);
  if (attempt !== mine) {
    return; // Stopped in the meantime.
  }
  if (bridge === null) {
    stop("The training program could not be loaded. Try again.", "failed");
    return;
  }
  const { openTrainer } = bridge;
  trainer = openTrainer(
    { relay: location.origin, engine: "auto", duty: DUTY, peers: false, agent: AGENT },
    (next) => {
      view = next;
      drawView(agreed);
    },
    (message) => stop(asSentence(message)),
  );
  if (pauseAsked) {
    trainer.pause();
  }
  const outcome = await trainer.start(agreed);
  if (attempt !== mine) {
    return;
  }
  if (!outcome.ok) {
    const blocked = "This browser lets a box on another site keep nothing. Open the page to contribute.";
    stop(outcome.code === "store" ? blocked : asSentence(outcome.message), "failed");
  }
}

function stop(sentence: string, state: WidgetState = "stopped"): void {
  attempt += 1;
  trainer?.close();
  trainer = null;
  view = null;
  release?.();
  release = null;
  show(state, sentence);
}

function drawView(agreed: Digest): void {
  if (view !== null && trainer !== null) {
    const paused = view.status === "paused";
    if (view.status === "failed") {
      stop(asSentence(view.sentence), "failed");
      return;
    }
    const given = parseAgreement(kept.getItem(AGREEMENT_KEY));
    const nowMs = Date.now();
    if (!lasts(given, { run: agreed, nowMs, lastsMs: WIDGET_AGREEMENT_MS })) {
      const over = given !== null && nowMs >= given.endsMs;
      stop(`${over ? "The day is over that you agreed to" : "Your agreement has ended"}, so it stopped. Thank you.`);
      return;
    }
    setText(byId("pause"), paused ? "Resume" : "Pause");
    show(paused ? "paused" : "working", view.sentence);
  }
}

function show(state: WidgetState, sentence: string): void {
  if (frame.dataset["state"] !== state) {
    shownMs = performance.now();
  }
  frame.dataset["state"] = state;
  const working = state === "starting" || state === "working" || state === "paused";
  byId("facade").hidden = working || state === "asking";
  byId("terms").hidden = state !== "asking";
  byId("working").hidden = !working;
  byId("pause").hidden = state === "starting";
  if (document.activeElement?.closest("#frame [hidden]")) {
    byId(working ? "stop" : "lend").focus(); // what had the focus is not shown any more
  }
  setText(byId(working ? "sentence" : "state"), sentence);
  setText(byId("status"), spoken(state, sentence));
  meter.reading = { tokensPerS: view?.tokensPerS ?? 0, working: state === "working" };
  const { tokensPerS = 0, tokensTotal = 0, accepted = 0 } = view ?? {};
  link.say({ type: "state", state, tokensPerS: Math.round(tokensPerS), tokensTotal, accepted });
}

/** What a screen reader is told instead of the sentence on screen, which changes several times a round. */
function spoken(state: WidgetState, sentence: string): string {
  if (state === "working" && view !== null && takesPart(view)) {
    return "This device is contributing.";
  }
  return state === "paused" ? "Paused." : withoutCountdown(sentence);
}
