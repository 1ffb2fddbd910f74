/**
 * The contributor page: joins the run's feed, the training worker and the screen. Everything it needs from outside comes in
 * as ports, so that the fixture in test/fixtures/ui can drive it with samples; `main.ts` makes the real ones.
 */
import type { Digest } from "../base/bytes.ts";
import type { ContributorView } from "../contributor/view.ts";
import type { RunView } from "../protocol/run-view.ts";
import { agree, covers, formatAgreement, lasts, parseAgreement, type TextStore } from "../ui/agreement.ts";
import type { Trainer } from "../ui/bridge.ts";
import type { ContributionItem } from "../ui/contributions.ts";
import { consentTerms, itemsOf } from "../ui/facts.ts";
import { asSentence } from "../ui/format.ts";
import { formatHistory, mergeHistory, parseHistory } from "../ui/history.ts";
import { clampDuty } from "../ui/power.ts";
import { onPress } from "../ui/press.ts";
import type { GenerateRequest } from "../ui/try.ts";
import type { Feed, FeedHandlers } from "../ui/feed.ts";
import { drawRun, drawScreen, findScreen, keepFocus } from "./screen.ts";
import type { Act, Facts } from "./stage.ts";

export interface PagePorts {
  openFeed(handlers: FeedHandlers): Feed;
  /** Starts the worker; nothing heavy happens before `start` or `generate`. */
  openTrainer(
    settings: { readonly duty: number; readonly peers: boolean },
    onView: (view: ContributorView) => void,
    onCrash: (message: string) => void,
  ): Trainer;
  /** Takes the one place that this browser has for a working tab; resolves to its release, or null when it is taken. */
  takePlace(): Promise<(() => void) | null>;
  /** Kept on this device, and kept for this tab only. */
  readonly kept: TextStore;
  readonly session: TextStore;
  nowMs(): number;
}

const AGREEMENT_KEY = "heddle.agreement";
const DUTY_KEY = "heddle.duty";
const PEERS_KEY = "heddle.peers";
const WORKING_KEY = "heddle.working";
const HISTORY_KEY = "heddle.contributions";
const DUTY_FIRST = 0.5;

export function mountPage(ports: PagePorts): void {
  new Page(ports).listen();
}

/** What changes while the page is open; a class because it holds the worker, the feed and the place. */
class Page {
  readonly #ports: PagePorts;
  readonly #screen = findScreen();
  readonly #feed: Feed;
  #feedState: Facts["feed"] = "loading";
  #run: RunView | null = null;
  #trainer: Trainer | null = null;
  #trainerState: Facts["trainer"] = { type: "none" };
  #view: ContributorView | null = null;
  /** The run that the worker was started for, of which `#view` tells. */
  #startedFor: Digest | null = null;
  /** The agreement ended while the device worked, and nothing was pressed since. */
  #ended = false;
  #elsewhere = false;
  #release: (() => void) | null = null;
  /** Counts starts and stops: a start that was overtaken gives up. */
  #attempt = 0;
  #earlier: readonly ContributionItem[] = [];
  #round = { number: -1, startMs: 0 };

