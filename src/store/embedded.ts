/**
 * The store of a relay on one machine: SQLite (Node's own) for the log, the keys and small blobs, one file per larger blob. Durable
 * means durable against power loss: SQLite runs with a write-ahead log and synchronous=FULL, a file is written to a temporary one,
 * synced, renamed to `blobs/ab/<digest>` and its folder synced. A second process is kept out (`locked.ts`).
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import { setImmediate, setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { HeddleError, messageIn } from "../base/assert.ts";
import { equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { fileBlobs, type FileBlobs } from "./blob-files.ts";
import { rowBlobs } from "./blob-rows.ts";
import { embeddedBlobs } from "./embedded-blobs.ts";
import { Gate } from "./gate.ts";
import { DATABASE, openLocked, transact } from "./locked.ts";
import {
  BLOB_STORED_BYTES_MAX,
  checkKey,
  checkPosition,
  checkValue,
  getWhole,
  type Blobs,
  type Keys,
  type Log,
  type Store,
} from "./store.ts";

export interface EmbeddedOptions {
  readonly blobBytesMax?: number;
}

export interface EmbeddedStore extends Store {
  /**
   * Copies the store as it is at one moment into the folder `to`, which must not exist yet, while reads and writes go on: a
   * folder that can be opened like this one. Every blob is checked on the way; what is `damaged` may be in the copy as it is, or
   * missing there. Rejects with HeddleError "store" when something cannot be read or written or the store is closed meanwhile.
   */
  backup(to: string): Promise<StoreCopy>;
}

export interface StoreCopy {
  /** Whole ones. */
  readonly blobs: number;
  readonly bytes: number;
  readonly damaged: readonly Digest[];
}

/**
 * Opens the store in folder `dir`, which is made when absent. Throws HeddleError "store" when another process has it open or
 * the folder cannot be written.
 */
export async function openEmbeddedStore(
  dir: string,
  { blobBytesMax = BLOB_STORED_BYTES_MAX }: EmbeddedOptions = {},
): Promise<EmbeddedStore> {
  const { store, parts } = storeOf(openDatabase(dir), dir, blobBytesMax);
  try {
    await parts.files.prepare();
  } catch (error) {
    await store.close();
    throw error;
  }
  return { ...store, backup: (to) => copyStore(parts, to) };
}

/**
 * Opens the copy that `backup` made in `dir`, to be read only: nothing is written there, also when the process is killed, and
 * nobody else may write there meanwhile. Calls that would write reject. Throws HeddleError "store" when it cannot be read.
 */
export async function openEmbeddedCopy(dir: string): Promise<Store> {
  const url = pathToFileURL(join(dir, DATABASE));
  url.searchParams.set("immutable", "1"); // else SQLite makes files of its own beside it
  const failure = (action: string, why: string, cause?: unknown): HeddleError =>
    new HeddleError("store", `Cannot ${action} the copy in "${dir}": ${why}`, { cause });
  let database: DatabaseSync | null = null;
  try {
    database = new DatabaseSync(url, { readOnly: true });
    const { store } = storeOf(database, dir, BLOB_STORED_BYTES_MAX);
    // SQLite refuses the rest; blobs may be files.
    const refuse = (): Promise<never> => Promise.reject(failure("write to", "it is only read"));
    return { ...store, blobs: { ...store.blobs, put: refuse, delete: refuse } };
  } catch (error) {
    database?.close();
    throw failure("open", messageIn(error), error);
  }
}

/** The store in a database that has its tables, and the blobs beside it. */
function storeOf(
  database: DatabaseSync,
  dir: string,
  blobBytesMax: number,
): { readonly store: Store; readonly parts: OpenParts } {
  const gate = new Gate(() => database.close());
  const sql: Sql = (action, work) => gate.run(action, async () => work(database));
  const rows = rowBlobs(database, gate);
  const files = fileBlobs({ dir: join(dir, "blobs"), blobBytesMax, gate: (action, work) => gate.run(action, work) });
  const blobs = embeddedBlobs(rows, files, blobBytesMax);
  return {
    store: { log: sqliteLog(database, sql), keys: sqliteKeys(sql), blobs, close: () => gate.close() },
    parts: { database, gate, rows, files, hold: () => blobs.hold(), blobBytesMax },
  };
}

const COPY_TRIES = 40;
const COPY_AGAIN_MS = 25;
/** Rows that a backup reads and checks in one turn of the event loop. */
const ROWS_AT_A_TIME = 32;

interface OpenParts {
  readonly database: DatabaseSync;
  readonly gate: Gate;
  readonly rows: Blobs;
  readonly files: FileBlobs;
  readonly hold: () => () => Promise<void>;
  readonly blobBytesMax: number;
}

