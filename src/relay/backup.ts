/**
 * Backups of a relay's run and their way back: ledger, keys and blobs, and the relay's own key, without which nobody can go on
 * with the ledger. A backup is a folder that a relay could serve as it is, wherever the run was kept: so it is the way from a
 * folder to NATS and back. It is made inside of `.partial` in that folder, which may be a mounted one, and its database takes its
 * place last: what has none is no backup. NATS has nothing like that; there no relay gets the lease until all is in its place.
 */
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  writeFile,
} from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { HeddleError, messageIn } from "../base/assert.ts";
import { digestOf, equalBytes, type Digest } from "../base/bytes.ts";
import { checkLedger, type CheckedLedger } from "../coordinator/check.ts";
import { CHECKPOINTS_KEPT, type DurableState } from "../coordinator/state.ts";
import { verifySignature } from "../net/device-key.ts";
import { loadDeviceKey } from "../net/device-key-node.ts";
import { openEmbeddedCopy, openEmbeddedStore } from "../store/embedded.ts";
import { closeLease, lookAtLease, openLease } from "../store/lease.ts";
import { DATABASE, isBusy, PROCESS_FILE } from "../store/locked.ts";
import { deleteBlobs, entriesOf, getWhole, type Store } from "../store/store.ts";
import { copyRun, type CopiedRun } from "./copy.ts";
import { KEY_FILE, LEADER_KEY, type PlacedStore } from "./place.ts";
import { reachableBlobs } from "./prune.ts";
import { readCharter } from "./run.ts";

const PARTIAL = ".partial";
/** A database that nothing is written to: whoever fills the folder has SQLite's lock on it, which ends with its process. */
const LOCK = ".lock";
/** What a folder may hold and be empty: what an attempt that was killed has left, and what file systems put there. */
const OF_NOBODY = [PARTIAL, LOCK, "lost+found"];
/** What an attempt that was killed at its end has moved up already: its database, which is moved last, is still in `.partial`. */
const MOVED_FIRST = ["blobs", KEY_FILE];

export interface BackupReport {
  readonly to: string;
  readonly blobs: number;
  readonly bytes: number;
  /** Blobs of older versions that are not whole, and were left out. */
  readonly damaged: number;
}

/**
 * Backs `store` up into the folder `to`, which must be absent or empty, while the run goes on. `dir` is the relay's folder, in
 * which an embedded store lies. Throws HeddleError.
 */
export async function backUp(store: PlacedStore, dir: string, to: string): Promise<BackupReport> {
  const { backup } = store;
  if (backup === undefined) {
    return fillPlace({ from: null, to, action: "back up" }, async (partial) => ({
      to: resolve(to),
      ...(await copyInto(partial, store)),
    }));
  }
  return fillPlace({ from: dir, to, action: "back up" }, async (partial) => {
    const { damaged, ...copied } = await backup(partial);
    await files("back up", async () => {
      await copyFile(join(dir, KEY_FILE), join(partial, KEY_FILE));
      await chmod(join(partial, KEY_FILE), 0o600);
    });
    if (damaged.length > 0) {
      await settle(partial, { action: "back up", damaged });
    }
    return { to: resolve(to), ...copied, damaged: damaged.length };
  });
}

/** Makes the folder `partial` from a store that has the relay's key in it, and all of the run. */
async function copyInto(partial: string, from: Store): Promise<Omit<CopiedRun, "durable">> {
  const lease = await lookAtLease(from.keys, LEADER_KEY);
  if (lease.type === "closed") {
    throw new HeddleError("store", `Cannot back up: ${lease.why}`);
  }
  await readCharter(from); // where no run has begun, there is no key either
  const pkcs8 = await from.keys.get(KEY_FILE);
  if (pkcs8 === undefined) {
    throw new HeddleError("integrity", "Cannot back up: the store has lost the relay's key, which signs the ledger");
  }
  const copy = await openEmbeddedStore(partial);
  try {
    await files("back up", () => writeFile(join(partial, KEY_FILE), pkcs8, { mode: 0o600 }));
    const key = await loadDeviceKey(join(partial, KEY_FILE));
    const { durable, ...copied } = await copyRun(from, copy);
    if (!equalBytes(key.publicKey, durable.relay)) {
      throw new HeddleError("integrity", "Cannot back up: the store's key is not the one that signed its ledger");
    }
    return copied;
  } finally {
    await copy.close();
    await files("back up", () => rm(join(partial, PROCESS_FILE), { force: true }));
  }
}

