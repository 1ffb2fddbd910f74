import { expect, test } from "vitest";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import { honestDelta, joined, pack, World, type Actor } from "./rehearsal.fixture.ts";

/** A host whose ledger's writes are held up while `hold` is set, and counted. */
async function heldUp(): Promise<{ world: World; writes: number[]; hold: (until: Promise<void> | null) => void }> {
  const world = new World(createMemoryDisk());
  const store = createMemoryStore({ disk: world.disk });
  const writes: number[] = [];
  let waiting: Promise<void> | null = null;
  const append: typeof store.log.append = async (after, entries) => {
    writes.push(entries.length);
    await waiting;
    return store.log.append(after, entries);
  };
  await world.start({ store: { ...store, log: { ...store.log, append } } });
  const hold = (until: Promise<void> | null): void => {
    waiting = until;
  };
  return { world, writes, hold };
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 400; turn += 1) {
    await Promise.resolve();
  }
}

test("what waits is decided together and written once, and nobody is told before", async () => {
  const { world, writes, hold } = await heldUp();
  const actors = await joined(world, "ada", "bob", "cyd", "dan");
  const sent = await Promise.all(
    actors.map((actor, i) => actor.contribution(pack(honestDelta(actor.base, 0.2 + i / 50)))),
  );
  writes.length = 0;
  const written = Promise.withResolvers<void>();
  hold(written.promise);
  const told = (): number => actors.flatMap(({ got }) => got.filter(({ type }) => type === "have")).length;
  sent.forEach(({ message }, i) => (actors[i] as Actor).send(message));
  await turns();
  expect([told(), world.host.view().phase]).toEqual([0, "training"]);
  written.resolve();
  hold(null);
  await world.pass(0);
  expect(told()).toBe(4);
  expect(writes).toEqual([5]); // and the end of the round
});

test("a payload that something of the same batch stands against is not kept", async () => {
  const { world, hold } = await heldUp();
  const [ada, bob] = (await joined(world, "ada", "bob")) as [Actor, Actor];
  const first = await ada.contribution(pack(honestDelta(ada.base, 0.2)));
  const second = await ada.contribution(pack(honestDelta(ada.base, 0.3)));
  const other = await bob.contribution(pack(honestDelta(bob.base, 0.25)));
  const before = world.disk.blobs.size;
  const written = Promise.withResolvers<void>();
  hold(written.promise);
  bob.send(other.message); // while it is written, both of ada's wait
  await turns();
  ada.send(first.message);
  ada.send(second.message);
  written.resolve();
  hold(null);
  await world.pass(0);
  expect(ada.verdictOn(second.id)).toBe("late"); // the first ended the round
  expect(world.disk.blobs.size).toBe(before + 2);
});
