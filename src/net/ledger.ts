/**
 * The ledger over HTTP, in pages: `GET /api/ledger?from=N&count=M` answers with a ledger file (`protocol/ledger-file.ts`) of the
 * entries from number N on, as many as a page holds, at most M, and says how many there are in all. `serve-ledger.ts` is the
 * other side. Nothing is believed here: who reads checks what it says.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { readLedger } from "../protocol/ledger-file.ts";
import { COUNT_MAX, ENTRY_BYTES_MAX } from "../protocol/limits.ts";
import { createPatientFetch } from "./later.ts";

/** Entries of a page at most, and bytes after which no further entry begins. */
export const PAGE_ENTRIES_MAX = 1_024;
export const PAGE_BYTES = 1_048_576;
/** Header of an answer: entries of the whole ledger. */
export const LENGTH_HEADER = "heddle-ledger-length";

/** Whoever reads a long ledger waits as long as a relay ever says (`relay/http.ts`). */
const PATIENCE_MS = 60_000;

export interface LedgerPage {
  readonly entries: readonly Bytes[];
  /** Of the whole ledger when the page was made. */
  readonly length: number;
}

/** Reads up to `count` entries from number `from` on; fewer where a page ends, none where the ledger does. */
export type FetchLedger = (from: number, count?: number) => Promise<LedgerPage>;

/** The fetch rejects with HeddleError "unreachable" when the relay does not answer, "limit" or "bad-input" for what is no page. */
export function createLedgerFetcher(
  origin: string,
  fetch: typeof globalThis.fetch = createPatientFetch({ waitMsMax: PATIENCE_MS }),
): FetchLedger {
  return async (from, count = PAGE_ENTRIES_MAX) => {
    const address = `${origin}/api/ledger?from=${from}&count=${count}`;
    const response = await fetch(address, { cache: "no-store" }).catch((error: unknown) => {
      throw new HeddleError("unreachable", "Cannot read the ledger: the relay does not answer", { cause: error });
    });
    const length = Number(response.headers.get(LENGTH_HEADER) ?? Number.NaN);
    if (!response.ok || !(length >= 0 && length <= COUNT_MAX) || response.body === null) {
      throw new HeddleError("unreachable", `Cannot read the ledger: the relay answers ${response.status}`);
    }
    const entries: Bytes[] = [];
    for await (const entry of readLedger(bounded(response.body.getReader()))) {
      entries.push(entry);
      if (entries.length > count) {
        throw new HeddleError("limit", `Cannot read the ledger: the relay sent more than ${count} entries`);
      }
    }
    return { entries, length };
  };
}

/** What arrives, up to what a page can have. Not every browser iterates over streams. */
async function* bounded(reader: ReadableStreamDefaultReader<Uint8Array>): AsyncGenerator<Uint8Array> {
  const bytesMax = PAGE_BYTES + ENTRY_BYTES_MAX + 8 * PAGE_ENTRIES_MAX;
  let bytes = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      bytes += value.length;
      if (bytes > bytesMax) {
        throw new HeddleError("limit", `Cannot read the ledger: a page has more than ${bytesMax} bytes`);
      }
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined); // the connection may be gone already
  }
}
