/**
 * A relay that does not lead its run: an edge. It follows the ledger in the store they share, shows the run from it, and carries
 * its contributors' links to the leader (`net/bus-link.ts`). It hears of the leader by its beats. One that falls silent is waited
 * for: contributors lose nothing while nobody leads, and their links end when the next leader is there to take them.
 */
import { createTurn } from "../base/turn.ts";
import { AssertionError, HeddleError, present } from "../base/assert.ts";
import { followJournal, type Fold, type Follower } from "../coordinator/journal.ts";
import { startState } from "../coordinator/live.ts";
import { operatorViewOf, createPublicRecord, viewOf, type OperatorView } from "../coordinator/view.ts";
import { openEdge, randomEdge, type AnswerRtc, type Edge } from "../net/bus-link.ts";
import { verifySignature } from "../net/device-key.ts";
import { verifyChain, type SignedEntry } from "../protocol/chain.ts";
import type { Charter } from "../protocol/charter.ts";
import type { VersionInfo } from "../protocol/messages.ts";
import type { VersionView } from "../protocol/run-view.ts";
import type { Bus } from "../store/bus.ts";
import type { Store } from "../store/store.ts";
import { BEAT_SUBJECT, readBeat, type Beat } from "./beat.ts";
import type { Source } from "./front.ts";
import { joinNews, NEWS_SUBJECT, readNews, type News } from "./news.ts";
import { readCharter } from "./run.ts";

/** Answered by every relay that would take the lead. */
export const CANDIDATE_SUBJECT = "candidate";

/** The ledger is read where news were missed, where somebody asks for what is not known, and else once in this time. */
const READ_MS = 5_000;
/** News are gathered for so long, so that one signature does for many entries. */
const NEWS_MS = 200;
/** Bytes of news that are gathered; of more the store is asked. A message and an entry take memory beside their bytes. */
const GATHERED_BYTES_MAX = 1_048_576;
const OVERHEAD_BYTES = 100;

export interface FollowOptions {
  readonly bus: Bus;
  readonly store: Store;
  /** Names this process to people. */
  readonly name: string;
  readonly answerRtc: AnswerRtc;
  readonly newsMs?: number;
  /** A leader was heard for the first time: from now on there is a run to serve. */
  readonly onReady: (source: FollowedRun) => Promise<void>;
  /** The run has changed, and `version`, if not null, is new. */
  readonly onChange: (version: VersionView | null) => void;
  readonly onFailure: (error: unknown) => void;
  /** What a person who looks for faults may want to know. */
  readonly log: (sentence: string) => void;
}

export interface FollowedRun extends Source {
  readonly charter: Charter;
  /** Who was heard last, and what names its process to people. */
  leader(): { readonly epoch: number; readonly name: string };
  head(): VersionInfo;
  operatorView(): OperatorView;
}

export interface Following {
  /** Takes no heed of leaders any more, its own beats among them; links go on. */
  turnAway(): void;
  /** What has been read of the ledger; null where no leader was heard yet. */
  fold(): Fold | null;
  /** Ends all links with `reason`, and follows no more. */
  close(reason: string): Promise<void>;
}

/** Begins to listen for a leader. Everything else happens when one is heard. */
export async function follow(options: FollowOptions): Promise<Following> {
  const { bus, name, onFailure } = options;
  const following = new Followed(options);
  // Beside each other: on a cluster each takes a moment.
  const unsubscribe = await Promise.all([
    bus.subscribe(BEAT_SUBJECT, (bytes) => {
      const beat = readBeat(bytes);
      if (beat !== null) {
        following.hear(beat).catch(onFailure);
      }
    }),
    bus.subscribe(NEWS_SUBJECT, (bytes) => {
      const news = readNews(bytes);
      if (news !== null) {
        following.hearNews(news);
      }
    }),
    bus.answer(CANDIDATE_SUBJECT, async () => new TextEncoder().encode(name)),
  ]);
  const turnAway = (): void => unsubscribe.splice(0).forEach((end) => end());
  return {
    turnAway,
    fold: () => following.fold(),
    close: async (reason) => {
      turnAway();
      await following.close(reason);
    },
  };
}

