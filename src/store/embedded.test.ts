import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { CONTRACT_BLOB_BYTES_MAX, STORE_CASES } from "./contract.ts";
import { openEmbeddedStore } from "./embedded.ts";
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
      damage: async (digest) => writeFile(blobPath(digest), new Uint8Array((await stat(blobPath(digest))).size)),
    }),
  );
});

const KILLS = 4;

/** Runs the writer, kills it with SIGKILL after some acknowledged rounds, and returns the last of them. */
async function writeAndKill(acknowledged: number): Promise<number> {
  const path = fileURLToPath(new URL("writer.fixture.ts", import.meta.url));
  const child = spawn(process.execPath, [path, dir], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let last = -1;
  let seen = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    last = Number(line);
    if ((seen += 1) === acknowledged) {
      child.kill("SIGKILL");
    }
  }
  await exited;
  return last;
}

test("openEmbeddedStore() after kill -9 has every acknowledged write, and every other whole or not at all", async () => {
  for (let kill = 0; kill < KILLS; kill += 1) {
    const last = await writeAndKill(5 + 7 * kill);
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
    for (let i = 0; i <= last; i += 1) {
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

test("openEmbeddedStore() says why a folder cannot be used", async () => {
  await writeFile(join(dir, "file"), "");
  await expect(openEmbeddedStore(join(dir, "file"))).rejects.toMatchObject({ code: "store" });
});
