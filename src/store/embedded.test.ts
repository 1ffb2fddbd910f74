import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { CONTRACT_BLOB_BYTES_MAX, STORE_CASES } from "./contract.ts";
import { fileBlobs } from "./blob-files.ts";
import { rowBlobs } from "./blob-rows.ts";
import { embeddedBlobs, ROW_BYTES_MAX } from "./embedded-blobs.ts";
import { openEmbeddedCopy, openEmbeddedStore } from "./embedded.ts";
import { Gate } from "./gate.ts";
import { DATABASE, openLocked } from "./locked.ts";
import { roundBytes } from "./writer.fixture.ts";

let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "heddle-store-"));
});
afterEach(() => rm(dir, { recursive: true }));

function blobPath(digest: Digest): string {
  return join(dir, "blobs", digest.slice(0, 2), digest);
}

describe("openEmbeddedStore() keeps the contract", () => {
  test.each(STORE_CASES)("$name", ({ run }) =>
    run({
      open: () => openEmbeddedStore(dir, { blobBytesMax: CONTRACT_BLOB_BYTES_MAX }),
      damage: async (digest) => damageRow(digest),
    }),
  );
});

/** Zeros in place of a small blob; the store is closed. */
function damageRow(digest: Digest): void {
  const database = new DatabaseSync(join(dir, DATABASE));
  database.prepare("UPDATE blobs SET bytes = zeroblob(length(bytes)) WHERE digest = ?").run(digest);
  database.close();
}

test("blobs of up to ROW_BYTES_MAX are rows, larger ones files, which get() checks as well", async () => {
  const store = await openEmbeddedStore(dir);
  const [small, large] = [new Uint8Array(ROW_BYTES_MAX), new Uint8Array(ROW_BYTES_MAX + 1)];
  await store.blobs.put(small);
  expect(existsSync(blobPath(digestOf(small)))).toBe(false);
  const digest = await store.blobs.put(large);
  expect(await store.blobs.get(digest)).toEqual(large);
  await writeFile(blobPath(digest), new Uint8Array(large.length).fill(1));
  await expect(store.blobs.get(digest)).rejects.toMatchObject({ code: "integrity" });
  await store.close();
});

test("a small blob that an earlier version has kept as a file is found, and deleted with its row", async () => {
  const bytes = Uint8Array.of(1, 2, 3);
  const digest = digestOf(bytes);
  await mkdir(dirname(blobPath(digest)), { recursive: true });
  await writeFile(blobPath(digest), bytes);
  const store = await openEmbeddedStore(dir);
  expect(await store.blobs.get(digest)).toEqual(bytes);
  expect(await store.blobs.size(digest)).toBe(3);
  expect(await store.blobs.slice(digest, 1, 3)).toEqual(Uint8Array.of(2, 3));
  await store.blobs.put(bytes);
  expect(await store.blobs.list()).toEqual([digest]);
  await store.blobs.delete(digest);
  expect(await store.blobs.list()).toEqual([]);
  await store.close();
});

const KILLS = 4;