/** A run as it is read from the store. */
interface Read {
  readonly charter: Charter;
  readonly ledger: Follower;
}

/** What changes while a leader is followed. */
class Followed {
  readonly #options: FollowOptions;
  readonly #inTurn = createTurn();
  /** News that wait to be taken, whether there were too many of them, when they are taken, and what takes earlier ones now. */
  #heard: News[] = [];
  #heardBytes = 0;
  #heardAll = true;
  #heardDue: ReturnType<typeof setTimeout> | null = null;
  #hearing: Promise<void> | null = null;
  readonly #id = randomEdge();
  #run: Read | null = null;
  #beat: Beat | null = null;
  /** A beat that waits to be taken; a later one takes its place. */
  #next: Beat | null = null;
  #edge: { readonly epoch: number; readonly carry: Edge } | null = null;
  #reading: Promise<void> | null = null;
  #readMs = Number.NEGATIVE_INFINITY;
  #ready = false;
  #served = 0;
  #closed = false;

  constructor(options: FollowOptions) {
    this.#options = options;
  }

  async hear(beat: Beat): Promise<void> {
    if (beat.epoch < (this.#run?.ledger.durable().epoch ?? 0)) {
      return; // of a leader that was deposed
    }
    const waits = this.#next !== null;
    this.#next = beat;
    if (!waits) {
      await this.#inTurn(() => this.#take()).catch((error: unknown) => {
        if (!(error instanceof HeddleError && error.code === "unreachable")) {
          throw error;
        } // the bus broke: the next beat says that it is back
      });
    }
  }

  hearNews(news: News): void {
    if (this.#run === null || this.#closed) {
      return;
    }
    const bytes = news.entries.reduce((sum, { length }) => sum + length + OVERHEAD_BYTES, OVERHEAD_BYTES);
    if (this.#heardBytes + bytes <= GATHERED_BYTES_MAX) {
      this.#heardBytes += bytes;
      this.#heard.push(news);
    } else {
      this.#heardAll = false;
    }
    this.#heardDue ??= setTimeout(() => {
      this.#heardDue = null;
      void this.#takeHeard();
    }, this.#options.newsMs ?? NEWS_MS);
  }

  /** One taking at a time, as with `#catchUp`. Never rejects. */
  async #takeHeard(): Promise<void> {
    await this.#hearing;
    this.#hearing ??= this.#takeGathered()
      .catch(this.#options.onFailure)
      .finally(() => {
        this.#hearing = null;
      });
    await this.#hearing;
  }

  async #takeGathered(): Promise<void> {
    const gathered = joinNews(this.#heard);
    let all = this.#heardAll;
    [this.#heard, this.#heardBytes, this.#heardAll] = [[], 0, true];
    for (const news of gathered) {
      all = (await this.#takeNews(news)) && all;
    }
    if (!all) {
      await this.#catchUp();
    }
  }

  /** Until `isKnown`: by what was heard, then by what the store has. */
  async #learn(isKnown: () => boolean): Promise<void> {
    for (const learn of [() => this.#takeHeard(), () => this.#catchUp()]) {
      if (!isKnown() && !this.#closed) {
        await learn();
      }
    }
  }

  /**
   * What is known already is no news. False for what does not come next in the ledger as the relay has signed it, be it late, damaged
   * or made up: then the store has the word.
   */
  async #takeNews({ after, entries }: News): Promise<boolean> {
    const { ledger } = present(this.#run, "a run to hear news of");
    const { chain } = ledger.fold();
    const unknown = entries.slice(Math.max(0, chain.length - after)); // those before may have been read meanwhile
    if (this.#closed || unknown.length === 0) {
      return true;
    }
    if (this.#reading !== null || after > chain.length) {
      return false;
    }
    const verified = await verifyChain(unknown, { verify: verifySignature, signatures: "last", chain });
    if (!verified.ok) {
      this.#options.log(`News of ledger entry ${verified.entry} are not taken: ${verified.detail}`);
    }
    if (this.#closed) {
      return true;
    }
    if (!verified.ok || this.#reading !== null || ledger.fold().chain !== chain) {
      return false;
    }
    try {
      ledger.take(verified.value);
      this.#tellChange(verified.value.entries);
      return true;
    } catch (error) {
      if (!(error instanceof AssertionError)) {
        throw error;
      }
      this.#options.log(`News of ledger entry ${chain.length} and on are not taken: ${error.message}`);
      return false;
    }
  }

  fold(): Fold | null {
    return this.#run?.ledger.fold() ?? null;
  }

  async close(reason: string): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#heardDue ?? undefined);
    this.#edge?.carry.close(reason);
    await this.#inTurn(async () => undefined);
    await this.#hearing;
    this.#edge?.carry.close(reason);
  }

  async #take(): Promise<void> {
    const beat = this.#next;
    this.#next = null;
    if (beat === null || this.#closed) {
      return;
    }
    const { bus, store, answerRtc, onReady, onChange } = this.#options;
    if (this.#run === null) {
      if ((await store.log.length()) === 0) {
        return; // no run has begun, so nobody leads it
      }
      const charter = await readCharter(store);
      const ledger = await followJournal(store.log);
      this.#run = { charter, ledger };
    }
    const { ledger } = this.#run;
    await this.#learn(() => beat.epoch <= ledger.durable().epoch);
    if (beat.epoch !== ledger.durable().epoch) {
      return; // who leads is in the ledger before it says so: this one was deposed, or nobody has said that
    }
    const { round, phase, connected } = this.#beat ?? { round: 0, phase: "", connected: 0 };
    const changed = round !== beat.round || phase !== beat.phase || connected !== beat.connected;
    this.#beat = beat;
    if (beat.epoch !== this.#edge?.epoch) {
      this.#edge?.carry.close("Another relay leads this run now; come back");
      const { epoch } = beat;
      const carry = await openEdge({ bus, epoch, edge: this.#id, answerRtc });
      this.#edge = { epoch, carry };
    }
    if (!this.#ready) {
      this.#ready = true;
      await onReady(this.#source(this.#run));
    } else if (changed) {
      onChange(null);
    }
    await this.#learn(() => beat.version <= ledger.durable().head.version);
    if (performance.now() >= this.#readMs + READ_MS) {
      await this.#catchUp();
    }
    this.#tellServed();
  }

  /** One reading at a time; whoever asks meanwhile waits for one that begins now. */
  async #catchUp(): Promise<void> {
    await this.#reading;
    this.#reading ??= this.#readOn().finally(() => {
      this.#reading = null;
    });
    await this.#reading;
  }

  async #readOn(): Promise<void> {
    this.#readMs = performance.now();
    this.#tellChange((await this.#run?.ledger.catchUp()) ?? []);
  }

  #tellChange(entries: readonly SignedEntry[]): void {
    const merges = entries.filter(({ event }) => event.type === "merged").length;
    const versions = merges === 0 ? [] : this.#run?.ledger.durable().versions.slice(-merges);
    versions?.forEach((version) => this.#options.onChange(version));
  }

  #source({ charter, ledger }: Read): FollowedRun {
    const state = (): ReturnType<typeof startState> => startState(charter, ledger.durable(), 0);
    const isPublic = createPublicRecord(charter);
    return {
      charter,
      attach: (link, arrival) => {
        if (this.#edge === null) {
          throw new HeddleError("unreachable", "Cannot carry a link: no leader was heard");
        }
        return this.#edge.carry.attach(link, { prefix: arrival?.prefix ?? null });
      },
      view: () => {
        const { round, phase, connected } = this.#beat as Beat;
        return { ...viewOf(state()), round, phase, connected };
      },
      // Contributors hear of an entry's blobs by the leader's messages, which may be faster than its news.
      isPublic: async (digest) => {
        await this.#learn(() => isPublic(ledger.durable(), digest));
        return isPublic(ledger.durable(), digest);
      },
      countDownload: (bytes) => {
        this.#served += bytes;
      },
      leader: () => {
        const { epoch, leader } = this.#beat as Beat;
        return { epoch, name: leader };
      },
      head: () => ledger.durable().head,
      operatorView: () => operatorViewOf(state()),
    };
  }

  #tellServed(): void {
    if (this.#served > 0) {
      this.#edge?.carry.countServed(this.#served);
      this.#served = 0;
    }
  }
}
