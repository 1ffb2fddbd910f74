import { expect, test } from "vitest";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { followJournal } from "../coordinator/journal.ts";
import { Actor, charter, honestDelta, joined, pack, started, type World } from "../coordinator/rehearsal.fixture.ts";
import { blobsOf } from "../coordinator/state.ts";
import type { Charter } from "../protocol/charter.ts";
import { encodeCharter } from "../protocol/charter-codec.ts";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { copyRun } from "./copy.ts";

const text: Bytes = new TextEncoder().encode("Call me Ishmael.");
const set = { ...charter.evaluation, shards: [{ digest: digestOf(text), bytes: text.length }] };
const own: Charter = { ...charter, train: [set], evaluation: set };

interface Begun {
  readonly world: World;
  readonly from: Store;
  /** Has one more contribution accepted and merged. */
  readonly version: () => Promise<void>;
}

/** A run with two versions, as a relay keeps it. */
async function begun(): Promise<Begun> {
  const world = await started({ charter: own });
  const [ada] = (await joined(world, "ada")) as [Actor];
  const from = createMemoryStore({ disk: world.disk });
  await from.blobs.put(text);
  await from.keys.set("charter", encodeCharter(own));
  const version = async (): Promise<void> => {
    const next = world.host.head().version + 1;
    for (let turn = 0; turn < 100 && world.host.head().version < next; turn += 1) {
      await ada.ready();
      if (world.host.view().phase === "training") {
        await ada.contribute(pack(honestDelta(ada.base, 0.2)));
      }
      await world.pass(100);
    }
    expect(world.host.head().version).toBe(next);
  };
  await version();
  await version();
  return { world, from, version };
}

/** What a relay would find in `store`. */
async function blobsNeeded(store: Store): Promise<Set<Digest>> {
  return blobsOf((await followJournal(store.log)).durable(), 1);
}

async function expectWhole(disk: ReturnType<typeof createMemoryDisk>, entries: readonly Bytes[]): Promise<void> {
  expect(disk.entries).toEqual(entries);
  for (const digest of await blobsNeeded(createMemoryStore({ disk }))) {
    expect(disk.blobs.has(digest)).toBe(true);
  }
  expect(disk.blobs.has(set.shards[0]?.digest as Digest)).toBe(true);
}

test("copyRun() copies ledger, lasting keys and what they name, and nothing else", async () => {
  const { world, from } = await begun();
  await from.blobs.put(Uint8Array.of(1)); // nobody knows it
  await from.keys.set("dataset/x", new TextEncoder().encode(JSON.stringify({ ...set, name: "x" })));
  for (const key of ["leader", "relay.key", "upload/0", "upload/0/1"]) {
    await from.keys.set(key, Uint8Array.of(1));
  }
  const disk = createMemoryDisk();
  const copied = await copyRun(from, createMemoryStore({ disk }));
  await expectWhole(disk, world.disk.entries);
  expect([...disk.values.keys()].sort()).toEqual(["charter", "dataset/x"]);
  expect(disk.blobs.has(digestOf(Uint8Array.of(1)))).toBe(false);
  const bytes = [...disk.blobs.values()].reduce((sum, blob) => sum + blob.length, 0);
  expect(copied).toMatchObject({ blobs: disk.blobs.size, bytes, durable: { head: { version: 2 } } });
});

test("copyRun() of a run that goes on takes a later moment where blobs were superfluous before they were copied", async () => {
  const { world, from, version } = await begun();
  const disk = createMemoryDisk();
  let reads = 0;
  const moving: Store = {
    ...from,
    blobs: {
      ...from.blobs,
      get: async (digest) => {
        reads += 1;
        // An update: the outer state comes first, and stays the same here. It is superfluous after so many versions.
        for (let left = reads === 2 ? 20 : 0; left > 0; left -= 1) {
          await version();
        }
        return from.blobs.get(digest);
      },
    },
  };
  const { durable } = await copyRun(moving, createMemoryStore({ disk }));
  expect(durable.head.version).toBe(22);
  await expectWhole(disk, world.disk.entries.slice(0, disk.entries.length));
  const known = new Set([...blobsOf(durable), durable.run, ...set.shards.map(({ digest }) => digest)]);
  expect([...disk.blobs.keys()].filter((digest) => !known.has(digest))).toEqual([]);
});

test("copyRun() goes on where it was interrupted, and the ledger comes last", async () => {
  const { world, from } = await begun();
  const disk = createMemoryDisk();
  const to = createMemoryStore({ disk });
  let puts = 0;
  const put: Store["blobs"]["put"] = async (bytes, digest) => {
    puts += 1;
    if (puts === 3) {
      throw new Error("killed");
    }
    return to.blobs.put(bytes, digest);
  };
  await expect(copyRun(from, { ...to, blobs: { ...to.blobs, put } })).rejects.toThrow("killed");
  expect(disk.entries).toEqual([]);
  puts = 10;
  const before = disk.blobs.size;
  await copyRun(from, { ...to, blobs: { ...to.blobs, put } });
  await expectWhole(disk, world.disk.entries);
  expect(puts - 10).toBe(disk.blobs.size - before);
});

test("copyRun() leaves out what is damaged of older versions, and says how much", async () => {
  const { world, from } = await begun();
  const durable = (await followJournal(from.log)).durable();
  const needed = blobsOf(durable, 1);
  const older = [...blobsOf(durable)].filter((digest) => !needed.has(digest));
  const [lost] = older as [Digest];
  world.disk.blobs.set(lost, Uint8Array.of(1));
  const disk = createMemoryDisk();
  const copied = await copyRun(from, createMemoryStore({ disk }));
  await expectWhole(disk, world.disk.entries);
  expect(copied).toMatchObject({ damaged: 1, blobs: disk.blobs.size });
  expect(older.filter((digest) => !disk.blobs.has(digest))).toEqual([lost]);
});

test("copyRun() touches nothing of another run", async () => {
  const [{ from }, other] = [await begun(), createMemoryDisk()];
  const to = createMemoryStore({ disk: other });
  await to.log.append(0, [Uint8Array.of(1)]);
  await to.keys.set("charter", Uint8Array.of(2));
  await expect(copyRun(from, to)).rejects.toMatchObject({ code: "store", message: /holds another one$/ });
  expect([other.blobs.size, [...other.values]]).toEqual([0, [["charter", Uint8Array.of(2)]]]);
});

test("copyRun() says what is missing, damaged, or no run at all, and writes no ledger then", async () => {
  const { world, from } = await begun();
  const to = createMemoryStore();
  const { digest } = world.host.head();
  const bytes = world.disk.blobs.get(digest) as Bytes;
  world.disk.blobs.set(digest, new Uint8Array(bytes.length));
  await expect(copyRun(from, to)).rejects.toMatchObject({
    code: "integrity",
    message: /the stored bytes have another/,
  });
  world.disk.blobs.delete(digest);
  await expect(copyRun(from, to)).rejects.toMatchObject({
    code: "integrity",
    message: `Cannot copy the run: blob ${digest} is missing`,
  });
  expect(await to.log.length()).toBe(0);
  await expect(copyRun(createMemoryStore(), to)).rejects.toMatchObject({ code: "bad-input" });
});