export interface RestoreReport {
  readonly ledger: CheckedLedger;
  /** Whole ones that the run knows. */
  readonly blobs: number;
  /** Blobs of older versions that are not whole, and were left out. */
  readonly damaged: number;
  /** It was there already, by an earlier call. */
  readonly already: boolean;
}

/**
 * Makes the folder `to`, absent or empty, from the backup in `from`, after the ledger, its key and every blob that the run
 * needs have been checked. Throws HeddleError "integrity" when something is damaged or missing.
 */
export async function restore(from: string, to: string): Promise<RestoreReport> {
  await checkBackup(from);
  return fillPlace({ from, to, action: "restore" }, async (partial) => {
    await files("restore", async () => {
      await mkdir(partial, { mode: 0o700 });
      for (const name of [DATABASE, KEY_FILE]) {
        await copyFile(join(from, name), join(partial, name));
      }
      await chmod(join(partial, KEY_FILE), 0o600);
      await cp(join(from, "blobs"), join(partial, "blobs"), { recursive: true });
    });
    const { ledger, blobs, damaged } = await settle(partial, { action: "restore", damaged: [] });
    return { ledger, blobs, damaged: damaged.length, already: false };
  });
}

export interface RestoreTarget {
  /** Opened once the backup was found to be whole. */
  readonly open: () => Promise<Store>;
  /** Names it to people. */
  readonly shown: string;
}

/**
 * Fills a store that several relays can share, and which must be empty, from the backup in `from`, checked as by `restore`. No
 * relay gets the lease there before all is in its place: where this was interrupted, it is called with the same backup again, and
 * goes on. Throws HeddleError "bad-input" when there is something else in the store, or a relay.
 */
export async function restoreInto(from: string, { open: openTarget, shown }: RestoreTarget): Promise<RestoreReport> {
  await checkBackup(from);
  const copy = await openEmbeddedCopy(from);
  try {
    const { ledger, blobs, damaged } = await checkCopy(copy, { dir: from, action: "restore" });
    const report = { ledger, blobs, damaged: damaged.length };
    const { digest: filledTo, durable } = ledger;
    const key = await files("restore", () => readFile(join(from, KEY_FILE)));
    const target = await openTarget();
    try {
      if (!(await reserve(target, { shown, filledTo }))) {
        await checkBlobs(target, { durable, action: "restore" }); // which may have been lost since
        return { ...report, already: true };
      }
      await target.keys.set(KEY_FILE, new Uint8Array(key));
      await copyRun(copy, target);
      if (!(await openLease(target.keys, LEADER_KEY, { filledTo, epoch: durable.epoch }))) {
        throw new HeddleError("store", `Cannot restore: somebody else has restored into "${shown}" meanwhile`);
      }
      return { ...report, already: false };
    } finally {
      await target.close();
    }
  } finally {
    await copy.close();
  }
}

/**
 * Keeps relays out of an empty store, or of one that was reserved for a ledger with the same end before. Resolves to false where that
 * ledger is there, and no relay has been.
 */
async function reserve(store: Store, { shown, filledTo }: { shown: string; filledTo: Digest }): Promise<boolean> {
  const refusal = (reason: string): HeddleError =>
    new HeddleError("bad-input", `Cannot restore: ${reason}; name another store at the end of the address`);
  const lease = await lookAtLease(store.keys, LEADER_KEY);
  const entries = await store.log.length();
  if (lease.type === "closed") {
    if (lease.filledTo !== filledTo) {
      throw refusal(`"${shown}" is for another backup (${lease.why})`);
    }
    return true;
  }
  if (lease.type === "released") {
    const [last] = await store.log.read(Math.max(0, entries - 1), 1);
    if (last !== undefined && digestOf(last) === filledTo) {
      return false;
    }
  }
  if (lease.type !== "new") {
    const who = lease.type === "held" ? `: ${lease.holder}, which runs or was killed` : ", which has ended";
    throw refusal(`"${shown}" is a relay's${who}`);
  }
  const [keys, blobs] = [await store.keys.list(""), await store.blobs.list()];
  if (entries + keys.length + blobs.length > 0) {
    const found = `${entries} ledger entries, ${keys.length} keys and ${blobs.length} blobs`;
    throw refusal(`"${shown}" is not empty, it holds ${found}`);
  }
  if (!(await closeLease(store.keys, LEADER_KEY, filledTo))) {
    throw refusal(`a relay or another restore has begun in "${shown}" meanwhile`);
  }
  return true;
}

