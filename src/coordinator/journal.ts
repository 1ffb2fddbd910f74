/**
 * The ledger on its store: read and folded when the relay starts, appended to ever after. An entry is durable before
 * `append` resolves, and nobody is told of an event earlier. A second process that writes to the same log is noticed and
 * stops this one.
 */
import { HeddleError } from "../base/assert.ts";
import { equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { appendEntry, EMPTY_CHAIN, linkEntry, type ChainHead, type SignedEntry } from "../protocol/chain.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { Log } from "../store/store.ts";
import { applyEvent, blobsOf, type DurableState } from "./state.ts";

/** Entries read at a time when the relay starts. */
const PAGE_ENTRIES = 256;

export interface Journal {
  /** Makes `events` durable, with the time of their tick; rejects with HeddleError "store" when that fails. */
  append(events: readonly LedgerEvent[], timeMs: number): Promise<readonly SignedEntry[]>;
}

export interface JournalOptions {
  readonly log: Log;
  readonly key: DeviceKey;
}

export interface OpenJournal {
  readonly journal: Journal;
  /** The fold of the log; null when it is empty. */
  readonly durable: DurableState | null;
  /** Blobs that the last merge or skip made superfluous: deleted again, in case the relay died before it did. */
  readonly superfluous: readonly Digest[];
}

/** Reads the whole log. Rejects with HeddleError "integrity" when its chain is broken, "store" when another key wrote it. */
export async function openJournal({ log, key }: JournalOptions): Promise<OpenJournal> {
  const length = await log.length();
  let chain = EMPTY_CHAIN;
  let durable: DurableState | null = null;
  let superfluous: Digest[] = [];
  for (let from = 0; from < length; from += PAGE_ENTRIES) {
    for (const bytes of await log.read(from, Math.min(PAGE_ENTRIES, length - from))) {
      const linked = linkEntry(chain, bytes);
      if (!linked.ok) {
        throw new HeddleError("integrity", `Cannot open the ledger: ${linked.detail}`);
      }
      const { event, timeMs } = linked.value.entry;
      const next: DurableState = applyEvent(durable, event, timeMs);
      if (durable !== null && (event.type === "merged" || event.type === "skipped")) {
        const kept = blobsOf(next);
        superfluous = [...blobsOf(durable)].filter((digest) => !kept.has(digest));
      }
      durable = next;
      chain = linked.value.chain;
    }
  }
  if (durable !== null && !equalBytes(durable.relay, key.publicKey)) {
    throw new HeddleError("store", "Cannot open the ledger: it belongs to another relay's key");
  }
  return { journal: writeTo({ log, key }, chain), durable, superfluous };
}

function writeTo({ log, key }: JournalOptions, start: ChainHead): Journal {
  let chain = start;
  return {
    append: async (events, timeMs) => {
      const entries: SignedEntry[] = [];
      const written: Bytes[] = [];
      let next = chain;
      for (const event of events) {
        const appended = await appendEntry(next, event, { timeMs, key });
        entries.push(appended.entry);
        written.push(appended.bytes);
        next = appended.chain;
      }
      if (!(await log.append(chain.length, written))) {
        throw new HeddleError("store", "Cannot write the ledger: another process has written to it");
      }
      chain = next;
      return entries;
    },
  };
}
