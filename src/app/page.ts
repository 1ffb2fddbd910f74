/**
 * The contributor page: joins the run's feed, the training worker and the elements. Everything it needs from outside comes in
 * as ports, so that the fixture in test/fixtures/ui can drive it with samples; `main.ts` makes the real ones. Words about
 * states come from `stage.ts`, lists of facts from `facts.ts`.
 */
import type { ContributorView } from "../contributor/view.ts";
import type { RunView } from "../protocol/run-view.ts";
import { agree, covers, formatAgreement, parseAgreement, type TextStore } from "../ui/agreement.ts";
import { byId, make, setText } from "../ui/dom.ts";
import { formatCount, formatPlural, formatShort } from "../ui/format.ts";
import { clampDuty } from "../ui/power.ts";
import type { GenerateRequest } from "../ui/try.ts";
import type { Trainer } from "../ui/bridge.ts";
import { consentTerms, deviceFacts, itemsOf, runFacts, type Fact } from "../ui/facts.ts";
import type { Feed, FeedHandlers } from "./feed.ts";
import { stageOf, type Act, type Facts } from "./stage.ts";

export interface PagePorts {
  openFeed(handlers: FeedHandlers): Feed;
  /** Starts the worker; nothing heavy happens before `start` or `generate`. */
  openTrainer(duty: number, onView: (view: ContributorView) => void, onCrash: (message: string) => void): Trainer;
  /** Takes the one place that this browser has for a working tab; resolves to its release, or null when it is taken. */
  takePlace(): Promise<(() => void) | null>;
  /** Kept on this device, and kept for this tab only. */
  readonly kept: TextStore;
  readonly session: TextStore;
  nowMs(): number;
}

const AGREEMENT_KEY = "heddle.agreement";
const DUTY_KEY = "heddle.duty";
const WORKING_KEY = "heddle.working";
const DUTY_FIRST = 0.5;

