/**
 * Ledger entries on the bus, as soon as they are in the store: an edge that follows the ledger is told them once instead of asking
 * for each. News may be lost, and a large entry is none: whoever finds a gap reads the store.
 */
import { decode, encode } from "@msgpack/msgpack";
import type { Bytes } from "../base/bytes.ts";
import { scanMsgpack, type ScanLimits } from "../protocol/scan.ts";
import { publishIfThere, type Bus } from "../store/bus.ts";
import type { Log } from "../store/store.ts";

export const NEWS_SUBJECT = "news";
/** Of one message; the bus may carry more, or less. */
const NEWS_BYTES_MAX = 262_144;
const ENTRIES_MAX = 4_096;
const SCAN: ScanLimits = { depthMax: 2, valuesMax: 3 + ENTRIES_MAX, stringBytesMax: 0, binBytesMax: NEWS_BYTES_MAX };

export interface News {
  /** Entries before these. */
  readonly after: number;
  readonly entries: readonly Bytes[];
}

/** The same log; what is appended to it is told on the bus. */
export function toldLog(log: Log, bus: Bus): Log {
  return {
    length: () => log.length(),
    read: (from, count) => log.read(from, count),
    append: async (after, entries) => {
      const done = await log.append(after, entries);
      const bytesMax = Math.min(NEWS_BYTES_MAX, bus.payloadBytesMax);
      const bytes = entries.reduce((sum, entry) => sum + entry.length, 0);
      // Large entries are not even encoded.
      const news = done && bytes < bytesMax && entries.length <= ENTRIES_MAX ? encode([after, entries]) : null;
      if (news !== null && news.length <= bytesMax) {
        publishIfThere(bus, NEWS_SUBJECT, news);
      }
      return done;
    },
  };
}

/** Null for what is no news, as a relay of another version may send it. */
export function readNews(bytes: Bytes): News | null {
  let read: unknown;
  try {
    read = bytes.length > NEWS_BYTES_MAX || scanMsgpack(bytes, SCAN) !== null ? null : decode(bytes);
  } catch {
    return null; // a map with a key that is none, for one
  }
  const [after, entries] = Array.isArray(read) ? (read as unknown[]) : [];
  const sound = Number.isSafeInteger(after) && Array.isArray(entries);
  return sound && entries.every((entry) => entry instanceof Uint8Array)
    ? { after: after as number, entries: entries as Bytes[] }
    : null;
}

/** The same news, those that follow each other as one. */
export function joinNews(news: readonly News[]): News[] {
  const joined: { readonly after: number; readonly entries: Bytes[] }[] = [];
  for (const { after, entries } of news) {
    const last = joined.at(-1);
    if (last !== undefined && after === last.after + last.entries.length) {
      entries.forEach((entry) => last.entries.push(entry)); // there may be more than a call takes arguments
    } else {
      joined.push({ after, entries: [...entries] });
    }
  }
  return joined;
}
