import { expect, test } from "vitest";
import { digestOf } from "../base/bytes.ts";
import { createStop } from "../base/stop.ts";
import { createVirtualClock, type VirtualClock } from "../sim/clock.ts";
import { acquireLease, closeLease, LEASE_MS, lookAtLease, openLease, type Lease } from "./lease.ts";
import { createMemoryStore } from "./memory.ts";
import type { Keys, Store } from "./store.ts";

interface Waiting {
  readonly lease: Promise<Lease>;
  /** Once it is held. */
  held: Lease | null;
  readonly waitedFor: string[];
}

function wait(keys: Keys, clock: VirtualClock, holder: string): Waiting {
  const waitedFor: string[] = [];
  const lease = acquireLease({ keys, key: "lease", clock, holder, onWait: (other) => waitedFor.push(other) });
  const waiting: Waiting = { lease, held: null, waitedFor };
  void lease.then((held) => {
    waiting.held = held;
  });
  return waiting;
}

async function pass(clock: VirtualClock, ms: number): Promise<void> {
  const until = clock.nowMs() + ms;
  clock.after(ms, () => undefined);
  await clock.run(until, () => false);
}

/** A store whose process has died: nothing that it asks for happens any more. */
function mortal(store: Store): { readonly keys: Keys; die(): void } {
  let alive = true;
  return {
    keys: {
      ...store.keys,
      compareAndSet: (...args) => (alive ? store.keys.compareAndSet(...args) : new Promise(() => undefined)),
    },
    die: () => {
      alive = false;
    },
  };
}

test("acquireLease() gives the lease to one, and to the next within LEASE_MS and a poll after its holder died", async () => {
  const [clock, store] = [createVirtualClock(), createMemoryStore()];
  const first = mortal(store);
  const ada = wait(first.keys, clock, "ada");
  await pass(clock, 10);
  const [bob, cy] = [wait(store.keys, clock, "bob"), wait(store.keys, clock, "cy")];
  await pass(clock, 20 * LEASE_MS);
  expect([ada.held?.epoch, bob.held, cy.held]).toEqual([1, null, null]);
  expect([bob.waitedFor, cy.waitedFor]).toEqual([["ada"], ["ada"]]);
  first.die();
  await pass(clock, LEASE_MS + 250);
  const [next, other] = bob.held === null ? [cy, bob] : [bob, cy];
  expect([next.held?.epoch, other.held]).toEqual([2, null]);
  await pass(clock, 20 * LEASE_MS);
  expect(other.held).toBeNull();
});

test("release() hands the lease over at the next poll, and the epoch goes on", async () => {
  const [clock, { keys }] = [createVirtualClock(), createMemoryStore()];
  const ada = wait(keys, clock, "ada");
  await pass(clock, 10);
  const bob = wait(keys, clock, "bob");
  await pass(clock, 5_000);
  await ada.held?.release();
  await pass(clock, 250);
  expect(bob.held?.epoch).toBe(2);
  await bob.held?.release();
  const again = wait(keys, clock, "ada");
  await pass(clock, 10);
  expect(again.held?.epoch).toBe(3);
});

test("a holder that was held up learns that it was deposed, and release() leaves the lease to the other", async () => {
  const [clock, store] = [createVirtualClock(), createMemoryStore()];
  let held: (() => void) | null = () => undefined;
  const slow: Keys = {
    ...store.keys,
    compareAndSet: async (...args) => {
      if (args[1] !== undefined && held !== null) {
        await new Promise<void>((go) => {
          held = go;
        });
      }
      return store.keys.compareAndSet(...args);
    },
  };
  const ada = wait(slow, clock, "ada");
  await pass(clock, 10);
  const bob = wait(store.keys, clock, "bob");
  await pass(clock, LEASE_MS + 1_000);
  expect(bob.held?.epoch).toBe(2);
  const go = held;
  held = null;
  go();
  expect(await ada.held?.lost).toBe("another process leads this run now; epoch 1 is over");
  await ada.held?.release();
  await pass(clock, 5_000);
  const cy = wait(store.keys, clock, "cy");
  await pass(clock, 5_000);
  expect([cy.held, cy.waitedFor]).toEqual([null, ["bob"]]);
});