export function mountPage(ports: PagePorts): void {
  const elements = {
    state: byId("state"),
    hint: byId("hint"),
    panel: byId("panel"),
    main: byId<HTMLButtonElement>("main"),
    other: byId<HTMLButtonElement>("other"),
    working: byId("working"),
    progress: byId<HTMLProgressElement>("progress"),
    progressWords: byId("progress-words"),
    meter: only("heddle-meter"),
    power: only("heddle-power"),
    threads: only("heddle-threads"),
    chart: only("heddle-chart"),
    contributions: only("heddle-contributions"),
    consent: only("heddle-consent"),
    writer: only("heddle-try"),
  };
  let feedState: Facts["feed"] = "loading";
  let run: RunView | null = null;
  let trainer: Trainer | null = null;
  let trainerState: Facts["trainer"] = { type: "none" };
  let engineSentence = "";
  let view: ContributorView | null = null;
  let elsewhere = false;
  let release: (() => void) | null = null;
  let attempt = 0;

  elements.power.duty = clampDuty(Number(ports.kept.getItem(DUTY_KEY) ?? DUTY_FIRST));
  const feed = ports.openFeed({
    run: (next) => {
      run = next;
      drawRun();
      draw();
    },
    state: (state) => {
      feedState = state;
      draw();
    },
  });

  function facts(): Facts {
    return {
      online: navigator.onLine,
      feed: feedState,
      contributors: run?.connected ?? 0,
      trainer: trainerState,
      view,
      resumable: ports.session.getItem(WORKING_KEY) === "1" && agreed(),
      elsewhere,
    };
  }

  function agreed(): boolean {
    const given = parseAgreement(ports.kept.getItem(AGREEMENT_KEY));
    return run !== null && covers(given, { run: run.run, nowMs: ports.nowMs() });
  }

  function draw(): void {
    const stage = stageOf(facts());
    elements.panel.dataset["mood"] = stage.mood;
    setText(elements.state, stage.sentence);
    setText(elements.hint, stage.hint);
    for (const [button, offer] of [
      [elements.main, stage.main],
      [elements.other, stage.other],
    ] as const) {
      button.hidden = offer === null;
      setText(button, offer?.words ?? "");
      button.dataset["act"] = offer?.act ?? "";
    }
    const working = stage.mood === "working";
    document.title = working
      ? "Training · Heddle"
      : stage.mood === "paused"
        ? "Paused · Heddle"
        : "Heddle: train an open model together";
    elements.working.hidden = trainerState.type !== "open" || view === null || view.status === "stopped";
    elements.meter.reading = { tokensPerS: view?.tokensPerS ?? 0, working };
    elements.writer.blocked = writerBlocked();
    drawView(working);
  }

  function drawView(working: boolean): void {
    const share = view !== null && view.stepsMax > 0 ? Math.min(1, view.step / view.stepsMax) : 0;
    elements.progress.value = working ? share : 0;
    setText(elements.progressWords, progressWords(view));
    const items = itemsOf(view);
    elements.contributions.items = items;
    // A round's work goes into the version that the round makes.
    const mine = new Set(items.filter((item) => item.state === "accepted").map((item) => item.round + 1));
    const taking = view !== null && view.status !== "stopped" && view.status !== "failed";
    const versions = run?.versions.at(-1)?.version ?? 0;
    elements.threads.cloth = { versions, connected: run?.connected ?? 0, mine, progress: taking ? share : null };
    fill("device-facts", deviceFacts(view, engineSentence));
    elements.power.worker = view === null ? "device" : view.engine === "webgpu" ? "GPU" : "processor";
  }

  function drawRun(): void {
    if (run !== null) {
      setText(byId("run-name"), run.charter.name);
      setText(byId("run-purpose"), `${run.charter.purpose}.`);
      elements.chart.points = run.versions.map((v) => ({
        version: v.version,
        loss: v.evalLoss,
        contributors: v.contributors,
      }));
      fill("run-facts", runFacts(run));
    }
  }

  function writerBlocked(): string | null {
    if (run === null) {
      return feedState === "loading"
        ? "One moment: looking up the newest version."
        : "This needs the relay, which does not answer right now.";
    }
    return run.charter.model.vocabulary === 256 ? null : "This page cannot write with this run’s tokenizer yet.";
  }

  function worker(): Trainer {
    trainer ??= ports.openTrainer(
      elements.power.duty,
      (next) => {
        view = next;
        draw();
      },
      (message) => {
        trainer = null;
        view = null;
        letGo();
        trainerState = { type: "failed", code: "device-lost", message };
        draw();
      },
    );
    return trainer;
  }

  function letGo(): void {
    release?.();
    release = null;
  }

  async function contribute(): Promise<void> {
    if (run === null || trainerState.type === "opening") {
      return;
    }
    if (!agreed()) {
      if (!(await elements.consent.ask(consentTerms(run, elements.power.duty)))) {
        return;
      }
      ports.kept.setItem(AGREEMENT_KEY, formatAgreement(agree({ run: run.run, nowMs: ports.nowMs() })));
    }
    release ??= await ports.takePlace();
    elsewhere = release === null;
    if (elsewhere) {
      draw();
      return;
    }
    attempt += 1;
    const mine = attempt;
    trainerState = { type: "opening" };
    draw();
    elements.other.focus();
    const outcome = await worker().start();
    if (mine !== attempt) {
      return; // Stopped in the meantime.
    }
    if (outcome.ok) {
      engineSentence = outcome.sentence;
      trainerState = { type: "open" };
      ports.session.setItem(WORKING_KEY, "1");
    } else {
      trainerState = { type: "failed", code: outcome.code, message: outcome.message };
      letGo();
    }
    draw();
    elements.main.focus();
  }

  function act(name: Act): void {
    switch (name) {
      case "contribute":
        void contribute();
        break;
      case "pause":
        trainer?.pause();
        break;
      case "resume":
        trainer?.resume();
        break;
      case "stop":
        attempt += 1;
        trainer?.stop();
        letGo();
        trainerState = { type: "none" };
        ports.session.removeItem(WORKING_KEY);
        draw();
        elements.main.focus();
        break;
      case "retry":
        retry();
        break;
      default:
        name satisfies never;
    }
  }

  function retry(): void {
    if (trainerState.type === "failed" || view?.status === "failed") {
      trainerState = { type: "none" };
      trainer?.close();
      trainer = null;
      view = null;
      void contribute();
    } else if (elsewhere) {
      elsewhere = false;
      void contribute();
    } else {
      feed.retry();
    }
    draw();
  }

  async function generate(request: GenerateRequest): Promise<void> {
    elements.writer.busy = true;
    elements.writer.sentence = "Fetching the newest version and writing …";
    const outcome = await worker().generate(request, (text) => elements.writer.write(text));
    elements.writer.busy = false;
    elements.writer.sentence = outcome.ok ? outcome.sentence : outcome.message;
  }

  for (const button of [elements.main, elements.other]) {
    button.addEventListener("click", () => act(button.dataset["act"] as Act));
  }
  elements.power.addEventListener("heddle-duty", (event) => {
    const duty = (event as CustomEvent<number>).detail;
    ports.kept.setItem(DUTY_KEY, String(duty));
    trainer?.setDuty(duty);
  });
  elements.writer.addEventListener(
    "heddle-generate",
    (event) => void generate((event as CustomEvent<GenerateRequest>).detail),
  );
  elements.writer.addEventListener("heddle-abort", () => trainer?.abort());
  addEventListener("online", draw);
  addEventListener("offline", draw);
  // A closed page tells the relay, so that its assignment goes to someone else at once; a page that comes back from the
  // back-forward cache offers to continue.
  addEventListener("pagehide", () => trainer?.leave());
  addEventListener("pageshow", (event) => {
    if (event.persisted) {
      location.reload();
    }
  });
  draw();
}

function progressWords(view: ContributorView | null): string {
  if (view === null) {
    return "";
  }
  const step = view.stepsMax > 0 ? `Step ${formatCount(view.step)} of ${formatCount(view.stepsMax)}. ` : "";
  return `${step}${formatShort(view.tokensTotal)} tokens learned from so far, ${formatPlural(view.accepted, "contribution", "contributions")} accepted.`;
}

function fill(id: string, facts: readonly Fact[]): void {
  const list = byId(id);
  const key = JSON.stringify(facts);
  if (list.dataset["key"] !== key) {
    list.dataset["key"] = key;
    list.replaceChildren(
      ...facts.map(({ name, value, note }) =>
        make(
          "div",
          {},
          make("dt", {}, name),
          make("dd", {}, value, ...(note === undefined ? [] : [make("small", {}, note)])),
        ),
      ),
    );
  }
}

function only<K extends keyof HTMLElementTagNameMap>(name: K): HTMLElementTagNameMap[K] {
  const element = document.querySelector(name);
  if (element === null) {
    throw new Error(`Cannot set up the page: it has no <${name}>`);
  }
  return element;
}
