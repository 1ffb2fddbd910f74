/**
 * What the relay and the client need to remember: an append-only log, small keys, content-addressed blobs. Nothing above
 * knows which implementation it has: memory (tests, simulation), embedded (SQLite and files), IndexedDB (browser), NATS
 * JetStream (several machines). One contract suite runs on all of them (`contract.ts`).
 */
import { assert, HeddleError } from "../base/assert.ts";
import { isDigest, type Bytes, type Digest } from "../base/bytes.ts";

/** One log entry or one key's value; what is larger belongs into a blob. */
export const VALUE_BYTES_MAX = 64 * 1_048_576;
export const KEY_CHARS_MAX = 300;
/** One blob. */
export const BLOB_STORED_BYTES_MAX = 1_073_741_824;

export interface Store {
  readonly log: Log;
  readonly keys: Keys;
  readonly blobs: Blobs;
  /**
   * Removes what writes that were cut off have left, where for `ageMs` nothing was added to it; resolves to how many those were. Absent
   * where opening the store does that.
   */
  sweep?(ageMs: number): Promise<number>;
  close(): Promise<void>;
}

/** Longer than any write that is under way says nothing, and than clocks differ. */
export const CUT_OFF_MS = 3_600_000;

export interface Log {
  length(): Promise<number>;
  /**
   * Appends all entries or none and resolves when they are durable. `after` is the length the caller believes the log has;
   * resolves to false, writing nothing, when it has another (a second writer, a repeated call).
   */
  append(after: number, entries: readonly Bytes[]): Promise<boolean>;
  /** Up to `count` entries from position `from`. */
  read(from: number, count: number): Promise<Bytes[]>;
}

export interface Keys {
  get(key: string): Promise<Bytes | undefined>;
  /** Durable when resolved. */
  set(key: string, value: Bytes): Promise<void>;
  /** Sets the value only when the present one equals `expected` (undefined: absent); resolves to whether it did. */
  compareAndSet(key: string, expected: Bytes | undefined, value: Bytes): Promise<boolean>;
  delete(key: string): Promise<void>;
  /** Keys that begin with `prefix`, sorted. */
  list(prefix: string): Promise<string[]>;
}

export interface Blobs {
  /** Stores the bytes under their SHA-256, which is `digest` where the caller has computed it; idempotent; durable when resolved. */
  put(bytes: Bytes, digest?: Digest): Promise<Digest>;
  /** The bytes, verified against the digest; undefined when absent; rejects with HeddleError "integrity" when damaged. */
  get(digest: Digest): Promise<Bytes | undefined>;
  /** Bytes start … end (exclusive) without a digest check; undefined when the blob is absent. */
  slice(digest: Digest, start: number, end: number): Promise<Bytes | undefined>;
  size(digest: Digest): Promise<number | undefined>;
  delete(digest: Digest): Promise<void>;
  list(): Promise<Digest[]>;
}

/** Entries read at a time by whoever reads them all. */
const PAGE_ENTRIES = 256;

/** Blobs that are deleted beside each other. */
const DELETED_AT_A_TIME = 128;

/** Deletes many: beside each other, because servers take their time for each, and a database one sync for all of a turn. */
export async function deleteBlobs(blobs: Pick<Blobs, "delete">, digests: readonly Digest[]): Promise<void> {
  for (let i = 0; i < digests.length; i += DELETED_AT_A_TIME) {
    await Promise.all(digests.slice(i, i + DELETED_AT_A_TIME).map((digest) => blobs.delete(digest)));
  }
}

/** The bytes; undefined when absent. */
export async function getWhole(blobs: Pick<Blobs, "get">, digest: Digest): Promise<Bytes | undefined | "damaged"> {
  try {
    return await blobs.get(digest);
  } catch (error) {
    if (error instanceof HeddleError && error.code === "integrity") {
      return "damaged";
    }
    throw error;
  }
}

/** The entries of a log from position `begin` on, as many as there are when it is begun. */
export async function* entriesOf(log: Log, begin = 0): AsyncGenerator<Bytes> {
  const length = await log.length();
  for (let from = begin; from < length; from += PAGE_ENTRIES) {
    yield* await log.read(from, Math.min(PAGE_ENTRIES, length - from));
  }
}

/** Throws HeddleError "limit" for a log entry or value larger than VALUE_BYTES_MAX. */
export function checkValue(value: Uint8Array): void {
  if (value.length > VALUE_BYTES_MAX) {
    throw new HeddleError("limit", `Cannot store a value: got ${value.length} bytes, at most ${VALUE_BYTES_MAX} fit`);
  }
}

/** Throws HeddleError "limit" for a key longer than KEY_CHARS_MAX, "bad-input" for an empty one. */
export function checkKey(key: string): void {
  if (key.length === 0) {
    throw new HeddleError("bad-input", "Cannot use a key: it is empty");
  }
  if (key.length > KEY_CHARS_MAX) {
    throw new HeddleError("limit", `Cannot use a key: got ${key.length} characters, at most ${KEY_CHARS_MAX} fit`);
  }
}

/** Throws HeddleError "limit" for a blob larger than `bytesMax`. */
export function checkBlob(bytes: Uint8Array, bytesMax: number): void {
  if (bytes.length > bytesMax) {
    throw new HeddleError("limit", `Cannot store a blob: got ${bytes.length} bytes, at most ${bytesMax} fit`);
  }
}

/** A digest becomes part of a path or a key: nothing else may get this far. Throws HeddleError "bad-input". */
export function checkDigest(digest: Digest): Digest {
  if (!isDigest(digest)) {
    throw new HeddleError("bad-input", "Cannot find a blob: its name is not 64 hexadecimal digits");
  }
  return digest;
}

/** What `get` rejects with. */
export function damagedBlob(digest: Digest): HeddleError {
  return new HeddleError("integrity", `Cannot read blob ${digest}: the stored bytes have another digest`);
}

/** Positions and counts are integers from 0; anything else is a bug of the caller. */
export function checkPosition(position: number, action: string): void {
  assert(
    Number.isSafeInteger(position) && position >= 0,
    `Cannot ${action}: got position ${position}, need an integer`,
  );
}
