/**
 * What the relay and the client need to remember: an append-only log, small keys, content-addressed blobs. Nothing above
 * knows which implementation it has: memory (tests, simulation), embedded (SQLite and files), IndexedDB (browser). One
 * contract suite runs on all of them (`contract.ts`).
 */
import type { Bytes, Digest } from "../base/bytes.ts";

export interface Store {
  readonly log: Log;
  readonly keys: Keys;
  readonly blobs: Blobs;
  close(): Promise<void>;
}

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
  /** Stores the bytes under their SHA-256; idempotent; durable when resolved. */
  put(bytes: Bytes): Promise<Digest>;
  /** The bytes, verified against the digest; undefined when absent; rejects with HeddleError "integrity" when damaged. */
  get(digest: Digest): Promise<Bytes | undefined>;
  /** Bytes start … end (exclusive) without a digest check; undefined when the blob is absent. */
  slice(digest: Digest, start: number, end: number): Promise<Bytes | undefined>;
  size(digest: Digest): Promise<number | undefined>;
  delete(digest: Digest): Promise<void>;
  list(): Promise<Digest[]>;
}