  constructor(ports: PagePorts) {
    this.#ports = ports;
    this.#screen.power.duty = clampDuty(Number(ports.kept.getItem(DUTY_KEY) ?? DUTY_FIRST));
    this.#feed = ports.openFeed({
      run: (run) => this.#takeRun(run),
      state: (state) => {
        this.#feedState = state;
        this.#draw();
      },
    });
  }

  listen(): void {
    const { main, other, power, peers, writer } = this.#screen;
    for (const button of [main, other]) {
      onPress(button, () => this.#act(button.dataset["act"] as Act));
    }
    power.addEventListener("heddle-duty", (event) => {
      const duty = (event as CustomEvent<number>).detail;
      this.#ports.kept.setItem(DUTY_KEY, String(duty));
      this.#trainer?.setDuty(duty);
    });
    peers.addEventListener("heddle-peers", (event) => {
      this.#keepPeers();
      this.#trainer?.setPeers((event as CustomEvent<boolean>).detail);
    });
    writer.addEventListener("heddle-generate", (event) => {
      void this.#generate((event as CustomEvent<GenerateRequest>).detail);
    });
    writer.addEventListener("heddle-abort", () => this.#trainer?.abort());
    addEventListener("online", () => {
      this.#draw();
      this.#feed.retry();
    });
    addEventListener("offline", () => this.#draw());
    // Another tab of this browser has changed what the person agrees to; without a key it has removed everything.
    addEventListener("storage", ({ key }) => {
      if (key === AGREEMENT_KEY || key === PEERS_KEY || key === null) {
        this.#heed();
      }
    });
    // A closed page tells the relay, so that its assignment goes to someone else at once; finished rounds are already in
    // storage. A page that comes back from the back-forward cache begins anew and offers to continue.
    addEventListener("pagehide", () => this.#trainer?.leave());
    addEventListener("pageshow", (event) => {
      if (event.persisted) {
        location.reload();
      }
    });
    this.#draw();
  }

  #takeRun(run: RunView): void {
    const known = this.#run;
    this.#run = run;
    if (known?.run !== run.run) {
      this.#earlier = parseHistory(this.#ports.kept.getItem(HISTORY_KEY), run.run);
    }
    if (known === null) {
      this.#screen.peers.on ||= this.#sharing();
      if (this.#screen.peers.on) {
        this.#keepPeers(); // ticked before it was known what the agreement is to
      }
    } else if (known.run !== run.run) {
      this.#heed();
    }
    drawRun(this.#screen, run);
    this.#draw();
  }

  #takeView(view: ContributorView): void {
    this.#view = view;
    if (this.#run !== null && view.contributions.length > 0) {
      this.#keepHistory(this.#run.run);
    }
    if (this.#isOver()) {
      this.#heed();
    } else {
      this.#draw(); // a fresh tick of sharing, for the run that is shown, stays
    }
  }

  /** Written only when it has changed: storage is shared with other tabs, which are told, and on a disk. */
  #keepHistory(run: Digest): void {
    const { kept } = this.#ports;
    const text = formatHistory(run, this.#items());
    if (text !== kept.getItem(HISTORY_KEY)) {
      kept.setItem(HISTORY_KEY, text);
    }
  }

  /** Nothing goes on that the person has not agreed to, or not any more: an agreement ends, and may be taken back in another tab. */
  #heed(): void {
    if (this.#isOver()) {
      this.#ended = true;
      this.#unasked(() => this.#stop());
    }
    const on = this.#sharing();
    if (on !== this.#screen.peers.on) {
      this.#share(on);
    }
    this.#draw();
  }

  #share(on: boolean): void {
    this.#screen.peers.on = on;
    this.#trainer?.setPeers(on);
  }

  /** The device works for a run that the person does not agree to any more. */
  #isOver(): boolean {
    return this.#works() && this.#startedFor !== null && !this.#agreedTo(this.#startedFor);
  }

  #works(): boolean {
    return this.#trainerState.type === "opening" || this.#trainerState.type === "open";
  }

  /** Of the run that is shown; the worker may still tell of the one that the relay served before. */
  #items(): readonly ContributionItem[] {
    const own = this.#startedFor === this.#run?.run ? this.#view : null;
    return mergeHistory(itemsOf(own), this.#earlier);
  }

  #draw(): void {
    const { session } = this.#ports;
    drawScreen(this.#screen, {
      facts: {
        online: navigator.onLine,
        secure: isSecureContext,
        feed: this.#feedState,
        contributors: this.#run?.connected ?? 0,
        trainer: this.#trainerState,
        view: this.#view,
        agreed: this.#agreed(),
        resumable: session.getItem(WORKING_KEY) === "1" && this.#agreed(),
        ended: this.#ended,
        elsewhere: this.#elsewhere,
      },
      run: this.#run,
      view: this.#view,
      items: this.#items(),
      progress: this.#progress(),
    });
  }

  /** A round ends at its step limit or when its time is over, whichever comes first. */
  #progress(): number {
    if (this.#view === null || this.#view.step === 0) {
      return 0;
    }
    const { round, step, stepsMax } = this.#view;
    if (round !== null && round !== this.#round.number) {
      this.#round = { number: round, startMs: this.#ports.nowMs() };
    }
    const trainMs = this.#run?.charter.round.trainMs ?? Number.POSITIVE_INFINITY;
    const time = (this.#ports.nowMs() - this.#round.startMs) / trainMs;
    return Math.min(1, Math.max(time, stepsMax > 0 ? step / stepsMax : 0));
  }

  /** To the run that is shown. */
  #agreed(): boolean {
    return this.#run !== null && this.#agreedTo(this.#run.run);
  }

  #agreedTo(run: Digest): boolean {
    const given = parseAgreement(this.#ports.kept.getItem(AGREEMENT_KEY));
    const counts = this.#works() ? lasts : covers;
    return counts(given, { run, nowMs: this.#ports.nowMs() });
  }

  /** Sharing the model directly was chosen under the agreement that counts now, and ends with it. */
  #sharing(): boolean {
    const { kept } = this.#ports;
    return this.#agreed() && kept.getItem(PEERS_KEY) === kept.getItem(AGREEMENT_KEY);
  }

  /** Keeps with the agreement whether the model is shared; what is ticked before agreeing lasts as long as the page. */
  #keepPeers(): void {
    const { kept } = this.#ports;
    const agreement = kept.getItem(AGREEMENT_KEY);
    if (this.#screen.peers.on && agreement !== null && this.#agreed()) {
      kept.setItem(PEERS_KEY, agreement);
    } else {
      kept.removeItem(PEERS_KEY);
    }
  }

  #act(name: Act): void {
    this.#ended = false;
    switch (name) {
      case "contribute":
        void this.#contribute();
        break;
      case "pause":
        this.#trainer?.pause();
        break;
      case "resume":
        this.#trainer?.resume();
        break;
      case "stop":
        this.#stop();
        keepFocus(this.#screen.main);
        break;
      case "retry":
        this.#retry();
        break;
      case "withdraw":
        this.#ports.kept.removeItem(AGREEMENT_KEY);
        this.#heed();
        keepFocus(this.#screen.main);
        break;
      default:
        name satisfies never;
    }
  }

  async #contribute(): Promise<void> {
    const { kept, nowMs } = this.#ports;
    const run = this.#run;
    if (run === null || this.#trainerState.type === "opening") {
      return;
    }
    if (!this.#agreed()) {
      const shared = kept.getItem(PEERS_KEY);
      if (shared !== null && shared === kept.getItem(AGREEMENT_KEY)) {
        kept.removeItem(PEERS_KEY);
        this.#share(false); // it was chosen under the agreement that has ended
      }
      const terms = consentTerms(run, this.#screen.power.duty);
      if (!(await this.#screen.consent.ask(terms))) {
        return;
      }
      kept.setItem(AGREEMENT_KEY, formatAgreement(agree({ run: run.run, nowMs: nowMs() })));
      this.#keepPeers();
    }
    if (this.#release === null) {
      const place = await this.#ports.takePlace();
      if (this.#release !== null) {
        place?.(); // another click was faster
        return;
      }
      this.#release = place;
    }
    this.#elsewhere = this.#release === null;
    if (!this.#agreedTo(run.run)) {
      this.#letGo(); // taken back in another tab while this one waited for the place
    }
    if (this.#release === null) {
      this.#draw();
    } else {
      await this.#start(run.run);
    }
  }

  async #start(run: Digest): Promise<void> {
    if (this.#startedFor !== null && this.#startedFor !== run) {
      this.#end();
    }
    this.#startedFor = run;
    this.#attempt += 1;
    const mine = this.#attempt;
    this.#trainerState = { type: "opening" };
    this.#draw();
    keepFocus(this.#screen.other);
    const outcome = await this.#worker().start(run);
    if (mine !== this.#attempt) {
      return;
    }
    if (outcome.ok) {
      this.#trainerState = { type: "open" };
      this.#ports.session.setItem(WORKING_KEY, "1");
    } else {
      this.#fail(outcome.code, outcome.message);
    }
    this.#draw();
    keepFocus(this.#screen.main);
  }

  #stop(): void {
    this.#attempt += 1;
    this.#trainer?.stop();
    this.#letGo();
    this.#trainerState = { type: "none" };
    this.#ports.session.removeItem(WORKING_KEY);
    this.#draw();
  }

  /** For an end that nobody pressed a button for: only where Stop, which goes, had the focus does it move to another button. */
  #unasked(change: () => void): void {
    const { main, other } = this.#screen;
    const had = document.activeElement === other;
    change();
    if (had) {
      keepFocus(main);
    }
  }

  #retry(): void {
    if (this.#trainerState.type === "failed" || this.#view?.status === "failed") {
      this.#trainerState = { type: "none" };
      this.#end();
      void this.#contribute();
    } else if (this.#elsewhere) {
      this.#elsewhere = false;
      void this.#contribute();
    } else {
      this.#feed.retry();
    }
    this.#draw();
  }

  #worker(): Trainer {
    this.#trainer ??= this.#ports.openTrainer(
      { duty: this.#screen.power.duty, peers: this.#screen.peers.on },
      (view) => this.#takeView(view),
      (message) => {
        const worked = this.#works();
        this.#attempt += 1;
        this.#end();
        if (!worked) {
          this.#draw(); // it only wrote, and says so beside its text
          return;
        }
        this.#unasked(() => {
          this.#fail("unknown", message);
          this.#draw();
        });
      },
    );
    return this.#trainer;
  }

  /** Ends the worker; what it has contributed stays in the list. */
  #end(): void {
    this.#trainer?.close();
    this.#trainer = null;
    this.#earlier = this.#items();
    this.#view = null;
    this.#startedFor = null;
  }

  #fail(code: string, message: string): void {
    if (code === "consent") {
      this.#feed.retry(); // to hear of the run that is served now
    }
    this.#letGo();
    this.#trainerState = { type: "failed", code, message };
  }

  #letGo(): void {
    this.#release?.();
    this.#release = null;
  }

  async #generate(request: GenerateRequest): Promise<void> {
    const { writer } = this.#screen;
    writer.busy = true;
    writer.sentence = "Fetching the newest version and writing …";
    const outcome = await this.#worker().generate(request, (text) => writer.write(text));
    writer.busy = false;
    writer.sentence = outcome.ok ? outcome.sentence : asSentence(outcome.message);
  }
}
