/**
 * A SQLite database (Node's own) that one process at a time has open. SQLite's exclusive lock keeps a second process out; the
 * kernel drops it when the process ends, however it ends, so nothing stale can be left behind.
 */
import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { HeddleError } from "../base/assert.ts";

const SQLITE_BUSY = 5;
/** The file's name in its folder. */
export const DATABASE = "heddle.sqlite";
/** Beside it, the process that has or had it open. */
export const PROCESS_FILE = "process";

/**
 * Opens `heddle.sqlite` in folder `dir`, which is made when absent, and keeps everyone else out until the database is closed or
 * the process ends. `action` begins the sentence of a failure: HeddleError "store" when it is open already, which names the
 * process that has it, or when the folder cannot be used.
 */
export function openLocked(dir: string, action: string): DatabaseSync {
  try {
    // What is kept here may be computed from private texts: nobody else on the machine is to read it.
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    accessSync(dir, constants.W_OK);
  } catch (error) {
    throw new HeddleError("store", `Cannot ${action}: folder "${dir}" cannot be made or written`, { cause: error });
  }
  const pidPath = join(dir, PROCESS_FILE);
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(join(dir, DATABASE));
    database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    database.exec("BEGIN IMMEDIATE; COMMIT");
    writeFileSync(pidPath, `${process.pid}\n`);
    return database;
  } catch (error) {
    database?.close();
    const sentence = isBusy(error)
      ? `Cannot ${action}: "${dir}" is in use by process ${readPid(pidPath)}`
      : `Cannot ${action} in "${dir}": ${String(error)}`;
    throw new HeddleError("store", sentence, { cause: error });
  }
}

/** What `work` writes, all or nothing; durable when this returns. */
export function transact(database: DatabaseSync, work: () => void): void {
  database.exec("BEGIN IMMEDIATE");
  try {
    work();
    database.exec("COMMIT");
  } catch (error) {
    if (database.isTransaction) {
      database.exec("ROLLBACK");
    }
    throw error;
  }
}

/** Node gives SQLite's code, Deno only its words. */
export function isBusy(error: unknown): boolean {
  const code = error instanceof Error && "errcode" in error ? Number(error.errcode) & 0xff : undefined;
  return code === SQLITE_BUSY || /database is locked/.test(String(error));
}

/** The process that holds the lock wrote its id just after taking it. */
function readPid(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "(not known yet)"; // between taking the lock and writing the id
  }
}