test("a store that was away does not depose the holder that it kept from renewing", async () => {
  const [clock, store] = [createVirtualClock(), createMemoryStore()];
  let away: Promise<void> = Promise.resolve();
  const keys: Keys = {
    ...store.keys,
    get: async (key) => away.then(() => store.keys.get(key)),
    compareAndSet: async (...args) => away.then(() => store.keys.compareAndSet(...args)),
  };
  const ada = wait(keys, clock, "ada");
  await pass(clock, 10);
  const bob = wait(keys, clock, "bob");
  await pass(clock, 5_000);
  const { promise, resolve: back } = Promise.withResolvers<void>();
  away = promise;
  await pass(clock, 10 * LEASE_MS);
  back();
  await pass(clock, 10 * LEASE_MS);
  expect([ada.held?.epoch, bob.held]).toEqual([1, null]);
});

test("acquireLease() refuses a key that holds something else", async () => {
  const [clock, { keys }] = [createVirtualClock(), createMemoryStore()];
  for (const text of ["no lease", "null", '{"epoch":-1,"holder":null,"beat":0}', '{"epoch":1,"holder":1,"beat":0}']) {
    await keys.set("lease", new TextEncoder().encode(text));
    await expect(acquireLease({ keys, key: "lease", clock, holder: "ada" })).rejects.toMatchObject({
      code: "integrity",
    });
  }
});

test("a lease that is closed is had by nobody until it is opened, and goes on after the epoch that was said then", async () => {
  const [clock, { keys }] = [createVirtualClock(), createMemoryStore()];
  expect(await lookAtLease(keys, "lease")).toEqual({ type: "new" });
  const [filledTo, other] = [digestOf(Uint8Array.of(1)), digestOf(Uint8Array.of(2))];
  const why = `the restore of a backup, whose last ledger entry is ${filledTo}, is under way here or was interrupted; run again, it goes on`;
  expect(await closeLease(keys, "lease", filledTo)).toBe(true);
  expect(await closeLease(keys, "lease", filledTo)).toBe(false);
  expect(await lookAtLease(keys, "lease")).toEqual({ type: "closed", filledTo, why });
  const refused = acquireLease({ keys, key: "lease", clock, holder: "ada" });
  await expect(refused).rejects.toMatchObject({ code: "store", message: `Cannot lead the run: ${why}` });
  expect(await openLease(keys, "lease", { filledTo: other, epoch: 7 })).toBe(false);
  expect(await openLease(keys, "lease", { filledTo, epoch: 7 })).toBe(true);
  expect(await lookAtLease(keys, "lease")).toEqual({ type: "released" });
  const bob = wait(keys, clock, "bob");
  await pass(clock, 10);
  expect(bob.held?.epoch).toBe(8);
  expect(await lookAtLease(keys, "lease")).toEqual({ type: "held", holder: "bob" });
  expect(await closeLease(keys, "lease", filledTo)).toBe(false);
  await bob.held?.release();
});

test("acquireLease() that is stopped has no lease, also where its holder gives it up just then", async () => {
  const [clock, { keys }] = [createVirtualClock(), createMemoryStore()];
  const held = acquireLease({ keys, key: "lease", clock, holder: "ada" });
  await pass(clock, 10);
  const stop = createStop();
  const waiting = expect(acquireLease({ keys, key: "lease", clock, holder: "bob", stop })).rejects.toThrow(
    "this process ends",
  );
  await pass(clock, 1_000);
  stop.abort();
  await (await held).release();
  await waiting;
  await pass(clock, 10 * LEASE_MS);
  expect(await lookAtLease(keys, "lease")).toEqual({ type: "released" });
});
