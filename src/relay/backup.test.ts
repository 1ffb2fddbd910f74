import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { digestOf, textBytes, type Digest } from "../base/bytes.ts";
import { entries, started } from "../coordinator/ledger.fixture.ts";
import { loadDeviceKey } from "../net/device-key-node.ts";
import { encodeCharter } from "../protocol/charter-codec.ts";
import { exampleCharter } from "../protocol/examples.ts";
import { openEmbeddedStore } from "../store/embedded.ts";
import { closeLease } from "../store/lease.ts";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import { backUp, restore, restoreInto } from "./backup.ts";
import { KEY_FILE, LEADER_KEY, type PlacedStore } from "./place.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "heddle-backup-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("backUp() and restore() do not take the folder that they copy for what is left of an attempt", async () => {
  const to = join(folder, "run");
  const dir = join(to, ".partial");
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, KEY_FILE), "");
  const store = await openEmbeddedStore(dir);
  const open = readdirSync(dir);
  await expect(backUp(store, dir, to)).rejects.toMatchObject({ code: "bad-input" });
  expect(readdirSync(dir)).toEqual(open);
  await store.close();
  const closed = readdirSync(dir);
  await expect(restore(dir, to)).rejects.toMatchObject({ code: "bad-input" });
  expect(readdirSync(dir)).toEqual(closed);
  expect(readdirSync(folder)).toEqual(["run"]);
});

test("backUp() fills a folder that is there and must stay, as one that is mounted, and leaves nothing where it fails", async () => {
  const [dir, to] = [join(folder, "relay"), join(folder, "mounted")];
  mkdirSync(join(to, "lost+found"), { recursive: true });
  mkdirSync(join(to, ".partial", "blobs"), { recursive: true });
  const { ino } = statSync(to);
  const store = await openEmbeddedStore(dir);
  await expect(backUp(store, dir, to)).rejects.toThrow(KEY_FILE);
  expect(readdirSync(to)).toEqual(["lost+found"]);
  writeFileSync(join(dir, KEY_FILE), "");
  await backUp(store, dir, to);
  expect(readdirSync(to).sort()).toEqual(["blobs", "heddle.sqlite", "lost+found", KEY_FILE]);
  expect(statSync(to).ino).toBe(ino);
  expect(statSync(to).mode & 0o777).toBe(0o700);
  await store.close();
});

test("backUp() into a folder that another is filling is refused, and leaves that one alone", async () => {
  const [dir, to] = [join(folder, "relay"), join(folder, "backup")];
  const store = await openEmbeddedStore(dir);
  writeFileSync(join(dir, KEY_FILE), "");
  await store.blobs.put(Uint8Array.of(1));
  const slow: PlacedStore = {
    ...store,
    backup: async (partial) => {
      const copied = await store.backup(partial);
      await expect(backUp(store, dir, to)).rejects.toMatchObject({
        code: "store",
        message: `Cannot back up: another backup or restore is filling "${to}"; wait for its end`,
      });
      return copied;
    },
  };
  expect(await backUp(slow, dir, to)).toMatchObject({ blobs: 1 });
  expect(readdirSync(to).sort()).toEqual(["blobs", "heddle.sqlite", KEY_FILE]);
  await expect(backUp(store, dir, to)).rejects.toMatchObject({ code: "bad-input" });
  await store.close();
});

test("backUp() begins again where an attempt was killed between its moves", async () => {
  const [dir, to] = [join(folder, "relay"), join(folder, "backup")];
  const store = await openEmbeddedStore(dir);
  writeFileSync(join(dir, KEY_FILE), "new");
  mkdirSync(join(to, ".partial"), { recursive: true });
  mkdirSync(join(to, "blobs"));
  writeFileSync(join(to, KEY_FILE), "old");
  await expect(backUp(store, dir, to)).rejects.toMatchObject({ code: "bad-input" }); // of no attempt
  writeFileSync(join(to, ".partial", "heddle.sqlite"), "");
  await backUp(store, dir, to);
  expect(readdirSync(to).sort()).toEqual(["blobs", "heddle.sqlite", KEY_FILE]);
  expect(readFileSync(join(to, KEY_FILE), "utf8")).toBe("new");
  await store.close();
});

