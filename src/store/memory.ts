/**
 * The store for tests and simulations: everything in memory. What is stored lives on a `MemoryDisk`, so that a simulated
 * relay can be killed and started again on the same disk. Values are copied in and out: nothing that a caller does to its
 * bytes later changes what is stored. It is also the reference implementation: `contract.ts` says what the others must do,
 * this file says it in the fewest lines. No ambient API is used, so that the pure simulation can import it.
 */
import { HeddleError } from "../base/assert.ts";
import { digestOf, equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import {
  BLOB_STORED_BYTES_MAX,
  checkBlob,
  checkKey,
  checkPosition,
  checkValue,
  damagedBlob,
  type Blobs,
  type Keys,
  type Log,
  type Store,
} from "./store.ts";

/** What outlives a closed store. */
export interface MemoryDisk {
  readonly entries: Bytes[];
  readonly values: Map<string, Bytes>;
  readonly blobs: Map<Digest, Bytes>;
}

export interface MemoryStoreOptions {
  readonly disk?: MemoryDisk;
  readonly blobBytesMax?: number;
}

export function createMemoryDisk(): MemoryDisk {
  return { entries: [], values: new Map(), blobs: new Map() };
}

/** Opens a store on `disk` (a fresh one when absent). After `close` every call rejects with HeddleError "store". */
export function createMemoryStore({
  disk = createMemoryDisk(),
  blobBytesMax = BLOB_STORED_BYTES_MAX,
}: MemoryStoreOptions = {}): Store {
  let open = true;
  const checkOpen = (): void => {
    if (!open) {
      throw new HeddleError("store", "Cannot use the store: it is closed");
    }
  };
  return {
    log: memoryLog(disk, checkOpen),
    keys: memoryKeys(disk, checkOpen),
    blobs: memoryBlobs(disk, checkOpen, blobBytesMax),
    close: async () => {
      open = false;
    },
  };
}

function memoryLog({ entries }: MemoryDisk, checkOpen: () => void): Log {
  return {
    length: async () => {
      checkOpen();
      return entries.length;
    },
    append: async (after, added) => {
      checkOpen();
      checkPosition(after, "append to the log");
      added.forEach(checkValue);
      if (after !== entries.length) {
        return false;
      }
      for (const entry of added) {
        entries.push(new Uint8Array(entry));
      }
      return true;
    },
    read: async (from, count) => {
      checkOpen();
      checkPosition(from, "read the log");
      checkPosition(count, "read the log");
      return entries.slice(from, from + count).map((entry) => entry.slice());
    },
  };
}

function memoryKeys({ values }: MemoryDisk, checkOpen: () => void): Keys {
  return {
    get: async (key) => {
      checkOpen();
      checkKey(key);
      return values.get(key)?.slice();
    },
    set: async (key, value) => {
      checkOpen();
      checkKey(key);
      checkValue(value);
      values.set(key, new Uint8Array(value));
    },
    compareAndSet: async (key, expected, value) => {
      checkOpen();
      checkKey(key);
      checkValue(value);
      const present = values.get(key);
      const same =
        present === undefined || expected === undefined ? present === expected : equalBytes(present, expected);
      if (same) {
        values.set(key, new Uint8Array(value));
      }
      return same;
    },
    delete: async (key) => {
      checkOpen();
      checkKey(key);
      values.delete(key);
    },
    list: async (prefix) => {
      checkOpen();
      return [...values.keys()].filter((key) => key.startsWith(prefix)).sort();
    },
  };
}

function memoryBlobs({ blobs }: MemoryDisk, checkOpen: () => void, blobBytesMax: number): Blobs {
  return {
    put: async (bytes, known) => {
      checkOpen();
      checkBlob(bytes, blobBytesMax);
      const digest = known ?? digestOf(bytes);
      blobs.set(digest, new Uint8Array(bytes));
      return digest;
    },
    get: async (digest) => {
      checkOpen();
      const bytes = blobs.get(digest);
      if (bytes !== undefined && digestOf(bytes) !== digest) {
        throw damagedBlob(digest);
      }
      return bytes?.slice();
    },
    slice: async (digest, start, end) => {
      checkOpen();
      checkPosition(start, "read a slice");
      checkPosition(end, "read a slice");
      return blobs.get(digest)?.slice(start, end);
    },
    size: async (digest) => {
      checkOpen();
      return blobs.get(digest)?.length;
    },
    delete: async (digest) => {
      checkOpen();
      blobs.delete(digest);
    },
    list: async () => {
      checkOpen();
      return [...blobs.keys()].sort();
    },
  };
}
