/**
 * The observatory: joins the run's feed, the worker that reads the ledger, the slider, and a verification when it is asked for.
 * What it needs from outside comes in as ports; `main.ts` makes the real ones.
 */
import type { Digest } from "../base/bytes.ts";
import type { SeenEntry, Verification } from "../coordinator/verify.ts";
import type { RunView } from "../protocol/run-view.ts";
import { MOMENTS_MAX, ROUNDS_MAX, type Moment, type RoundRecord } from "../protocol/series.ts";
import type { TextStore } from "../ui/agreement.ts";
import { setText } from "../ui/dom.ts";
import type { FeedHandlers } from "../ui/feed.ts";
import { formatCount } from "../ui/format.ts";
import type { ObservatoryEvent, ObservatoryLink } from "../ui/observatory-link.ts";
import { onPress } from "../ui/press.ts";
import {
  columnsOf,
  drawContributions,
  drawFindings,
  drawKeys,
  drawMoments,
  drawReading,
  drawRounds,
  drawSight,
  drawUnread,
  findScreen,
} from "./screen.ts";
import { resultWords, type Sight } from "./words.ts";

export interface ObservatoryPorts {
  readonly relay: string;
  openFeed(handlers: FeedHandlers): unknown;
  openWorker(tell: (event: ObservatoryEvent) => void): ObservatoryLink;
  /** Kept on this device: the last entry that was verified. */
  readonly kept: TextStore;
  /** The round that the address names, and writing it there. */
  readonly address: { read(): number | null; write(round: number | null): void };
  nowMs(): number;
}

/** While the ledger is read, the curve is drawn anew this often. */
const READING_MS = 500;
/** How long the slider rests before its round's contributions are read. */
const REST_MS = 150;

export function mountObservatory(ports: ObservatoryPorts): void {
  new Observatory(ports).listen();
}

/** What changes while the page is open; a class because it holds the workers and the feed. */
class Observatory {
  readonly #ports: ObservatoryPorts;
  readonly #screen = findScreen();
  readonly #follower: ObservatoryLink;
  #verifier: ObservatoryLink | null = null;
  #begunMs = 0;
  #run: RunView | null = null;
  #feed: "loading" | "live" | "lost" = "loading";
  #rounds: RoundRecord[] = [];
  #columns: readonly (readonly number[])[] = [];
  #moments: Moment[] = [];
  /** Number of the round looked at; null follows the newest. */
  #round: number | null;
  /** The first entry of the round whose contributions are shown or asked for; -1 after a failure: the next drawing asks again. */
  #asked = -1;
  #whole = false;
  /** Rounds were added that are not drawn yet, and when some were drawn last. */
  #grown = false;
  #grownMs = 0;
  #rest: ReturnType<typeof setTimeout> | undefined;
  #frame = 0;

  constructor(ports: ObservatoryPorts) {
    this.#ports = ports;
    this.#round = ports.address.read();
    this.#follower = ports.openWorker((event) => this.#take(event));
  }

  listen(): void {
    const { scrub, chart, verify, stop } = this.#screen;
    scrub.addEventListener("heddle-scrub", (event) => this.#look((event as CustomEvent<number>).detail));
    chart.addEventListener("heddle-pick", (event) => {
      const version = (event as CustomEvent<number>).detail;
      this.#look(this.#rounds.findIndex((round) => round.version >= version));
    });
    onPress(verify, () => this.#verify());
    onPress(stop, () => this.#endVerifying("Stopped.", "Nothing was found out; verify again when you like."));
    this.#ports.openFeed({
      run: (run) => {
        this.#run = run;
        this.#screen.verify.disabled = false; // what was verified before is remembered by run
        this.#follow();
        this.#draw();
      },
      state: (state) => {
        this.#feed = state;
        this.#draw();
      },
    });
    this.#follow();
    drawFindings(null);
    drawKeys(null, null);
    this.#draw();
  }

  #follow(): void {
    this.#follower.send({ type: "follow", relay: this.#ports.relay });
  }

