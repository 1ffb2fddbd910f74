/**
 * Draws the contributor page: everything that is shown, from one snapshot of what is known. It decides nothing and listens
 * to nothing; `page.ts` does. Words about states come from `stage.ts`, lists of facts from `ui/facts.ts`.
 */
import type { ContributorView } from "../contributor/view.ts";
import type { RunView } from "../protocol/run-view.ts";
import type { ContributionItem } from "../ui/contributions.ts";
import { byId, byTag, setText } from "../ui/dom.ts";
import { fillFacts } from "../ui/fact-list.ts";
import { deviceFacts, lossUnit, runFacts } from "../ui/facts.ts";
import { asSentence, formatCount, formatPlural, formatShort } from "../ui/format.ts";
import { spoken, stageOf, type Facts, type Stage } from "./stage.ts";

export interface Snapshot {
  readonly facts: Facts;
  readonly run: RunView | null;
  readonly view: ContributorView | null;
  /** This device's contributions, newest first. */
  readonly items: readonly ContributionItem[];
  /** How far the present round has come on this device, 0 … 1. */
  readonly progress: number;
}

export type Screen = ReturnType<typeof findScreen>;

/** The parts of the page by name. Throws when the markup lacks one. */
export function findScreen() {
  return {
    state: byId("state"),
    status: byId("status"),
    hint: byId("hint"),
    panel: byId("panel"),
    main: byId<HTMLButtonElement>("main"),
    other: byId<HTMLButtonElement>("other"),
    working: byId("working"),
    progress: byId<HTMLProgressElement>("progress"),
    stepWords: byId("step-words"),
    progressWords: byId("progress-words"),
    runName: byId("run-name"),
    runPurpose: byId("run-purpose"),
    runFacts: byId("run-facts"),
    deviceFacts: byId("device-facts"),
    meter: byTag("heddle-meter"),
    power: byTag("heddle-power"),
    peers: byTag("heddle-peers"),
    threads: byTag("heddle-threads"),
    chart: byTag("heddle-chart"),
    contributions: byTag("heddle-contributions"),
    consent: byTag("heddle-consent"),
    writer: byTag("heddle-try"),
  };
}

export function drawScreen(screen: Screen, snapshot: Snapshot): void {
  const stage = stageOf(snapshot.facts);
  drawStage(screen, stage, snapshot);
  drawDevice(screen, stage.mood === "working" && isComputing(snapshot.view), snapshot);
  drawCloth(screen, snapshot);
  screen.writer.blocked = writerBlocked(snapshot);
}

/** What changes only with the run's record. */
export function drawRun(screen: Screen, run: RunView): void {
  setText(screen.runName, run.charter.name);
  setText(screen.runPurpose, asSentence(run.charter.purpose));
  screen.chart.unit = lossUnit(run);
  screen.chart.points = run.versions.map(({ version, evalLoss, contributors }) => ({
    version,
    loss: evalLoss,
    contributors,
  }));
  fillFacts(screen.runFacts, runFacts(run));
}

/** Moves the focus to a button that replaces the pressed one, unless the person has gone elsewhere. */
export function keepFocus(button: HTMLButtonElement): void {
  const active = document.activeElement;
  if (!button.hidden && (active === null || active === document.body || active.closest(".actions") !== null)) {
    button.focus({ preventScroll: true }); // whoever reads on below stays there
  }
}

function drawStage(screen: Screen, stage: Stage, { facts }: Snapshot): void {
  screen.panel.dataset["mood"] = stage.mood;
  setText(screen.state, stage.sentence);
  setText(screen.hint, stage.hint);
  setText(screen.status, spoken(stage));
  for (const [button, offer] of [
    [screen.main, stage.main],
    [screen.other, stage.other],
  ] as const) {
    button.hidden = offer === null;
    setText(button, offer?.words ?? "");
    button.dataset["act"] = offer?.act ?? "";
  }
  // Already while the engine is chosen, so that the panel changes its size with the click and not later.
  screen.working.hidden =
    facts.trainer.type !== "opening" &&
    (facts.trainer.type !== "open" || facts.view === null || facts.view.status === "stopped");
  const titles = { working: "Training · Heddle", paused: "Paused · Heddle" } as const;
  document.title =
    stage.mood === "working" || stage.mood === "paused" ? titles[stage.mood] : "Heddle: train an open model together";
}

/** Between rounds a device takes part, and has nothing to show for it. */
function isComputing(view: ContributorView | null): boolean {
  return view?.status === "training" || view?.status === "validating" || view?.status === "uploading";
}

function drawDevice(screen: Screen, working: boolean, { view, items, progress }: Snapshot): void {
  screen.meter.reading = { tokensPerS: view?.tokensPerS ?? 0, working };
  // Between rounds there is nothing to measure: an empty bar would look like one that is stuck.
  screen.progress.classList.toggle("resting", !(working && view !== null && view.step > 0));
  screen.progress.value = working ? progress : 0;
  setText(screen.stepWords, stepWords(view));
  setText(screen.progressWords, progressWords(view));
  screen.contributions.items = items;
  fillFacts(screen.deviceFacts, deviceFacts(view));
  screen.peers.view = view?.peers ?? null;
  screen.power.worker = view === null ? "device" : view.engine === "webgpu" ? "GPU" : "processor";
}

function drawCloth(screen: Screen, { run, view, items, progress }: Snapshot): void {
  const versions = run?.versions ?? [];
  // Accepted work is in the first version made after it was sent.
  const accepted = items.filter((item) => item.state === "accepted");
  const mine = new Set(accepted.flatMap(({ sentMs }) => versions.find(({ timeMs }) => timeMs > sentMs)?.version ?? []));
  const taking = view !== null && view.status !== "stopped" && view.status !== "failed";
  screen.threads.cloth = {
    versions: versions.at(-1)?.version ?? 0,
    connected: run?.connected ?? 0,
    mine,
    progress: taking ? progress : null,
  };
}

function writerBlocked({ run, facts }: Snapshot): string | null {
  if (run === null) {
    if (!facts.online) {
      return "This needs a connection: the model is fetched from the relay.";
    }
    return facts.feed === "loading"
      ? "One moment: looking up the newest version."
      : "This needs the relay, which does not answer right now.";
  }
  return run.charter.model.vocabulary <= 256 ? null : "This page cannot write with this run’s tokenizer yet.";
}

function stepWords(view: ContributorView | null): string {
  if (view === null || view.step === 0 || view.stepsMax === 0) {
    return "No step in progress.";
  }
  return `Step ${formatCount(view.step)} of at most ${formatCount(view.stepsMax)} in this round.`;
}

function progressWords(view: ContributorView | null): string {
  const { tokensTotal = 0, accepted = 0 } = view ?? {};
  const tokens = `Since you started: learned from ${formatShort(tokensTotal)} tokens, `;
  return `${tokens}${formatPlural(accepted, "contribution", "contributions")} accepted.`;
}
