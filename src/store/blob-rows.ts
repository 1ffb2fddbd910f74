/**
 * Small blobs as rows of the store's database. A file takes a dozen calls of the system and two syncs of the disk; all rows that are
 * written or deleted in one turn of the event loop are one transaction with one sync. SQLite's own measurements have rows ahead of
 * files up to about 100 kB (sqlite.org/intern-v-extern-blob.html).
 */
import type { DatabaseSync } from "node:sqlite";
import type { Bytes, Digest } from "../base/bytes.ts";
import type { Gate } from "./gate.ts";
import { hashBytes } from "./hash.ts";
import { transact } from "./locked.ts";
import { checkPosition, damagedBlob, type Blobs } from "./store.ts";

/** Writes of one transaction, and their bytes: the event loop waits for it. */
const WRITES_MAX = 1_024;
const WRITTEN_BYTES_MAX = 8 * 1_048_576;

interface Write {
  readonly bytes: number;
  readonly run: () => unknown;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

/** The blobs in the table `blobs`. `gate` lets calls through while the store is open. */
export function rowBlobs(database: DatabaseSync, gate: Gate): Blobs {
  const insert = database.prepare("INSERT OR REPLACE INTO blobs VALUES (?, ?)");
  const remove = database.prepare("DELETE FROM blobs WHERE digest = ?");
  const select = database.prepare("SELECT bytes FROM blobs WHERE digest = ?");
  const measure = database.prepare("SELECT length(bytes) AS bytes FROM blobs WHERE digest = ?");
  const names = database.prepare("SELECT digest FROM blobs ORDER BY digest");
  const read = <T>(work: () => T): Promise<T> => gate.run("read a blob", async () => work());
  const bytesOf = (digest: Digest): Bytes | undefined => select.get(digest)?.["bytes"] as Bytes | undefined;

  const waiting: Write[] = [];
  const commit = (): void => {
    let bytes = 0;
    const end = waiting.findIndex((write, i) => {
      bytes += write.bytes;
      return i === WRITES_MAX || (i > 0 && bytes > WRITTEN_BYTES_MAX);
    });
    const writes = waiting.splice(0, end === -1 ? waiting.length : end);
    if (waiting.length > 0) {
      setImmediate(commit);
    }
    try {
      transact(database, () => writes.forEach(({ run }) => run()));
    } catch (error) {
      writes.forEach(({ failed }) => failed(error));
      return;
    }
    writes.forEach(({ done }) => done());
  };
  /** Resolves when `run` is durable, together with all that is written in this turn. */
  const write = (bytes: number, run: () => unknown): Promise<void> =>
    new Promise((done, failed) => {
      waiting.push({ bytes, run, done, failed });
      if (waiting.length === 1) {
        setImmediate(commit);
      }
    });

  return {
    put: (bytes, known) =>
      gate.run("store a blob", async () => {
        const digest = known ?? (await hashBytes(bytes));
        await write(bytes.length, () => insert.run(digest, bytes)); // replaces what is there, damaged or not
        return digest;
      }),
    get: (digest) =>
      gate.run("read a blob", async () => {
        const bytes = bytesOf(digest);
        if (bytes !== undefined && (await hashBytes(bytes)) !== digest) {
          throw damagedBlob(digest);
        }
        return bytes;
      }),
    slice: (digest, start, end) =>
      read(() => {
        checkPosition(start, "read a slice");
        checkPosition(end, "read a slice");
        return bytesOf(digest)?.subarray(start, end);
      }),
    size: (digest) => read(() => measure.get(digest)?.["bytes"] as number | undefined),
    delete: (digest) => gate.run("delete a blob", () => write(0, () => remove.run(digest))),
    list: () => gate.run("list blobs", async () => names.all().map((row) => row["digest"] as Digest)),
  };
}
