/**
 * Backups of a relay's folder and their way back: ledger, keys and blobs as the store copies them, and the relay's own key,
 * without which nobody can go on with the ledger. A backup is a folder that a relay could serve as it is. It is made inside of
 * `.partial` in that folder, which may be a mounted one, and its database takes its place last: what has none is no backup.
 */
import { chmod, copyFile, cp, mkdir, open, readdir, realpath, rename, rm, rmdir, stat } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { HeddleError, messageIn } from "../base/assert.ts";
import { equalBytes } from "../base/bytes.ts";
import { checkLedger, type CheckedLedger } from "../coordinator/check.ts";
import { verifySignature } from "../net/device-key.ts";
import { loadDeviceKey } from "../net/device-key-node.ts";
import { openEmbeddedStore, type EmbeddedStore } from "../store/embedded.ts";
import { DATABASE } from "../store/locked.ts";
import { entriesOf } from "../store/store.ts";
import type { PlacedStore } from "./place.ts";
import { reachableBlobs } from "./prune.ts";
import { readCharter } from "./run.ts";

export const KEY_FILE = "relay.key";
const PARTIAL = ".partial";
/** What a folder may hold and be empty: what an attempt that was killed has left, and what file systems put there. */
const OF_NOBODY = [PARTIAL, "lost+found"];
/** What an attempt that was killed at its end has moved up already: its database, which is moved last, is still in `.partial`. */
const MOVED_FIRST = ["blobs", KEY_FILE];

export interface BackupReport {
  readonly to: string;
  readonly blobs: number;
  readonly bytes: number;
}

/** Backs `store`, open in the folder `dir`, up into the folder `to`, which must be absent or empty. Throws HeddleError. */
export async function backUp({ backup }: PlacedStore, dir: string, to: string): Promise<BackupReport> {
  if (backup === undefined) {
    const sentence =
      'Cannot back up: this run is kept on NATS, whose own tool copies it: "nats account backup FOLDER" writes every stream';
    throw new HeddleError("bad-input", sentence);
  }
  return fillPlace({ from: dir, to, action: "back up" }, async (partial) => {
    const copied = await backup(partial);
    await files("back up", async () => {
      await copyFile(join(dir, KEY_FILE), join(partial, KEY_FILE));
      await chmod(join(partial, KEY_FILE), 0o600);
    });
    return { to: resolve(to), ...copied };
  });
}

export interface RestoreReport {
  readonly ledger: CheckedLedger;
  readonly blobs: number;
}

/**
 * Makes the folder `to`, absent or empty, from the backup in `from`, after the ledger, its key and every blob that the run
 * needs have been checked. Throws HeddleError "integrity" when something is damaged or missing.
 */
export async function restore(from: string, to: string): Promise<RestoreReport> {
  const names: readonly string[] = await readdir(from).catch(() => []);
  if (!names.includes(DATABASE) || !names.includes(KEY_FILE)) {
    throw new HeddleError("bad-input", `Cannot restore: there is no backup in "${from}"`);
  }
  if (names.includes(`${DATABASE}-wal`)) {
    const sentence = `Cannot restore: "${from}" is a relay's own folder; start a relay with it, or back it up first`;
    throw new HeddleError("bad-input", sentence);
  }
  return fillPlace({ from, to, action: "restore" }, async (partial) => {
    await files("restore", async () => {
      await mkdir(partial, { mode: 0o700 });
      for (const name of [DATABASE, KEY_FILE]) {
        await copyFile(join(from, name), join(partial, name));
      }
      await chmod(join(partial, KEY_FILE), 0o600);
      await cp(join(from, "blobs"), join(partial, "blobs"), { recursive: true });
    });
    const store = await openEmbeddedStore(partial);
    try {
      return await checkCopy(store, partial);
    } finally {
      await store.close();
    }
  });
}

async function checkCopy(store: EmbeddedStore, dir: string): Promise<RestoreReport> {
  const ledger = await checkLedger(entriesOf(store.log), verifySignature);
  const key = await loadDeviceKey(join(dir, KEY_FILE));
  if (!equalBytes(key.publicKey, ledger.durable.relay)) {
    throw new HeddleError("integrity", "Cannot restore: the backup's key is not the one that signed its ledger");
  }
  const charter = await readCharter(store);
  const needed = await reachableBlobs(store, { charter, durable: ledger.durable, checkpoints: 1 });
  for (const digest of needed) {
    if ((await store.blobs.get(digest)) === undefined) {
      throw new HeddleError("integrity", `Cannot restore: blob ${digest} is missing from the backup`);
    }
  }
  return { ledger, blobs: needed.size };
}

interface Copy {
  readonly from: string;
  /** Absent or empty. */
  readonly to: string;
  readonly action: string;
}

/** Has `fill` make the folder `.partial` in `to`, and moves what is in it up; what fails leaves nothing behind. */
async function fillPlace<T>({ from, to, action }: Copy, fill: (partial: string) => Promise<T>): Promise<T> {
  const path = resolve(to);
  const partial = join(path, PARTIAL);
  const found = await stat(path).catch(() => null);
  const names = found?.isDirectory() === true ? await files(action, () => readdir(path)) : [];
  const killed = !names.includes(DATABASE) && (await stat(join(partial, DATABASE)).catch(() => null)) !== null;
  const left = names.filter((name) => name === PARTIAL || (killed && MOVED_FIRST.includes(name)));
  const others = names.filter((name) => !left.includes(name));
  if (found !== null && (!found.isDirectory() || others.some((name) => !OF_NOBODY.includes(name)))) {
    throw new HeddleError("bad-input", `Cannot ${action}: "${path}" exists and is no empty folder; name another`);
  }
  const place = await realpath(path).catch(() => path);
  if (isWithin(await realpath(from), place)) {
    throw new HeddleError("bad-input", `Cannot ${action}: what is to be copied is in "${path}"; name another folder`);
  }
  await files(action, async () => {
    await mkdir(path, { recursive: true, mode: 0o700 }); // it will hold the relay's key
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
      await removeAll(
        path,
        (await readdir(path)).filter((name) => !others.includes(name)),
      );
      await (found === null ? rmdir(path) : undefined);
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
