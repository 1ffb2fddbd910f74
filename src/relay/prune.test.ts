import { expect, test, vi } from "vitest";
import { type Actor, calm, charter, honestDelta, joined, pack, started } from "../coordinator/rehearsal.fixture.ts";
import { createMemoryStore } from "../store/memory.ts";
import { operationsOf } from "./operations.ts";
import { pruneBlobs } from "./prune.ts";

const options = { charter, checkpoints: 1, dryRun: false };

test("pruneBlobs() deletes what nothing reaches, and nothing once another relay writes the ledger", async () => {
  const world = await started();
  const [ada] = (await joined(world, "ada")) as [Actor];
  await ada.contribute(pack(honestDelta(ada.base, 0.2)));
  await calm(world.host);
  const store = createMemoryStore({ disk: world.disk });
  const stray = await store.blobs.put(Uint8Array.of(1, 2, 3));
  const prune = () => world.host.whileStill((durable, entries) => pruneBlobs(store, { ...options, durable, entries }));
  const blobs = world.disk.blobs.size;
  world.disk.entries.push(Uint8Array.of(1)); // a new leader's first word
  await expect(prune()).rejects.toThrow("another relay leads the run by now");
  expect(world.disk.blobs.size).toBe(blobs);
  world.disk.entries.pop();
  expect(await prune()).toMatchObject({ deleted: true });
  expect([world.disk.blobs.has(stray), world.disk.blobs.has(world.host.head().digest)]).toEqual([false, true]);
});

test("the run goes on while `blobs prune` looks for what was cut off", async () => {
  const { host, disk } = await started();
  const sweep = vi.fn(async () => {
    expect(await host.operate({ type: "pause" })).toBeNull();
    return 2;
  });
  const store = { ...createMemoryStore({ disk }), sweep };
  const { prune } = operationsOf({ dir: "", host, store, charter, handOver: async () => false });
  expect(await prune({ checkpoints: 1, dryRun: true })).toMatchObject({ deleted: false, cutOff: 0 });
  expect(sweep).not.toHaveBeenCalled();
  expect(await prune({ checkpoints: 1, dryRun: false })).toMatchObject({ deleted: true, cutOff: 2 });
});