/** Runs the writer, kills it with SIGKILL after `least` acknowledged rounds, and returns all that it acknowledged. */
async function writeAndKill(least: number): Promise<number[]> {
  const path = fileURLToPath(new URL("writer.fixture.ts", import.meta.url));
  const child = spawn(process.execPath, [path, dir], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const acknowledged: number[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    if (acknowledged.push(Number(line)) === least) {
      child.kill("SIGKILL");
    }
  }
  await exited;
  return acknowledged;
}

test("openEmbeddedStore() after kill -9 has every acknowledged write, and every other whole or not at all", async () => {
  // Not every round up to the last: one that is cut off may have its log entry alone, and the next life begins behind it.
  const acknowledged: number[] = [];
  for (let kill = 0; kill < KILLS; kill += 1) {
    acknowledged.push(...(await writeAndKill(5 + 7 * kill)));
    const last = acknowledged.at(-1) ?? -1;
    const store = await openEmbeddedStore(dir);
    const length = await store.log.length();
    expect(length).toBeGreaterThanOrEqual(last + 1);
    const entries = await store.log.read(0, length);
    entries.forEach((entry, i) => expect(digestOf(entry)).toBe(digestOf(roundBytes(i))));
    const value = digestOf((await store.keys.get("last")) as Bytes);
    expect([last, last + 1].map((i) => digestOf(roundBytes(i)))).toContain(value);
    const names = await store.blobs.list();
    for (const name of names) {
      await store.blobs.get(name); // rejects when damaged
    }
    for (const i of acknowledged) {
      expect(names).toContain(digestOf(roundBytes(i)));
    }
    await store.close();
  }
});

test("openEmbeddedStore() refuses a store that another process has open and names that process", async () => {
  const path = fileURLToPath(new URL("writer.fixture.ts", import.meta.url));
  const child = spawn(process.execPath, [path, dir], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  await once(child.stdout, "data");
  await expect(openEmbeddedStore(dir)).rejects.toMatchObject({
    code: "store",
    message: `Cannot open the store: "${dir}" is in use by process ${child.pid}`,
  });
  child.kill("SIGKILL");
  await exited;
  const store = await openEmbeddedStore(dir);
  expect(await store.log.length()).toBeGreaterThan(0);
  await store.close();
});

test("openEmbeddedStore() refuses a store that this process has open already", async () => {
  const store = await openEmbeddedStore(dir);
  await expect(openEmbeddedStore(dir)).rejects.toMatchObject({ code: "store" });
  await store.keys.set("still", Uint8Array.of(1));
  await store.close();
});

test("openEmbeddedStore() makes a folder that is its owner's alone", async () => {
  const made = join(dir, "made");
  await (await openEmbeddedStore(made)).close();
  expect((await stat(made)).mode & 0o777).toBe(0o700);
});

test("openEmbeddedStore() says why a folder cannot be used", async () => {
  await writeFile(join(dir, "file"), "");
  await expect(openEmbeddedStore(join(dir, "file"))).rejects.toMatchObject({ code: "store" });
});

test.each([
  ["a row", 100],
  ["a file", ROW_BYTES_MAX + 1],
])("what is put again as %s is there, though its deletion was put off until then", async (_, bytes) => {
  const database = openLocked(dir, "test");
  database.exec("CREATE TABLE blobs (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL)");
  const gate = new Gate(() => database.close());
  const files = fileBlobs({
    dir: join(dir, "blobs"),
    blobBytesMax: 2 * ROW_BYTES_MAX,
    gate: (action, work) => gate.run(action, work),
  });
  await files.prepare();
  const blobs = embeddedBlobs(rowBlobs(database, gate), files, 2 * ROW_BYTES_MAX);
  const blob = new Uint8Array(bytes).fill(3);
  const digest = await blobs.put(blob);
  const release = blobs.hold();
  await blobs.delete(digest);
  await Promise.all([blobs.put(blob, digest), release()]);
  expect(await blobs.get(digest)).toEqual(blob);
  const again = blobs.hold();
  await Promise.all([blobs.put(blob, digest), blobs.delete(digest)]);
  await again();
  expect(await blobs.get(digest)).toBeUndefined();
  await gate.close();
});

describe("backup()", () => {
  const copies: string[] = [];
  afterEach(async () => {
    for (const copy of copies.splice(0)) {
      await rm(copy, { recursive: true, force: true });
    }
  });
  const placeFor = (name: string): string => {
    copies.push(`${dir}-${name}`);
    return `${dir}-${name}`;
  };

  test("copies one moment's log, keys and blobs while writes and deletions go on, and deletes what was put off", async () => {
    const store = await openEmbeddedStore(dir);
    const blobs = await Promise.all(Array.from({ length: 40 }, (_, i) => store.blobs.put(roundBytes(i))));
    await store.keys.set("charter", Uint8Array.of(7));
    await store.log.append(0, [Uint8Array.of(1), Uint8Array.of(2)]);
    const to = placeFor("copy");
    const copying = store.backup(to);
    for (const [i, digest] of blobs.entries()) {
      await store.blobs.delete(digest);
      await store.log.append(2 + i, [Uint8Array.of(3)]);
    }
    await store.blobs.put(roundBytes(0)); // wanted again
    expect(await copying).toMatchObject({ blobs: 40 });
    expect(await store.blobs.list()).toEqual([blobs[0]]);
    await store.close();

    const copy = await openEmbeddedStore(to);
    const length = await copy.log.length();
    expect(length).toBeGreaterThanOrEqual(2);
    expect((await copy.log.read(0, 2)).map((entry) => entry[0])).toEqual([1, 2]);
    expect(await copy.keys.get("charter")).toEqual(Uint8Array.of(7));
    for (const [i, digest] of blobs.entries()) {
      expect(await copy.blobs.get(digest)).toEqual(roundBytes(i));
    }
    await copy.close();
  });

  test("copies a database that is written to without a pause", async () => {
    const store = await openEmbeddedStore(dir);
    const copied = new AbortController();
    const written = (async () => {
      for (let i = 0; !copied.signal.aborted; i += 1) {
        await Promise.all(Array.from({ length: 64 }, (_, j) => store.blobs.put(Uint8Array.of(i, i >> 8, j))));
      }
    })();
    for (let i = 0; i < 4; i += 1) {
      await store.backup(placeFor(`busy-${i}`));
    }
    copied.abort();
    await written;
    await store.close();
  });

  test("tells what is damaged and copies the rest, and writes over no folder", async () => {
    let store = await openEmbeddedStore(dir);
    const small = await store.blobs.put(Uint8Array.of(1));
    await store.close();
    damageRow(small);
    store = await openEmbeddedStore(dir);
    const digest = await store.blobs.put(new Uint8Array(ROW_BYTES_MAX + 1));
    await writeFile(blobPath(digest), new Uint8Array(3));
    const whole = await store.blobs.put(new Uint8Array(ROW_BYTES_MAX + 2));
    expect(await store.backup(placeFor("damaged"))).toEqual({
      blobs: 1,
      bytes: ROW_BYTES_MAX + 2,
      damaged: [small, digest],
    });
    await expect(store.backup(dir)).rejects.toMatchObject({ code: "store" });
    await store.blobs.delete(digest);
    expect(await store.blobs.list()).toEqual([small, whole].sort());
    await store.close();
  });
});

test("openEmbeddedCopy() reads a copy, and neither writes there nor leaves anything", async () => {
  const store = await openEmbeddedStore(join(dir, "store"));
  const [small, large] = [Uint8Array.of(1), new Uint8Array(ROW_BYTES_MAX + 1)];
  const digests = [await store.blobs.put(small), await store.blobs.put(large)].sort();
  await store.log.append(0, [small]);
  await store.keys.set("key", small);
  const to = join(dir, "a copy, 50% of it?");
  await store.backup(to);
  await store.close();
  const names = await readdir(to, { recursive: true });
  const copy = await openEmbeddedCopy(to);
  expect([await copy.log.read(0, 2), await copy.keys.get("key")]).toEqual([[small], small]);
  expect(await copy.blobs.list()).toEqual(digests);
  expect(await copy.blobs.get(digestOf(large))).toEqual(large);
  const refused = { code: "store" };
  await expect(copy.keys.set("key", large)).rejects.toMatchObject(refused);
  for (const blob of [Uint8Array.of(2), large.map(() => 2)]) {
    await expect(copy.blobs.put(blob)).rejects.toMatchObject(refused);
  }
  for (const digest of digests) {
    await expect(copy.blobs.delete(digest)).rejects.toMatchObject(refused);
  }
  expect(await readdir(to, { recursive: true })).toEqual(names);
  await copy.close();
  expect(await readdir(to, { recursive: true })).toEqual(names);
  await expect(openEmbeddedCopy(join(dir, "nowhere"))).rejects.toMatchObject(refused);
  const empty = join(dir, "empty");
  await mkdir(empty);
  await writeFile(join(empty, DATABASE), "");
  const close = vi.spyOn(DatabaseSync.prototype, "close");
  await expect(openEmbeddedCopy(empty)).rejects.toMatchObject(refused);
  expect(close).toHaveBeenCalledTimes(1);
  close.mockRestore();
});