  #take(event: ObservatoryEvent): void {
    switch (event.type) {
      case "added":
        this.#screen.broken.hidden = true; // the relay answers
        this.#whole = event.entries >= event.length;
        if (event.rounds.length > 0) {
          this.#rounds = [...this.#rounds, ...event.rounds].slice(-ROUNDS_MAX);
          this.#grown = true;
        }
        this.#moments = [...this.#moments, ...event.moments].slice(-MOMENTS_MAX);
        this.#draw();
        return;
      case "broken":
        this.#whole = true; // there is no more of it
        this.#say(
          `The ledger breaks at entry ${formatCount(event.entry)}: ${event.detail}. This page shows the run up to there; verifying it says more.`,
        );
        this.#draw();
        return;
      case "trouble":
      case "failed":
        if (this.#rounds.length === 0) {
          this.#say(event.sentence);
        }
        return;
      case "contributions":
      case "unread":
        this.#takeRound(event);
        return;
      case "progress":
      case "verified":
        return; // of the other worker
      default:
        event satisfies never;
    }
  }

  /** What was read of the round looked at; of another nothing is shown. */
  #takeRound(event: Extract<ObservatoryEvent, { readonly type: "contributions" | "unread" }>): void {
    const round = this.#rounds[this.#at()];
    if (event.from !== round?.from) {
      return;
    }
    if (event.type === "contributions") {
      drawContributions(this.#screen, round.round, event.records);
    } else {
      this.#asked = -1;
      drawUnread(this.#screen, round.round, event.sentence);
    }
  }

  #say(sentence: string): void {
    this.#screen.broken.hidden = false;
    setText(this.#screen.broken, sentence);
  }

  /** Index of the round looked at. */
  #at(): number {
    const last = this.#rounds.length - 1;
    if (this.#round === null || last < 0) {
      return Math.max(0, last);
    }
    const first = this.#rounds[0]?.round ?? 0;
    return Math.min(last, Math.max(0, this.#round - first));
  }

  /** Looks at a position of the slider; the last one is the present. */
  #look(at: number): void {
    const last = this.#rounds.length - 1;
    this.#round = at >= last || at < 0 ? null : (this.#rounds[at]?.round ?? null);
    this.#draw();
  }

  #sight(): Sight {
    const live = this.#round === null;
    const now = live && this.#feed === "live" ? this.#run : null;
    return { rounds: this.#rounds, at: this.#at(), whole: this.#whole, live, now, run: this.#run };
  }

  /** However much changes, the page is drawn once a frame. */
  #draw(): void {
    if (this.#frame === 0) {
      this.#frame = requestAnimationFrame(() => {
        this.#frame = 0;
        this.#drawNow();
      });
    }
  }

  #drawNow(): void {
    const sight = this.#sight();
    const { live } = sight;
    const nowMs = this.#ports.nowMs();
    if (this.#grown && (this.#whole || nowMs - this.#grownMs > READING_MS)) {
      this.#grown = false;
      this.#grownMs = nowMs;
      this.#columns = columnsOf(this.#rounds);
      drawRounds(this.#screen, sight);
    }
    drawSight(this.#screen, sight, this.#columns);
    const round = sight.rounds[sight.at];
    if (round === undefined) {
      return;
    }
    drawMoments(this.#moments, live ? Number.POSITIVE_INFINITY : round.to);
    // While the ledger is read, rounds pass by faster than anybody looks at them.
    if (round.from !== this.#asked && (this.#whole || !live)) {
      this.#asked = round.from;
      drawReading(this.#screen);
      clearTimeout(this.#rest);
      this.#rest = setTimeout(() => {
        this.#follower.send({ type: "round", relay: this.#ports.relay, from: round.from, to: round.to });
        this.#ports.address.write(this.#round);
      }, REST_MS);
    }
  }

  #verify(): void {
    const { panel, progress, verify, stop, state, hint } = this.#screen;
    this.#verifier?.close();
    this.#begunMs = this.#ports.nowMs();
    this.#verifier = this.#ports.openWorker((event) => this.#takeVerifier(event));
    this.#verifier.send({ type: "verify", relay: this.#ports.relay, seen: this.#seen() });
    panel.dataset["mood"] = "working";
    progress.value = 0;
    progress.classList.remove("resting");
    setText(state, "Verifying in this browser …");
    setText(hint, "Reading the ledger from its first entry");
    verify.hidden = true;
    stop.hidden = false;
    stop.focus();
    drawFindings(null);
    drawKeys(null, null);
  }

  #takeVerifier(event: ObservatoryEvent): void {
    const { progress, hint } = this.#screen;
    if (event.type === "progress") {
      progress.value = event.progress.total === 0 ? 0 : event.progress.done / event.progress.total;
      setText(hint, event.progress.sentence);
    } else if (event.type === "verified") {
      this.#takeVerification(event.verification);
    } else if (event.type === "failed") {
      this.#endVerifying("The run could not be verified.", event.sentence);
    }
  }

  #takeVerification({ findings, run, last, relay }: Verification): void {
    const { mood, sentence, hint } = resultWords(findings, this.#ports.nowMs() - this.#begunMs);
    this.#endVerifying(sentence, hint);
    this.#screen.panel.dataset["mood"] = mood;
    drawFindings(findings);
    drawKeys(relay, last);
    if (mood === "agrees" && last !== null && run !== null) {
      this.#ports.kept.setItem(seenKey(run), JSON.stringify(last));
    }
  }

  #endVerifying(sentence: string, hint: string): void {
    const { panel, progress, verify, stop, state } = this.#screen;
    this.#verifier?.close();
    this.#verifier = null;
    panel.dataset["mood"] = "idle";
    progress.classList.add("resting");
    setText(state, sentence);
    setText(this.#screen.hint, hint);
    const focused = document.activeElement === stop;
    stop.hidden = true;
    verify.hidden = false;
    setText(verify, "Verify again");
    if (focused) {
      verify.focus();
    }
  }

  #seen(): SeenEntry | null {
    return this.#run === null ? null : readSeen(this.#ports.kept.getItem(seenKey(this.#run.run)));
  }
}

function seenKey(run: Digest): string {
  return `heddle.verified.${run}`;
}

/** What was kept, or null for anything else. */
function readSeen(text: string | null): SeenEntry | null {
  try {
    const { entry, digest } = JSON.parse(text ?? "null") as SeenEntry;
    return Number.isSafeInteger(entry) && entry >= 0 && /^[0-9a-f]{64}$/.test(digest) ? { entry, digest } : null;
  } catch {
    return null; // nothing kept, or by somebody else
  }
}
