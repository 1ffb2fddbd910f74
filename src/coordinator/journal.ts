/**
 * The ledger on its store: read and folded when the relay starts, appended to ever after. An entry is durable before
 * `append` resolves, and nobody is told of an event earlier. A second process that writes to the same log is noticed and
 * stops this one; processes that take turns (`store/lease.ts`) enter it when they begin, so that the one of before is stopped.
 * Who has followed the ledger until then hands on what it knows, and only what came after that is read.
 */
import { HeddleError, present } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { digestOf, equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { appendEntry, EMPTY_CHAIN, linkEntry, type ChainHead, type SignedEntry } from "../protocol/chain.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import type { LedgerEntry, LedgerEvent } from "../protocol/ledger.ts";
import { entriesOf, type Log } from "../store/store.ts";
import { applyEvent, blobsOf, type DurableState } from "./state.ts";

/** How often the log is read on to get ahead of a leader that is still writing. */
const READINGS_MAX = 100;

export interface Journal {
  /** Makes `events` durable, with the time of their tick; rejects with HeddleError "store" when that fails. */
  append(events: readonly LedgerEvent[], timeMs: number): Promise<readonly SignedEntry[]>;
  /** Entries that this process has read and written. */
  length(): number;
}

/** What the first entries of a ledger come to: a function of these alone. Nothing of it is ever changed, so it can be shared. */
export interface Fold {
  readonly chain: ChainHead;
  readonly durable: DurableState | null;
  /** Before the last merge or skip, which has made some of its blobs superfluous; null before the first. */
  readonly before: DurableState | null;
}

export interface JournalOptions {
  readonly log: Log;
  readonly key: DeviceKey;
  /** Of the lease that this process holds among several that share the store; absent where no other can write. */
  readonly epoch?: number;
  /** Of what this process has read of the same log, however long ago. Not believed where the log has other entries. */
  readonly known?: Fold | null;
  readonly clock: Clock;
}

export interface OpenJournal {
  readonly journal: Journal;
  /** The fold of the log; null when it is empty. */
  readonly durable: DurableState | null;
  /** Blobs that the last merge or skip made superfluous: deleted again, in case the relay died before it did. */
  readonly superfluous: readonly Digest[];
  /** What opening it has written: that this process leads. */
  readonly entries: readonly SignedEntry[];
}

/**
 * Reads the log, all or what is not `known`, and, where there is an epoch, enters that this process leads: from then on nothing
 * that a leader of before still appends is taken. Rejects with HeddleError "integrity" when the log's chain is broken, "store"
 * when another key wrote it or a later epoch is in it.
 */
export async function openJournal(options: JournalOptions): Promise<OpenJournal> {
  const { log, epoch, known = null, clock } = options;
  let fold = known !== null && (await beginsWith(log, known)) ? known : NOTHING_READ;
  for (let reading = 0; reading < READINGS_MAX; reading += 1) {
    for await (const bytes of entriesOf(log, fold.chain.length)) {
      ({ fold } = foldEntry(fold, bytes));
    }
    const { chain, durable } = fold;
    const writer = new Writer(options, chain);
    const journal: Journal = {
      append: (events, timeMs) => writer.append(events, timeMs),
      length: () => writer.length,
    };
    if (durable === null) {
      return { journal, durable, superfluous: [], entries: [] };
    }
    if (!equalBytes(durable.relay, options.key.publicKey)) {
      throw new HeddleError("store", "Cannot open the ledger: it belongs to another relay's key");
    }
    const superfluous = superfluousAfter(fold);
    if (epoch === undefined) {
      return { journal, durable, superfluous, entries: [] };
    }
    if (epoch <= durable.epoch) {
      throw new HeddleError(
        "store",
        `Cannot lead the run: got epoch ${epoch}, its ledger has ${durable.epoch} already`,
      );
    }
    const [event, timeMs] = [{ type: "led", epoch } as const, clock.nowMs()];
    const entries = await writer.tryAppend([event], timeMs);
    if (entries !== null) {
      return { journal, durable: applyEvent(durable, event, timeMs), superfluous, entries };
    }
    // The leader of before was still writing: what it wrote has to be read.
  }
  throw new HeddleError("store", "Cannot lead the run: another process goes on writing its ledger");
}

const NOTHING_READ: Fold = { chain: EMPTY_CHAIN, durable: null, before: null };

/**
 * Whether the log's first entries are those of `fold`: the last one's digest says so, since each entry holds that of the one before.
 * Entries that were only told of (`relay/news.ts`) may never have been stored, and a store may have lost some.
 */
async function beginsWith(log: Log, { chain }: Fold): Promise<boolean> {
  const [last] = chain.length === 0 ? [] : await log.read(chain.length - 1, 1);
  return last !== undefined && digestOf(last) === chain.digest;
}

/** Takes the next entry in. Throws HeddleError "integrity" when it does not continue the chain. */
function foldEntry(fold: Fold, bytes: Bytes): { readonly fold: Fold; readonly entry: SignedEntry } {
  const linked = linkEntry(fold.chain, bytes);
  if (!linked.ok) {
    throw new HeddleError("integrity", `Cannot open the ledger: entry ${fold.chain.length}: ${linked.detail}`);
  }
  const { entry, chain } = linked.value;
  return { entry, fold: foldLinked(fold, [entry], chain) };
}

/** Takes in `entries`, which lead to `chain`. Throws AssertionError when one does not fit the state. */
function foldLinked({ durable, before }: Fold, entries: readonly LedgerEntry[], chain: ChainHead): Fold {
  for (const { event, timeMs } of entries) {
    before = event.type === "merged" || event.type === "skipped" ? durable : before;
    durable = applyEvent(durable, event, timeMs);
  }
  return { chain, durable, before };
}

function superfluousAfter({ durable, before }: Fold): Digest[] {
  if (durable === null || before === null) {
    return [];
  }
  const kept = blobsOf(durable); // what was let go may have come again since
  return [...blobsOf(before)].filter((digest) => !kept.has(digest));
}

/** The ledger as one reads it who does not write: the leader's, in another process. */
export interface Follower {
  /** What has been read, to be handed on. */
  fold(): Fold;
  /** The fold's state. */
  durable(): DurableState;
  /**
   * Takes in entries that somebody else has read, and that `verifyChain` has found to continue the fold's chain: all, or none where
   * it throws. Not while `catchUp` is under way.
   */
  take(news: { readonly entries: readonly SignedEntry[]; readonly chain: ChainHead }): void;
  /**
   * Reads what was appended since, and returns it; reads all again where the log has other entries than were taken. Rejects with
   * HeddleError "integrity" when its chain is broken or it is another run's, "store" when it is empty. Calls must not overlap.
   */
  catchUp(): Promise<readonly SignedEntry[]>;
}

/** Reads the whole log. Rejects as `catchUp` does. */
export async function followJournal(log: Log): Promise<Follower> {
  let fold: Fold = NOTHING_READ;
  const catchUp = async (): Promise<readonly SignedEntry[]> => {
    let read = (await beginsWith(log, fold)) ? fold : NOTHING_READ;
    const news: SignedEntry[] = [];
    for await (const bytes of entriesOf(log, read.chain.length)) {
      const next = foldEntry(read, bytes);
      read = next.fold;
      if (read.chain.length > fold.chain.length) {
        news.push(next.entry);
      }
    }
    if (read.durable === null) {
      throw new HeddleError("store", "Cannot follow the ledger: no run has begun");
    }
    if (fold.durable !== null && !isSameRun(fold.durable, read.durable)) {
      throw new HeddleError("integrity", "Cannot follow the ledger: another run or relay's is in its place");
    }
    fold = read;
    return news;
  };
  await catchUp();
  return {
    fold: () => fold,
    durable: () => present(fold.durable, "the ledger's start"),
    take: ({ entries, chain }) => {
      fold = foldLinked(fold, entries, chain);
    },
    catchUp,
  };
}

function isSameRun(a: DurableState, b: DurableState): boolean {
  return a.run === b.run && equalBytes(a.relay, b.relay);
}

class Writer {
  readonly #options: JournalOptions;
  #chain: ChainHead;

  constructor(options: JournalOptions, chain: ChainHead) {
    this.#options = options;
    this.#chain = chain;
  }

  get length(): number {
    return this.#chain.length;
  }

  async append(events: readonly LedgerEvent[], timeMs: number): Promise<readonly SignedEntry[]> {
    const entries = await this.tryAppend(events, timeMs);
    if (entries === null) {
      throw new HeddleError("store", "Cannot write the ledger: another process has written to it");
    }
    return entries;
  }

  /** Resolves to null, with nothing written, when the log is longer than what this process knows. */
  async tryAppend(events: readonly LedgerEvent[], timeMs: number): Promise<readonly SignedEntry[] | null> {
    const { log, key } = this.#options;
    const entries: SignedEntry[] = [];
    const written: Bytes[] = [];
    let next = this.#chain;
    for (const event of events) {
      const appended = await appendEntry(next, event, { timeMs, key });
      entries.push(appended.entry);
      written.push(appended.bytes);
      next = appended.chain;
    }
    if (!(await log.append(this.#chain.length, written))) {
      return null;
    }
    this.#chain = next;
    return entries;
  }
}