/** The database first, with the blobs in it: the files that it knows are there already, and stay until all are copied. */
async function copyStore(
  { database, gate, rows, files, hold, blobBytesMax }: OpenParts,
  to: string,
): Promise<StoreCopy> {
  const release = hold();
  try {
    const small = await rows.list();
    await gate.run("make the copy's folder", () => mkdir(to));
    // SQLite copies a few pages at a time; what is written meanwhile is in the copy, too.
    await gate.run("copy the database", () => copyDatabase(database, join(to, DATABASE)));
    const copy = fileBlobs({
      dir: join(to, "blobs"),
      blobBytesMax,
      gate: (action, work) => gate.run(`${action} of the copy`, work),
    });
    await copy.prepare();
    let [copied, bytes] = [0, 0];
    const damaged: Digest[] = [];
    // What is not there any more was being deleted when this began, so nothing knows it.
    const wholeOf = async (digest: Digest, blobs: Blobs): Promise<Bytes | undefined> => {
      const blob = await getWhole(blobs, digest);
      if (blob === "damaged") {
        damaged.push(digest);
        return undefined;
      }
      copied += blob === undefined ? 0 : 1;
      bytes += blob?.length ?? 0;
      return blob;
    };
    for (const [i, digest] of small.entries()) {
      await wholeOf(digest, rows);
      if (i % ROWS_AT_A_TIME === 0) {
        await setImmediate();
      }
    }
    for (const digest of await files.list()) {
      const blob = await wholeOf(digest, files);
      await (blob === undefined ? undefined : copy.put(blob, digest));
    }
    return { blobs: copied, bytes, damaged };
  } finally {
    await release();
  }
}

/** The copy gives up when its first step falls between the beginning and the end of a transaction. */
async function copyDatabase(database: DatabaseSync, to: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await backup(database, to);
      return;
    } catch (error) {
      if (tries === COPY_TRIES) {
        throw error;
      }
      await rm(to, { force: true });
      await setTimeout(COPY_AGAIN_MS);
    }
  }
}

/** The database with its tables, locked. */
function openDatabase(dir: string): DatabaseSync {
  const database = openLocked(dir, "open the store");
  try {
    transact(database, () => {
      database.exec("CREATE TABLE IF NOT EXISTS log (position INTEGER PRIMARY KEY, entry BLOB NOT NULL)");
      database.exec("CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, value BLOB NOT NULL)");
      database.exec("CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL)");
    });
    return database;
  } catch (error) {
    database.close();
    throw new HeddleError("store", `Cannot open the store in "${dir}": ${String(error)}`, { cause: error });
  }
}

/** Runs `work` on the database now. SQLite is synchronous, so nothing runs between its statements. */
type Sql = <T>(action: string, work: (database: DatabaseSync) => T) => Promise<T>;

function sqliteLog(database: DatabaseSync, sql: Sql): Log {
  const measure = database.prepare("SELECT coalesce(max(position) + 1, 0) AS length FROM log");
  const insert = database.prepare("INSERT INTO log VALUES (?, ?)");
  const select = database.prepare("SELECT entry FROM log WHERE position >= ? ORDER BY position LIMIT ?");
  const lengthOf = (): number => Number(measure.get()?.["length"]);
  return {
    length: () => sql("read the log", lengthOf),
    append: (after, entries) =>
      sql("append to the log", () => {
        checkPosition(after, "append to the log");
        entries.forEach(checkValue);
        if (after !== lengthOf()) {
          return false;
        }
        transact(database, () => entries.forEach((entry, i) => insert.run(after + i, entry)));
        return true;
      }),
    read: (from, count) =>
      sql("read the log", () => {
        checkPosition(from, "read the log");
        checkPosition(count, "read the log");
        return select.all(from, count).map((row) => row["entry"] as Bytes);
      }),
  };
}

function sqliteKeys(sql: Sql): Keys {
  const read = (database: DatabaseSync, key: string): Bytes | undefined =>
    database.prepare("SELECT value FROM keys WHERE key = ?").get(key)?.["value"] as Bytes | undefined;
  const write = (database: DatabaseSync, key: string, value: Bytes): void => {
    checkKey(key);
    checkValue(value);
    database.prepare("INSERT OR REPLACE INTO keys VALUES (?, ?)").run(key, value);
  };
  return {
    get: (key) =>
      sql("read a key", (database) => {
        checkKey(key);
        return read(database, key);
      }),
    set: (key, value) => sql("set a key", (database) => write(database, key, value)),
    compareAndSet: (key, expected, value) =>
      sql("set a key", (database) => {
        checkKey(key);
        checkValue(value);
        const present = read(database, key);
        const same =
          present === undefined || expected === undefined ? present === expected : equalBytes(present, expected);
        if (same) {
          write(database, key, value);
        }
        return same;
      }),
    delete: (key) =>
      sql("delete a key", (database) => {
        checkKey(key);
        database.prepare("DELETE FROM keys WHERE key = ?").run(key);
      }),
    list: (prefix) =>
      sql("list keys", (database) => {
        const rows = database.prepare("SELECT key FROM keys WHERE key >= ?").all(prefix);
        const keys = rows.map((row) => row["key"] as string);
        return keys.filter((key) => key.startsWith(prefix)).sort();
      }),
  };
}
