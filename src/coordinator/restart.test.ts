import { describe, expect, test } from "vitest";
import { digestOf, type Bytes, type ContributionId } from "../base/bytes.ts";
import { verifyChain } from "../protocol/chain.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { ContributorMessage } from "../protocol/messages.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Log, Store } from "../store/store.ts";
import { Actor, calm, charter, honestDelta, joined, keyOf, pack, started, verify, World } from "./rehearsal.fixture.ts";

describe("restarts", () => {
  test("a store of another run, another relay or broken bytes is not gone on with", async () => {
    const world = await started();
    await calm(world.host);
    await world.host.close();
    await expect(world.start({ charter: { ...charter, seed: 9 } })).rejects.toMatchObject({ code: "store" });
    await expect(world.start({ key: keyOf("other") })).rejects.toMatchObject({ code: "store" });
    const entry = world.disk.entries[0] as Bytes;
    entry[40] = (entry[40] as number) ^ 1;
    await expect(world.start()).rejects.toMatchObject({ code: "integrity" });
  });

  test("a second writer is noticed: the relay stops, and says so", async () => {
    const failures: unknown[] = [];
    const world = await started({ onFailure: (error) => failures.push(error) });
    world.disk.entries.push(Uint8Array.of(1));
    const ada = new Actor(world, "ada");
    await ada.connect().catch(() => undefined);
    await expect(world.host.settled()).rejects.toMatchObject({ code: "store" });
    expect(failures.length).toBe(1);
    expect(ada.closed).toMatch(/stopping/);
    await world.host.close();
  });

  test("a process with a later epoch leads, also while the one before still writes, and that one is stopped", async () => {
    const failures: unknown[] = [];
    const world = await started({ epoch: 1, onFailure: (error) => failures.push(error) });
    const before = world.host;
    const store = createMemoryStore({ disk: world.disk });
    let late = 2;
    const log: Log = {
      ...store.log,
      append: async (after, entries) => {
        if (late > 0) {
          late -= 1;
          await new Actor(world, `late ${late}`).connect(); // which the leader of before enters
        }
        return store.log.append(after, entries);
      },
    };
    const entered: LedgerEvent[] = [];
    await world.start({ epoch: 2, store: { ...store, log }, onEntry: ({ event }) => entered.push(event) });
    expect(entered).toEqual([{ type: "led", epoch: 2 }]);
    const after = world.host;
    await expect(world.start({ epoch: 2 })).rejects.toMatchObject({
      code: "store",
      message: "Cannot lead the run: got epoch 2, its ledger has 2 already",
    });
    expect(failures).toEqual([]);
    world.host = before;
    await new Actor(world, "deceived").connect().catch(() => undefined);
    await expect(before.settled()).rejects.toThrow("Cannot write the ledger: another process has written to it");
    expect(failures.length).toBe(1);
    world.host = after;
    await new Actor(world, "ada").connect();
    const chain = await verifyChain(world.disk.entries, { verify });
    expect(
      chain.ok && chain.value.entries.map(({ event }) => (event.type === "led" ? event.epoch : event.type)),
    ).toEqual(["started", 1, "introduced", "introduced", 2, "introduced"]);
    await after.close();
    await before.close();
  });

  test("a payload that was damaged on the disk is not merged: the relay stops, and says so", async () => {
    const failures: unknown[] = [];
    const world = await started({ onFailure: (error) => failures.push(error) });
    const [ada, bob] = (await joined(world, "ada", "bob")) as [Actor, Actor];
    const payload = pack(honestDelta(ada.base, 0.2));
    await ada.contribute(payload);
    await bob.contribute(pack(honestDelta(bob.base, 0.3)));
    await bob.validate();
    const stored = world.disk.blobs.get(digestOf(payload)) as Bytes;
    world.disk.blobs.set(
      digestOf(payload),
      stored.map((byte, i) => (i === stored.length - 1 ? byte ^ 1 : byte)),
    );
    await ada.validate().catch(() => undefined);
    await expect(world.host.settled()).rejects.toMatchObject({ code: "integrity" });
    expect(failures.length).toBe(1);
    await world.host.close();
  });

  test("the relay dies at any write, before or after it is done, and the run ends with the same bits", async () => {
    const whole = await runThrough(Infinity, "before");
    expect(whole.deaths).toBe(0);
    expect(whole.digests.length).toBe(3);
    expect(whole.writes).toBeGreaterThan(20);
    for (let n = 1; n <= whole.writes; n += 1) {
      for (const when of ["before", "after"] as const) {
        const broken = await runThrough(n, when);
        const { deaths, digests, verdicts } = broken;
        const same = { digests: whole.digests, verdicts: whole.verdicts };
        expect({ n, when, deaths, digests, verdicts }).toEqual({ n, when, deaths: 1, ...same });
      }
    }
  });
});

