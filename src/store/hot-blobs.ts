/**
 * Blobs as many ask for them at once: those of the newest version are wanted by everybody within seconds. A small one is read from its
 * store once, checked against its digest, and kept in memory a while; who asks meanwhile waits for the same reading. A digest never
 * stands for other bytes, so what is kept is right, also where the store has deleted it: who serves it asks first whether it may be read.
 */
import { LRUCache } from "lru-cache";
import type { Bytes, Digest } from "../base/bytes.ts";
import type { Blobs } from "./store.ts";

/** Of all blobs that are kept; as much again may be under way. */
const KEPT_BYTES_MAX = 67_108_864;
/** Larger ones are read slice by slice, as they are sent. */
const HOT_BYTES_MAX = 4_194_304;

export interface HotBlobsOptions {
  readonly keptBytesMax?: number;
  readonly hotBytesMax?: number;
}

/** What is read of `blobs` to serve them. Rejects as they do, also with "integrity" for a small one that is damaged. */
export function createHotBlobs(
  blobs: Pick<Blobs, "get" | "size" | "slice">,
  { keptBytesMax = KEPT_BYTES_MAX, hotBytesMax = HOT_BYTES_MAX }: HotBlobsOptions = {},
): Pick<Blobs, "size" | "slice"> {
  const kept = new LRUCache<Digest, Bytes>({ maxSize: keptBytesMax, sizeCalculation: ({ length }) => length || 1 });
  const reading = new Map<Digest, Promise<number | undefined>>();
  let readingBytes = 0;

  const read = async (digest: Digest): Promise<number | undefined> => {
    const bytes = await blobs.size(digest);
    if (bytes === undefined || bytes > hotBytesMax || readingBytes + bytes > keptBytesMax) {
      return bytes;
    }
    readingBytes += bytes;
    try {
      const whole = await blobs.get(digest);
      kept.set(digest, whole);
      return whole?.length;
    } finally {
      readingBytes -= bytes;
    }
  };

  return {
    size: async (digest) => {
      const known = kept.get(digest)?.length ?? reading.get(digest);
      if (known !== undefined) {
        return known;
      }
      const now = read(digest).finally(() => reading.delete(digest));
      reading.set(digest, now);
      return now;
    },
    slice: async (digest, start, end) => kept.get(digest)?.subarray(start, end) ?? blobs.slice(digest, start, end),
  };
}
