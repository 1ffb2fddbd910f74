/**
 * Blobs as files, one each, named after their SHA-256: `ab/<digest>` under one folder. A blob is written to `incoming/`,
 * synced, renamed into place and its folder synced, so that a name always stands for whole bytes, whenever the machine stops.
 */
import { existsSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { isDigest, type Bytes, type Digest } from "../base/bytes.ts";
import { hashBytes } from "./hash.ts";
import { checkBlob, checkDigest, checkPosition, damagedBlob, type Blobs } from "./store.ts";

export interface FileBlobsOptions {
  readonly dir: string;
  readonly blobBytesMax: number;
  /** Runs `work` while the store is open; turns its failures into HeddleError "store". */
  readonly gate: <T>(action: string, work: () => Promise<T>) => Promise<T>;
}

export interface FileBlobs extends Blobs {
  /** Makes the folders and removes writes that were cut off; called once, before anything else, by the owner of the lock. */
  prepare(): Promise<void>;
  /** Whether there is such a file now. */
  has(digest: Digest): boolean;
}

export function fileBlobs({ dir, blobBytesMax, gate }: FileBlobsOptions): FileBlobs {
  const incoming = join(dir, "incoming");
  const folderOf = (digest: Digest): string => join(dir, digest.slice(0, 2));
  const pathOf = (digest: Digest): string => join(folderOf(digest), checkDigest(digest));
  const writing = new Map<Digest, Promise<void>>();
  let writes = 0;

  /** Replaces what is there, damaged or not. */
  const write = async (digest: Digest, bytes: Bytes): Promise<void> => {
    const temporary = join(incoming, `${digest}.${(writes += 1)}`);
    await writeSynced(temporary, bytes);
    if ((await mkdir(folderOf(digest), { recursive: true })) !== undefined) {
      await syncFolder(dir);
    }
    await rename(temporary, pathOf(digest));
    await syncFolder(folderOf(digest));
  };

  return {
    prepare: () =>
      gate("open the blobs", async () => {
        await mkdir(incoming, { recursive: true });
        for (const leftover of await readdir(incoming)) {
          await rm(join(incoming, leftover));
        }
        await syncFolder(dir);
        await syncFolder(join(dir, ".."));
      }),
    put: (bytes, known) =>
      gate("store a blob", async () => {
        checkBlob(bytes, blobBytesMax);
        const digest = known ?? (await hashBytes(bytes));
        let written = writing.get(digest);
        if (written === undefined) {
          written = write(digest, bytes).finally(() => writing.delete(digest));
          writing.set(digest, written);
        }
        await written;
        return digest;
      }),
    get: (digest) =>
      gate("read a blob", async () => {
        const path = pathOf(digest);
        const bytes = await ifPresent(readFile(path));
        if (bytes !== undefined && (await hashBytes(bytes)) !== digest) {
          throw damagedBlob(digest);
        }
        return bytes === undefined ? undefined : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      }),
    slice: (digest, start, end) => gate("read a blob", () => ifPresent(readSlice(pathOf(digest), start, end))),
    size: (digest) => gate("read a blob", async () => (await ifPresent(stat(pathOf(digest))))?.size),
    delete: (digest) => gate("delete a blob", () => rm(pathOf(digest), { force: true })),
    has: (digest) => existsSync(pathOf(digest)),
    list: () =>
      gate("list blobs", async () => {
        const folders = (await readdir(dir)).filter((name) => name.length === 2);
        const names = await Promise.all(folders.map((name) => readdir(join(dir, name))));
        return names.flat().filter(isDigest).sort();
      }),
  };
}

async function writeSynced(path: string, bytes: Bytes): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function readSlice(path: string, start: number, end: number): Promise<Bytes> {
  checkPosition(start, "read a slice");
  checkPosition(end, "read a slice");
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const bytes = new Uint8Array(Math.max(0, Math.min(end, size) - start));
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, start + filled);
      if (bytesRead === 0) {
        break; // cut short between stat and read
      }
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  } finally {
    await file.close();
  }
}

/** Makes names in a folder durable. Windows has no such call and needs none. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") {
    return;
  }
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function ifPresent<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}
