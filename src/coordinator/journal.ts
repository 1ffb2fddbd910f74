/**
 * The ledger on its store: read and folded when the relay starts, appended to ever after. An entry is durable before
 * `append` resolves, and nobody is told of an event earlier. A second process that writes to the same log is noticed and
 * stops this one; processes that take turns (`store/lease.ts`) enter it when they begin, so that the one of before is stopped.
 */
import { HeddleError } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { appendEntry, EMPTY_CHAIN, linkEntry, type ChainHead, type SignedEntry } from "../protocol/chain.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { entriesOf, type Log } from "../store/store.ts";
import { applyEvent, blobsOf, type DurableState } from "./state.ts";

/** How often the log is read to get ahead of a leader that is still writing. */
const READINGS_MAX = 100;

export interface Journal {
  /** Makes `events` durable, with the time of their tick; rejects with HeddleError "store" when that fails. */
  append(events: readonly LedgerEvent[], timeMs: number): Promise<readonly SignedEntry[]>;
  /** Entries that this process has read and written. */
  length(): number;
}

export interface JournalOptions {
  readonly log: Log;
  readonly key: DeviceKey;
  /** Of this process among several that share the store; absent where no other can write. */
  readonly epoch?: number;
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
 * Reads the whole log and, where there is an epoch, enters that this process leads: from then on nothing that a leader of
 * before still appends is taken. Rejects with HeddleError "integrity" when the log's chain is broken, "store" when another
 * key wrote it or a later epoch is in it.
 */
export async function openJournal(options: JournalOptions): Promise<OpenJournal> {
  const { epoch, clock } = options;
  for (let reading = 0; reading < READINGS_MAX; reading += 1) {
    const { chain, durable, superfluous } = await readLog(options);
    const writer = new Writer(options, chain);
    const journal: Journal = {
      append: (events, timeMs) => writer.append(events, timeMs),
      length: () => writer.length,
    };
    if (durable === null || epoch === undefined) {
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

interface ReadLog {
  readonly chain: ChainHead;
  readonly durable: DurableState | null;
  readonly superfluous: readonly Digest[];
}

async function readLog({ log, key }: JournalOptions): Promise<ReadLog> {
  let fold: Fold = NOTHING_READ;
  let before = new Set<Digest>();
  for await (const bytes of entriesOf(log)) {
    const next = foldEntry(fold, bytes);
    const { type } = next.entry.event;
    if (fold.durable !== null && (type === "merged" || type === "skipped")) {
      before = blobsOf(fold.durable);
    }
    fold = next;
  }
  const { chain, durable } = fold;
  if (durable !== null && !equalBytes(durable.relay, key.publicKey)) {
    throw new HeddleError("store", "Cannot open the ledger: it belongs to another relay's key");
  }
  const kept = durable === null ? new Set<Digest>() : blobsOf(durable); // what was let go may have come again since
  const superfluous = [...before].filter((digest) => !kept.has(digest));
  return { chain, durable, superfluous };
}

/** What the entries so far come to. */
interface Fold {
  readonly chain: ChainHead;
  readonly durable: DurableState | null;
}

const NOTHING_READ: Fold = { chain: EMPTY_CHAIN, durable: null };

/** Takes the next entry in. Throws HeddleError "integrity" when it does not continue the chain. */
function foldEntry(
  { chain, durable }: Fold,
  bytes: Bytes,
): Fold & { readonly durable: DurableState; readonly entry: SignedEntry } {
  const linked = linkEntry(chain, bytes);
  if (!linked.ok) {
    throw new HeddleError("integrity", `Cannot open the ledger: entry ${chain.length}: ${linked.detail}`);
  }
  const { event, timeMs } = linked.value.entry;
  return { entry: linked.value.entry, chain: linked.value.chain, durable: applyEvent(durable, event, timeMs) };
}

/** The ledger as one reads it who does not write: the leader's, in another process. */
export interface Follower {
  /** The fold of what has been read. */
  durable(): DurableState;
  /** Entries taken in. */
  length(): number;
  /** Takes in, and returns, the entries that come next, as somebody else has read them. Not while `catchUp` is under way. */
  take(entries: readonly Bytes[]): readonly SignedEntry[];
  /** Reads what was appended since, and returns it. Calls must not overlap. */
  catchUp(): Promise<readonly SignedEntry[]>;
}

/** Reads the whole log. Rejects with HeddleError "integrity" when its chain is broken, "store" when it is empty. */
export async function followJournal(log: Log): Promise<Follower> {
  let fold: Fold = NOTHING_READ;
  const takeOne = (bytes: Bytes): SignedEntry => {
    const next = foldEntry(fold, bytes);
    fold = next;
    return next.entry;
  };
  const catchUp = async (): Promise<readonly SignedEntry[]> => {
    const entries: SignedEntry[] = [];
    for await (const bytes of entriesOf(log, fold.chain.length)) {
      entries.push(takeOne(bytes));
    }
    return entries;
  };
  await catchUp();
  if (fold.durable === null) {
    throw new HeddleError("store", "Cannot follow the ledger: no run has begun");
  }
  return {
    durable: () => fold.durable as DurableState,
    length: () => fold.chain.length,
    take: (entries) => entries.map(takeOne),
    catchUp,
  };
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