/** Throws HeddleError "bad-input" when `from` is no backup. */
async function checkBackup(from: string): Promise<void> {
  const names: readonly string[] = await readdir(from).catch(() => []);
  if (!names.includes(DATABASE) || !names.includes(KEY_FILE)) {
    throw new HeddleError("bad-input", `Cannot restore: there is no backup in "${from}"`);
  }
  if (names.includes(`${DATABASE}-wal`)) {
    const sentence = `Cannot restore: "${from}" is a relay's own folder; start a relay with it, or back it up first`;
    throw new HeddleError("bad-input", sentence);
  }
}

interface Checked {
  readonly ledger: CheckedLedger;
  /** Whole ones that the run knows. */
  readonly blobs: number;
  /** Of older versions: the run goes on without them. */
  readonly damaged: readonly Digest[];
}

/** Checks the copy in `dir`, and deletes there what is `damaged` and what it finds to be. Throws HeddleError "integrity" as `checkCopy` does. */
async function settle(
  dir: string,
  { action, damaged }: { readonly action: string; readonly damaged: readonly Digest[] },
): Promise<Checked> {
  const store = await openEmbeddedStore(dir);
  try {
    const checked = await checkCopy(store, { dir, action });
    await deleteBlobs(store.blobs, [...damaged, ...checked.damaged]);
    return checked;
  } finally {
    await store.close();
    await files(action, () => rm(join(dir, PROCESS_FILE), { force: true }));
  }
}

async function checkCopy(
  store: Store,
  { dir, action }: { readonly dir: string; readonly action: string },
): Promise<Checked> {
  const ledger = await checkLedger(entriesOf(store.log), verifySignature);
  const key = await loadDeviceKey(join(dir, KEY_FILE));
  if (!equalBytes(key.publicKey, ledger.durable.relay)) {
    throw new HeddleError("integrity", `Cannot ${action}: the backup's key is not the one that signed its ledger`);
  }
  return { ledger, ...(await checkBlobs(store, { durable: ledger.durable, action })) };
}

/** Reads every blob that the run keeps. Throws HeddleError "integrity" where one that it needs is missing or damaged. */
async function checkBlobs(
  store: Store,
  { durable, action }: { readonly durable: DurableState; readonly action: string },
): Promise<Omit<Checked, "ledger">> {
  const charter = await readCharter(store);
  const needed = await reachableBlobs(store, { charter, durable, checkpoints: 1 });
  const damaged: Digest[] = [];
  let blobs = 0;
  for (const digest of await reachableBlobs(store, { charter, durable, checkpoints: CHECKPOINTS_KEPT })) {
    const found = await getWhole(store.blobs, digest);
    if (needed.has(digest) && (found === undefined || found === "damaged")) {
      throw new HeddleError(
        "integrity",
        `Cannot ${action}: blob ${digest}, which the run needs, is missing or damaged`,
      );
    }
    if (found === "damaged") {
      damaged.push(digest);
    } else {
      blobs += found === undefined ? 0 : 1;
    }
  }
  return { blobs, damaged };
}

interface Copy {
  /** The folder that is copied; null: it comes from elsewhere. */
  readonly from: string | null;
  /** Absent or empty. */
  readonly to: string;
  readonly action: string;
}

