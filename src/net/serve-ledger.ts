/** Serves the ledger over HTTP in pages, which `ledger.ts` describes and reads. Any web page may read it: it is the public record. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { Bytes } from "../base/bytes.ts";
import { COUNT_MAX } from "../protocol/limits.ts";
import { writeLedger } from "../protocol/ledger-file.ts";
import type { Log } from "../store/store.ts";
import { LENGTH_HEADER, PAGE_BYTES, PAGE_ENTRIES_MAX } from "./ledger.ts";

/** Entries taken from the store, and given to the peer, at a time: whoever does not read what it asked for holds no more of it in memory. */
const SLICE_ENTRIES = 64;

/**
 * Answers with the page that `query` asks for, or with 400 and a sentence, and resolves when it is sent or the peer is gone. Rejects
 * when the log cannot be read.
 */
export async function serveLedger(
  response: ServerResponse,
  { log, query }: { readonly log: Pick<Log, "length" | "read">; readonly query: URLSearchParams },
): Promise<void> {
  const [from, count] = [readCount(query.get("from") ?? "0"), readCount(query.get("count") ?? `${PAGE_ENTRIES_MAX}`)];
  const open = { "access-control-allow-origin": "*", "access-control-expose-headers": LENGTH_HEADER };
  if (from === null || count === null) {
    response.writeHead(400, { ...open, "content-type": "text/plain; charset=utf-8" });
    response.end("Cannot read the ledger: from and count must be whole numbers\n");
    return;
  }
  const length = await log.length();
  const entries = readPage(log, from, Math.min(from + count, from + PAGE_ENTRIES_MAX, length));
  response.writeHead(200, {
    ...open,
    [LENGTH_HEADER]: length,
    "cache-control": "no-store",
    "content-type": "application/octet-stream",
  });
  const gone = once(response, "close").catch(() => undefined);
  for await (const piece of writeLedger(entries, SLICE_ENTRIES)) {
    if (response.destroyed) {
      return;
    }
    if (!response.write(piece)) {
      await Promise.race([new Promise((resolve) => response.once("drain", resolve)), gone]);
    }
  }
  response.end();
}

/** Entries `from` … `to` (exclusive), until they have PAGE_BYTES together. */
async function* readPage(log: Pick<Log, "read">, from: number, to: number): AsyncGenerator<Bytes> {
  let bytes = 0;
  for (let at = from; at < to && bytes < PAGE_BYTES; at += SLICE_ENTRIES) {
    for (const entry of await log.read(at, Math.min(SLICE_ENTRIES, to - at))) {
      if (bytes < PAGE_BYTES) {
        bytes += entry.length;
        yield entry;
      }
    }
  }
}

function readCount(text: string): number | null {
  return /^\d{1,10}$/.test(text) && Number(text) <= COUNT_MAX ? Number(text) : null;
}