/** A store whose n-th write fails, before or after it is done; `written` counts them. */
function failing(store: Store, n: number, when: "before" | "after", counter: { writes: number }): Store {
  const guard = async <T>(write: () => Promise<T>): Promise<T> => {
    counter.writes += 1;
    const dies = counter.writes === n;
    if (dies && when === "before") {
      throw new Error("the relay dies before a write");
    }
    const result = await write();
    if (dies) {
      throw new Error("the relay dies after a write");
    }
    return result;
  };
  return {
    ...store,
    log: { ...store.log, append: (after, entries) => guard(() => store.log.append(after, entries)) },
    blobs: {
      ...store.blobs,
      put: (bytes, digest) => guard(() => store.blobs.put(bytes, digest)),
      delete: (digest) => guard(() => store.blobs.delete(digest)),
    },
  };
}

/** One contributor takes a run to version 3 on a relay whose n-th write kills it; it is started again at once. */
async function runThrough(n: number, when: "before" | "after") {
  const world = new World();
  const counter = { writes: 0 };
  let deaths = 0;
  const ada = new Actor(world, "ada");
  const up = async (): Promise<void> => {
    for (;;) {
      try {
        await world.start({ store: failing(createMemoryStore({ disk: world.disk }), n, when, counter) });
        return;
      } catch {
        deaths += 1;
      }
    }
  };
  await up();
  let pending: { readonly message: ContributorMessage; readonly id: ContributionId; readonly round: number } | null =
    null;
  for (let turn = 0; turn < 100 && world.host.head().version < 3; turn += 1) {
    try {
      if (ada.closed !== null || turn === 0) {
        await ada.connect();
        if (pending !== null) {
          ada.send(pending.message);
        }
      }
      if (pending !== null && ada.verdictOn(pending.id) !== undefined) {
        pending = null;
      }
      await ada.ready();
      const round = world.host.view().round;
      const given = ada.got.some(
        (one) => one.type === "assign" && one.assignment.type === "train" && one.assignment.round === round,
      );
      if (pending === null && given && world.host.view().phase === "training") {
        pending = { ...(await ada.contribution(pack(honestDelta(ada.base)))), round };
        ada.send(pending.message);
      }
      await world.pass(1_000);
    } catch {
      deaths += 1;
      await up();
    }
  }
  await calm(world.host);
  const chain = await verifyChain(world.disk.entries, { verify });
  expect(chain.ok).toBe(true);
  const events = chain.ok ? chain.value.entries.map(({ event }) => event) : [];
  const merged = events.flatMap((event) => (event.type === "merged" ? event.contributions : []));
  expect(new Set(merged).size).toBe(merged.length);
  const versions = events.flatMap((event) => (event.type === "merged" ? [event.head] : []));
  const verdicts = events.flatMap((event) => (event.type === "judged" ? [event.verdict.type] : []));
  return {
    deaths,
    writes: counter.writes,
    digests: versions.slice(0, 3).map(({ digest }) => digest),
    verdicts: verdicts.slice(0, 3),
  };
}