/** Has `fill` make the folder `.partial` in `to`, and moves what is in it up; what fails leaves nothing behind. */
async function fillPlace<T>({ from, to, action }: Copy, fill: (partial: string) => Promise<T>): Promise<T> {
  const path = resolve(to);
  const { there } = await lookAtPlace(path, action);
  const place = await realpath(path).catch(() => path);
  if (from !== null && isWithin(await realpath(from), place)) {
    throw new HeddleError("bad-input", `Cannot ${action}: what is to be copied is in "${path}"; name another folder`);
  }
  await files(action, () => mkdir(path, { recursive: true, mode: 0o700 })); // it will hold the relay's key
  const release = await lockPlace(path, action);
  try {
    return await fillLocked({ path, action }, fill);
  } finally {
    await release();
    if (!there) {
      await rmdir(path).catch(() => undefined); // it stays where it was filled, or somebody else begins to
    }
  }
}

async function fillLocked<T>(
  { path, action }: { readonly path: string; readonly action: string },
  fill: (partial: string) => Promise<T>,
): Promise<T> {
  const partial = join(path, PARTIAL);
  const { left, others } = await lookAtPlace(path, action); // another may have filled it meanwhile
  await files(action, async () => {
    await chmod(path, 0o700).catch(() => undefined); // where it was there: some file systems and owners do not allow it
    await removeAll(path, left);
  });
  let filled: T;
  try {
    filled = await fill(partial);
    await files(action, async () => {
      await sync(partial);
      const made = await readdir(partial);
      const last = [KEY_FILE, DATABASE];
      for (const name of [...made.filter((one) => !last.includes(one)), ...last]) {
        await rename(join(partial, name), join(path, name));
      }
    });
  } catch (error) {
    await files(action, async () => {
      const made = (await readdir(path)).filter((name) => !others.includes(name));
      await removeAll(path, made);
    });
    throw error;
  }
  await files(action, async () => {
    await rmdir(partial);
    await syncOne(path);
    await syncOne(dirname(path));
  });
  return filled;
}

interface FoundPlace {
  readonly there: boolean;
  /** Names of what an attempt that was killed has left, where nobody has the lock. */
  readonly left: readonly string[];
  readonly others: readonly string[];
}

/** Throws HeddleError "bad-input" for a folder that holds something. */
async function lookAtPlace(path: string, action: string): Promise<FoundPlace> {
  const found = await stat(path).catch(() => null);
  const names = found?.isDirectory() === true ? await files(action, () => readdir(path)) : [];
  const cut = await stat(join(path, PARTIAL, DATABASE)).catch(() => null);
  const killed = !names.includes(DATABASE) && cut !== null;
  const left = names.filter((name) => name === PARTIAL || (killed && MOVED_FIRST.includes(name)));
  const others = names.filter((name) => !left.includes(name));
  if (found !== null && (!found.isDirectory() || others.some((name) => !OF_NOBODY.includes(name)))) {
    throw new HeddleError("bad-input", `Cannot ${action}: "${path}" exists and is no empty folder; name another`);
  }
  return { there: found !== null, left, others };
}

/** Keeps everyone else from filling the folder until the returned function is called. Throws HeddleError "store" where somebody does. */
async function lockPlace(path: string, action: string): Promise<() => Promise<void>> {
  const lock = join(path, LOCK);
  let database: DatabaseSync | null = null;
  try {
    database = new DatabaseSync(lock);
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE"); // and no file beside it
  } catch (error) {
    database?.close();
    const why = isBusy(error)
      ? `another backup or restore is filling "${path}"; wait for its end`
      : `"${path}" cannot be locked: ${messageIn(error)}`;
    throw new HeddleError("store", `Cannot ${action}: ${why}`, { cause: error });
  }
  const held = database;
  return async () => {
    await rm(lock, { force: true }); // while it is held: what lies there later is another's
    held.close();
  };
}

function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

async function removeAll(folder: string, names: readonly string[]): Promise<void> {
  await Promise.all(names.map((name) => rm(join(folder, name), { recursive: true, force: true })));
}

/** A folder, with all that is in it, is on the disk when this resolves. */
async function sync(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { recursive: true })) {
    await syncOne(join(folder, entry));
  }
  await syncOne(folder);
}

async function syncOne(path: string): Promise<void> {
  const file = await open(path);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Runs `work` on files and turns what the system says into a sentence. */
async function files<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const why = messageIn(error);
    throw new HeddleError("store", `Cannot ${action}: ${why}`, { cause: error });
  }
}
