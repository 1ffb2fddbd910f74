/**
 * The store of a browser: three IndexedDB databases by `idb-keyval` custom stores, named `<name>-log`, `-keys` and `-blobs`.
 * Every call is one transaction, so tabs that share a name cannot tear each other's writes; `Log.append` and
 * `Keys.compareAndSet` tell the loser. Durable here means what browsers give: an acknowledged write survives the end of the
 * tab or browser, not always a power cut, and the browser may evict everything unless the site was granted persistence.
 */
import { createStore, del, get, keys as allKeys, promisifyRequest, set, type UseStore } from "idb-keyval";
import { AssertionError, HeddleError } from "../base/assert.ts";
import { equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { hashBytes } from "./hash.ts";
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

export interface IndexedDbOptions {
  readonly blobBytesMax?: number;
}

/** Opens the databases, which are made when absent. Throws HeddleError "store" where the browser does not allow it. */
export async function openIndexedDbStore(
  name: string,
  { blobBytesMax = BLOB_STORED_BYTES_MAX }: IndexedDbOptions = {},
): Promise<Store> {
  if (globalThis.indexedDB === undefined) {
    throw new HeddleError("store", "Cannot open the store: this browser has no IndexedDB");
  }
  const log = createStore(`${name}-log`, "log");
  const keys = createStore(`${name}-keys`, "keys");
  const blobs = createStore(`${name}-blobs`, "blobs");
  let open = true;
  const gate: Gate = async (action, work) => {
    if (!open) {
      throw new HeddleError("store", `Cannot ${action}: the store is closed`);
    }
    try {
      return await work();
    } catch (error) {
      throw error instanceof HeddleError || error instanceof AssertionError
        ? error
        : new HeddleError("store", `Cannot ${action}: ${String(error)}`, { cause: error });
    }
  };
  await gate("open the store", () => Promise.all([log, keys, blobs].map((store) => store("readonly", () => null))));
  return {
    log: indexedLog(log, gate),
    keys: indexedKeys(keys, gate),
    blobs: indexedBlobs(blobs, gate, blobBytesMax),
    close: async () => {
      if (open) {
        open = false;
        await Promise.all([log, keys, blobs].map((store) => store("readonly", closeDatabase)));
      }
    },
  };
}

type Gate = <T>(action: string, work: () => Promise<T>) => Promise<T>;

function closeDatabase(store: IDBObjectStore): void {
  store.transaction.db.close();
}

/** Positions are the keys, so the length is the last key plus one. */
async function lengthOf(store: IDBObjectStore): Promise<number> {
  const cursor = await promisifyRequest<IDBCursor | null>(store.openKeyCursor(null, "prev"));
  return cursor === null ? 0 : Number(cursor.key) + 1;
}

function indexedLog(log: UseStore, gate: Gate): Log {
  return {
    length: () => gate("read the log", () => log("readonly", lengthOf)),
    append: (after, entries) =>
      gate("append to the log", () =>
        log("readwrite", async (store) => {
          checkPosition(after, "append to the log");
          entries.forEach(checkValue);
          const done = promisifyRequest(store.transaction);
          if ((await lengthOf(store)) !== after) {
            return false;
          }
          entries.forEach((entry, i) => store.add(entry, after + i));
          await done;
          return true;
        }),
      ),
    read: (from, count) =>
      gate("read the log", () =>
        log("readonly", async (store) => {
          checkPosition(from, "read the log");
          checkPosition(count, "read the log");
          if (count === 0) {
            return []; // IndexedDB takes 0 for "all"
          }
          return promisifyRequest<Bytes[]>(store.getAll(IDBKeyRange.lowerBound(from), count));
        }),
      ),
  };
}

function indexedKeys(keys: UseStore, gate: Gate): Keys {
  return {
    get: (key) =>
      gate("read a key", async () => {
        checkKey(key);
        return get<Bytes>(key, keys);
      }),
    set: (key, value) =>
      gate("set a key", async () => {
        checkKey(key);
        checkValue(value);
        await set(key, value, keys);
      }),
    compareAndSet: (key, expected, value) =>
      gate("set a key", () =>
        keys("readwrite", async (store) => {
          checkKey(key);
          checkValue(value);
          const done = promisifyRequest(store.transaction);
          const present = await promisifyRequest<Bytes | undefined>(store.get(key));
          const same =
            present === undefined || expected === undefined ? present === expected : equalBytes(present, expected);
          if (same) {
            store.put(value, key);
            await done;
          }
          return same;
        }),
      ),
    delete: (key) =>
      gate("delete a key", async () => {
        checkKey(key);
        await del(key, keys);
      }),
    list: (prefix) =>
      gate("list keys", async () => (await allKeys<string>(keys)).filter((key) => key.startsWith(prefix)).sort()),
  };
}

/** Blobs are stored as `Blob`, which browsers keep in files: a slice or a size does not read the rest. */
function indexedBlobs(blobs: UseStore, gate: Gate, blobBytesMax: number): Blobs {
  const find = (digest: Digest): Promise<Blob | undefined> => get<Blob>(digest, blobs);
  const bytesOf = async (blob: Blob): Promise<Bytes> => new Uint8Array(await blob.arrayBuffer());
  return {
    put: (bytes, known) =>
      gate("store a blob", async () => {
        checkBlob(bytes, blobBytesMax);
        const digest = known ?? (await hashBytes(bytes));
        await set(digest, new Blob([bytes]), blobs);
        return digest;
      }),
    get: (digest) =>
      gate("read a blob", async () => {
        const blob = await find(digest);
        const bytes = blob === undefined ? undefined : await bytesOf(blob);
        if (bytes !== undefined && (await hashBytes(bytes)) !== digest) {
          throw damagedBlob(digest);
        }
        return bytes;
      }),
    slice: (digest, start, end) =>
      gate("read a blob", async () => {
        checkPosition(start, "read a slice");
        checkPosition(end, "read a slice");
        const blob = await find(digest);
        return blob === undefined ? undefined : bytesOf(blob.slice(start, end));
      }),
    size: (digest) => gate("read a blob", async () => (await find(digest))?.size),
    delete: (digest) => gate("delete a blob", () => del(digest, blobs)),
    list: () => gate("list blobs", async () => (await allKeys<Digest>(blobs)).sort()),
  };
}
