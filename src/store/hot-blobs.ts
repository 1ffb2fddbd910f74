/**
 * A relay's blobs, of which it keeps the small ones that it has put or read in memory a while: those of the newest version are wanted by
 * everybody within seconds, and an update is read to be checked, to be merged and by those who check it. A digest never stands for
 * other bytes, so what is kept is right, also where the store has lost it or somebody else deletes it: who serves it asks first whether it
 * may be read.
 */
import { LRUCache } from "lru-cache";
import type { Bytes, Digest } from "../base/bytes.ts";
import { hashBytes } from "./hash.ts";
import { getWhole, type Blobs } from "./store.ts";

/** Of all blobs that are kept; as much again may be under way from the store. */
const KEPT_BYTES_MAX = 67_108_864;
/** Larger ones are read slice by slice, as they are sent. */
const HOT_BYTES_MAX = 4_194_304;
const SIZES_MAX = 4_096;
/** What is asked for of one whose size is not known: most blobs are shorter, and then one question does for size and bytes. */
const FIRST_BYTES = 65_536;

export interface HotBlobsOptions {
  readonly keptBytesMax?: number;
  readonly hotBytesMax?: number;
}

/** `blobs`, read less often. One that is damaged is not kept, and sliced as it is: whoever asks for a digest checks it. */
export function createHotBlobs(
  blobs: Blobs,
  { keptBytesMax = KEPT_BYTES_MAX, hotBytesMax = HOT_BYTES_MAX }: HotBlobsOptions = {},
): Blobs {
  const sizes = new LRUCache<Digest, Promise<number | undefined>>({ max: SIZES_MAX });
  const kept = new LRUCache<Digest, Bytes>({ maxSize: keptBytesMax, sizeCalculation: ({ length }) => length || 1 });
  const reading = new Map<Digest, Promise<Bytes | undefined>>();
  const firstBytes = Math.min(FIRST_BYTES, hotBytesMax);
  let readingBytes = 0;

  const keep = (digest: Digest, bytes: Bytes): void => {
    if (bytes.length <= hotBytesMax) {
      kept.set(digest, bytes.slice()); // what is done to those does not change these
    }
  };
  const begin = async (digest: Digest): Promise<number | undefined> => {
    const first = await blobs.slice(digest, 0, firstBytes);
    if (first?.length === firstBytes) {
      return blobs.size(digest); // there may be more
    }
    if (first !== undefined && (await hashBytes(first)) === digest) {
      keep(digest, first);
    } else {
      sizes.delete(digest); // it is not there or not whole, and may be put again
    }
    return first?.length;
  };
  const ask = (digest: Digest, asking: Promise<number | undefined>): Promise<number | undefined> => {
    sizes.set(digest, asking);
    asking.then(
      (size) => size === undefined && sizes.delete(digest),
      () => sizes.delete(digest),
    );
    return asking;
  };
  const sizeOf = (digest: Digest): Promise<number | undefined> => sizes.get(digest) ?? ask(digest, begin(digest));
  const read = async (digest: Digest, size: number): Promise<Bytes | undefined> => {
    readingBytes += size;
    let bytes: Bytes | undefined;
    try {
      const found = await getWhole(blobs, digest);
      bytes = found === "damaged" ? undefined : found;
      if (bytes !== undefined) {
        keep(digest, bytes);
      }
      return bytes;
    } finally {
      if (bytes?.length !== size) {
        sizes.delete(digest); // it was not whole, and may be put again
      }
      readingBytes -= size;
      reading.delete(digest);
    }
  };

  return {
    put: async (bytes, known) => {
      const digest = await blobs.put(bytes, known);
      keep(digest, bytes);
      return digest;
    },
    get: async (digest) => {
      const known = kept.get(digest);
      if (known !== undefined) {
        return known.slice();
      }
      const bytes = await blobs.get(digest);
      if (bytes !== undefined) {
        keep(digest, bytes);
      }
      return bytes;
    },
    size: async (digest) => {
      const known = kept.get(digest)?.length ?? (await sizes.get(digest));
      // Of a large one the store is asked each time: nobody here finds out when it is not whole.
      return known !== undefined && known > hotBytesMax ? ask(digest, blobs.size(digest)) : (known ?? sizeOf(digest));
    },
    slice: async (digest, start, end) => {
      const size = start < end && !kept.has(digest) && !reading.has(digest) ? await sizeOf(digest) : undefined;
      let whole = kept.get(digest) ?? reading.get(digest);
      if (whole === undefined && size !== undefined && size <= hotBytesMax && readingBytes + size <= keptBytesMax) {
        whole = read(digest, size);
        reading.set(digest, whole);
      }
      // A copy, or who takes it slowly would keep all of the blob.
      return (await whole)?.slice(start, end) ?? blobs.slice(digest, start, end);
    },
    delete: async (digest) => {
      await blobs.delete(digest);
      kept.delete(digest); // only now: it may have been read meanwhile
      sizes.delete(digest);
    },
    list: () => blobs.list(),
  };
}