test("backUp() copies no store that is being filled, and none that has lost its key, and says so before it copies blobs", async () => {
  const store = createMemoryStore();
  await store.keys.set("charter", encodeCharter(exampleCharter));
  await store.log.append(0, [Uint8Array.of(1)]);
  const to = join(folder, "backup");
  await expect(backUp(store, folder, to)).rejects.toThrow("the store has lost the relay's key");
  await store.keys.set(KEY_FILE, Uint8Array.of(1));
  await expect(backUp(store, folder, to)).rejects.toThrow(/^Cannot use the device key in /);
  await closeLease(store.keys, LEADER_KEY, digestOf(Uint8Array.of(2)));
  await expect(backUp(store, folder, to)).rejects.toThrow(/^Cannot back up: the restore of a backup, whose last /);
  expect(readdirSync(folder)).toEqual([]);
});

/** A run in a folder that has just begun, with a large blob that it does not know; what it needs is `head` and three blobs more. */
async function begun(dir: string) {
  const store = await openEmbeddedStore(dir);
  const key = await loadDeviceKey(join(dir, KEY_FILE));
  const shard = { digest: await store.blobs.put(textBytes("Call me Ishmael.")), bytes: 16 };
  const set = { ...exampleCharter.evaluation, shards: [shard] };
  const charter = encodeCharter({ ...exampleCharter, train: [set], evaluation: set });
  await store.keys.set("charter", charter);
  const run = await store.blobs.put(charter);
  const head = await store.blobs.put(new Uint8Array(70_000));
  const stray = await store.blobs.put(new Uint8Array(80_000));
  const event = { ...started, relay: key.publicKey, run, head: { ...started.head, digest: head } };
  await store.log.append(0, await entries([event], key));
  const pathOf = (digest: Digest, at = dir): string => join(at, "blobs", digest.slice(0, 2), digest);
  return { store, head, stray, pathOf };
}

test("backUp() leaves out what is damaged and not needed, and says how much; it needs the rest whole", async () => {
  const [dir, to] = [join(folder, "relay"), join(folder, "backup")];
  const { store, head, stray, pathOf } = await begun(dir);
  writeFileSync(pathOf(stray), "");
  expect(await backUp(store, dir, to)).toMatchObject({ blobs: 3, damaged: 1 });
  expect([existsSync(pathOf(head, to)), existsSync(pathOf(stray, to))]).toEqual([true, false]);
  expect(readdirSync(to).sort()).toEqual(["blobs", "heddle.sqlite", KEY_FILE]);
  expect(await restore(to, join(folder, "restored"))).toMatchObject({ blobs: 3, damaged: 0 });
  writeFileSync(pathOf(head), "");
  await expect(backUp(store, dir, join(folder, "other"))).rejects.toMatchObject({
    code: "integrity",
    message: `Cannot back up: blob ${head}, which the run needs, is missing or damaged`,
  });
  expect(existsSync(join(folder, "other"))).toBe(false);
  await store.close();
});

test("restoreInto() says that it was done before only where what was restored is still whole", async () => {
  const [dir, from] = [join(folder, "relay"), join(folder, "backup")];
  const { store, head } = await begun(dir);
  await backUp(store, dir, from);
  await store.close();
  const disk = createMemoryDisk();
  const again = () => restoreInto(from, { open: async () => createMemoryStore({ disk }), shown: "there" });
  expect(await again()).toMatchObject({ blobs: 3, already: false });
  expect(await again()).toMatchObject({ blobs: 3, already: true });
  disk.blobs.set(head, Uint8Array.of(1));
  await expect(again()).rejects.toMatchObject({ code: "integrity" });
  disk.blobs.delete(head);
  await expect(again()).rejects.toMatchObject({ code: "integrity" });
});
