/**
 * Blobs as many ask for them at once: those of the newest version are wanted by everybody within seconds. A small one is read from its
 * store once, checked against its digest, and kept in memory a while; who asks meanwhile waits for the same reading. A digest never
 * stands for other bytes, so what is kept is right, also where the store has deleted it: who serves it asks first whether it may be read.
 */
import { LRUCache } from "lru-cache";
import type { Bytes, Digest } from "../base/bytes.ts";
import { getWhole, type Blobs } from "./store.ts";

/** Of all blobs that are kept; as much again may be under way from the store. */
const KEPT_BYTES_MAX = 67_108_864;
/** Larger ones are read slice by slice, as they are sent. */
const HOT_BYTES_MAX = 4_194_304;
const SIZES_MAX = 4_096;

export interface HotBlobsOptions {
  readonly keptBytesMax?: number;
  readonly hotBytesMax?: number;
}

/** What is read of `blobs` to serve them. One that is damaged is not kept, and served as it is: whoever asks for a digest checks it. */
export function createHotBlobs(
  blobs: Pick<Blobs, "get" | "size" | "slice">,
  { keptBytesMax = KEPT_BYTES_MAX, hotBytesMax = HOT_BYTES_MAX }: HotBlobsOptions = {},
): Pick<Blobs, "size" | "slice"> {
  const sizes = new LRUCache<Digest, Promise<number | undefined>>({ max: SIZES_MAX });
  const kept = new LRUCache<Digest, Bytes>({ maxSize: keptBytesMax, sizeCalculation: ({ length }) => length || 1 });
  const reading = new Map<Digest, Promise<Bytes | undefined>>();
  let readingBytes = 0;

  const ask = (digest: Digest): Promise<number | undefined> => {
    const asked = blobs.size(digest);
    sizes.set(digest, asked);
    const forget = (): boolean => sizes.delete(digest);
    asked.then((size) => size === undefined && forget(), forget);
    return asked;
  };
  const read = async (digest: Digest, size: number): Promise<Bytes | undefined> => {
    readingBytes += size;
    let bytes: Bytes | undefined;
    try {
      const found = await getWhole(blobs, digest);
      bytes = found === "damaged" ? undefined : found;
      kept.set(digest, bytes);
      return bytes;
    } finally {
      if (bytes?.length !== size) {
        sizes.delete(digest); // it is not whole, and may be put again
      }
      readingBytes -= size;
      reading.delete(digest);
    }
  };

  return {
    size: async (digest) => {
      const known = sizes.get(digest);
      const size = await (known ?? ask(digest));
      // Of a large one the store is asked each time: nobody here finds out when it is not whole.
      return known === undefined || size === undefined || size <= hotBytesMax ? size : ask(digest);
    },
    slice: async (digest, start, end) => {
      let whole = kept.get(digest) ?? reading.get(digest);
      const size = whole === undefined && start < end ? await (sizes.get(digest) ?? ask(digest)) : undefined;
      if (size !== undefined && size <= hotBytesMax) {
        whole = kept.get(digest) ?? reading.get(digest); // others asked meanwhile
        if (whole === undefined && readingBytes + size <= keptBytesMax) {
          whole = read(digest, size);
          reading.set(digest, whole);
        }
      }
      // A copy, or who takes it slowly would keep all of the blob.
      return (await whole)?.slice(start, end) ?? blobs.slice(digest, start, end);
    },
  };
}
