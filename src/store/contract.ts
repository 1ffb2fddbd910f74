/**
 * What every Store does, as cases that run anywhere: under the test runner for memory and files, inside a browser page for
 * IndexedDB. A case throws when the store breaks its promise.
 */
import { assert, HeddleError, type ErrorCode } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import { digestOf, equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { KEY_CHARS_MAX, type Store } from "./store.ts";

/** A fresh, empty place where stores can be opened, one after the other. */
export interface StorePlace {
  /** Opens the store of this place with blobs of at most CONTRACT_BLOB_BYTES_MAX. */
  open(): Promise<Store>;
  /** Overwrites the stored bytes of a blob with zeros, behind the store's back. */
  damage(digest: Digest): Promise<void>;
}

export interface StoreCase {
  readonly name: string;
  run(place: StorePlace): Promise<void>;
}

export const CONTRACT_BLOB_BYTES_MAX = 1_500_000;

export const STORE_CASES: readonly StoreCase[] = [
  {
    name: "log.append() adds all entries in order and read() returns them after a reopen",
    run: async (place) => {
      let store = await place.open();
      assert((await store.log.length()) === 0, "Expected an empty log");
      assert(await store.log.append(0, [bytes(1), bytes(2, 3)]), "Expected the first append to be taken");
      assert(await store.log.append(2, [bytes(), bytes(4)]), "Expected the second append to be taken");
      store = await reopen(store, place);
      assert((await store.log.length()) === 4, "Expected 4 entries");
      same(await store.log.read(0, 10), [bytes(1), bytes(2, 3), bytes(), bytes(4)]);
      same(await store.log.read(1, 2), [bytes(2, 3), bytes()]);
      same(await store.log.read(1, 0), []);
      same(await store.log.read(4, 5), []);
      await store.close();
    },
  },
  {
    name: "log.append() at another length than the log has changes nothing and resolves to false",
    run: async (place) => {
      const store = await place.open();
      assert(await store.log.append(0, [bytes(1)]), "Expected the append to be taken");
      assert(!(await store.log.append(0, [bytes(9)])), "Expected a repeated append to be refused");
      assert(!(await store.log.append(2, [bytes(9)])), "Expected an append past the end to be refused");
      same(await store.log.read(0, 10), [bytes(1)]);
      await store.close();
    },
  },
  {
    name: "log.append() lets exactly one of many simultaneous writers win",
    run: async (place) => {
      const store = await place.open();
      const wins = await Promise.all([1, 2, 3, 4, 5].map((i) => store.log.append(0, [bytes(i), bytes(i)])));
      assert(wins.filter(Boolean).length === 1, `Expected 1 winner, got ${wins.filter(Boolean).length}`);
      const [first, second, ...more] = await store.log.read(0, 10);
      same([first as Bytes], [second as Bytes]);
      assert(more.length === 0, "Expected the losers to have written nothing");
      await store.close();
    },
  },
  {
    name: "keys.set(), get(), delete() and list() agree, also after a reopen",
    run: async (place) => {
      let store = await place.open();
      await store.keys.set("b/2", bytes(2));
      await store.keys.set("b/1", bytes(1));
      await store.keys.set("a", bytes());
      await store.keys.set("b/ü", bytes(7));
      await store.keys.set("b/1", bytes(1, 1));
      await store.keys.delete("b/2");
      await store.keys.delete("never set");
      store = await reopen(store, place);
      same([(await store.keys.get("b/1")) as Bytes, (await store.keys.get("a")) as Bytes], [bytes(1, 1), bytes()]);
      assert((await store.keys.get("b/2")) === undefined, "Expected a deleted key to be absent");
      assert((await store.keys.list("b/")).join() === "b/1,b/ü", "Expected the keys under b/, sorted");
      assert((await store.keys.list("")).join() === "a,b/1,b/ü", "Expected all keys, sorted");
      await store.close();
    },
  },
  {
    name: "keys.compareAndSet() sets only over the expected value and lets one of many win",
    run: async (place) => {
      const { keys, close } = await place.open();
      assert(!(await keys.compareAndSet("k", bytes(1), bytes(2))), "Expected an absent key to refuse a value");
      const wins = await Promise.all([1, 2, 3, 4].map((i) => keys.compareAndSet("k", undefined, bytes(i))));
      assert(wins.filter(Boolean).length === 1, `Expected 1 winner, got ${wins.filter(Boolean).length}`);
      const present = (await keys.get("k")) as Bytes;
      assert(present[0] === wins.indexOf(true) + 1, "Expected the winner's value");
      assert(!(await keys.compareAndSet("k", bytes(99), bytes(5))), "Expected another value to be refused");
      assert(await keys.compareAndSet("k", present, bytes(5)), "Expected the present value to be replaced");
      same([(await keys.get("k")) as Bytes], [bytes(5)]);
      await close();
    },
  },
  {
    name: "keys.compareAndSet() counts right, however many count at once",
    run: async (place) => {
      const { keys, close } = await place.open();
      let counted = 0;
      const count = async (): Promise<void> => {
        for (let turn = 0; turn < 10; turn += 1) {
          const present = await keys.get("count");
          if (await keys.compareAndSet("count", present, bytes((present?.[0] ?? 0) + 1))) {
            counted += 1;
          } else {
            await keys.set("another", bytes(turn));
          }
        }
      };
      await Promise.all([1, 2, 3, 4].map(count));
      same([(await keys.get("count")) as Bytes], [bytes(counted)]);
      await close();
    },
  },
  {
    name: "keys refuse an empty and an overlong name",
    run: async (place) => {
      const store = await place.open();
      await fails("bad-input", store.keys.set("", bytes(1)));
      await fails("limit", store.keys.set("k".repeat(KEY_CHARS_MAX + 1), bytes(1)));
      await store.close();
    },
  },
  {
    name: "blobs.put() names bytes by their SHA-256 and get(), slice(), size() return them after a reopen",
    run: async (place) => {
      const large = random(1_000_003);
      let store = await place.open();
      const digest = await store.blobs.put(large);
      assert(digest === digestOf(large), "Expected the SHA-256 as the name");
      const [again, empty] = await Promise.all([store.blobs.put(large, digest), store.blobs.put(bytes())]);
      assert(again === digest, "Expected the same name for the same bytes");
      store = await reopen(store, place);
      same([(await store.blobs.get(digest)) as Bytes, (await store.blobs.get(empty)) as Bytes], [large, bytes()]);
      same([(await store.blobs.slice(digest, 10, 70_000)) as Bytes], [large.slice(10, 70_000)]);
      same([(await store.blobs.slice(digest, 1_000_000, 2_000_000)) as Bytes], [large.slice(1_000_000)]);
      assert((await store.blobs.size(digest)) === large.length, "Expected the size of the blob");
      assert((await store.blobs.list()).join() === [digest, empty].sort().join(), "Expected both names, sorted");
      await store.close();
    },
  },
  {
    name: "blobs are absent before they are put and after they are deleted",
    run: async (place) => {
      const { blobs, close } = await place.open();
      const digest = digestOf(bytes(1, 2, 3));
      for (let turn = 0; turn < 2; turn += 1) {
        const found = [await blobs.get(digest), await blobs.slice(digest, 0, 1), await blobs.size(digest)];
        assert(
          found.every((value) => value === undefined),
          "Expected no blob",
        );
        await blobs.put(bytes(1, 2, 3));
        await blobs.delete(digest);
        await blobs.delete(digest);
      }
      assert((await blobs.list()).length === 0, "Expected no names");
      await close();
    },
  },
  {
    name: "blobs.get() of a damaged blob rejects with integrity and put() repairs it",
    run: async (place) => {
      let store = await place.open();
      const digest = await store.blobs.put(random(5_000));
      await store.close();
      await place.damage(digest);
      store = await place.open();
      await fails("integrity", store.blobs.get(digest));
      await store.blobs.put(random(5_000));
      same([(await store.blobs.get(digest)) as Bytes], [random(5_000)]);
      await store.close();
    },
  },
  {
    name: "blobs.put() of more than the limit rejects with limit and stores nothing",
    run: async (place) => {
      const store = await place.open();
      await fails("limit", store.blobs.put(new Uint8Array(CONTRACT_BLOB_BYTES_MAX + 1)));
      assert((await store.blobs.list()).length === 0, "Expected no names");
      await store.blobs.put(new Uint8Array(CONTRACT_BLOB_BYTES_MAX));
      await store.close();
    },
  },
  {
    name: "values keep what was given: later changes by the caller are not seen",
    run: async (place) => {
      const { keys, log, close } = await place.open();
      const value = bytes(1);
      await keys.set("k", value);
      await log.append(0, [value]);
      value[0] = 2;
      ((await keys.get("k")) as Bytes)[0] = 3;
      same([(await keys.get("k")) as Bytes, ...(await log.read(0, 1))], [bytes(1), bytes(1)]);
      await close();
    },
  },
  {
    name: "a closed store rejects every call with store, and closes again without complaint",
    run: async (place) => {
      const store = await place.open();
      await store.close();
      await store.close();
      await fails("store", store.log.append(0, [bytes(1)]));
      await fails("store", store.keys.get("k"));
      await fails("store", store.blobs.put(bytes(1)));
    },
  },
];

async function reopen(store: Store, place: StorePlace): Promise<Store> {
  await store.close();
  return place.open();
}

function bytes(...values: readonly number[]): Bytes {
  return Uint8Array.from(values);
}

function random(length: number): Bytes {
  const rng = createRng("store contract", length);
  return Uint8Array.from({ length }, () => rng.below(256));
}

function same(got: readonly Bytes[], expected: readonly Bytes[]): void {
  assert(got.length === expected.length, `Expected ${expected.length} values, got ${got.length}`);
  got.forEach((value, i) => {
    assert(equalBytes(value, expected[i] as Bytes), `Expected value ${i} to be the one that was stored`);
    assert(value.constructor === Uint8Array, `Expected value ${i} to be a plain array: a Buffer's slice() is no copy`);
  });
}

async function fails(code: ErrorCode, call: Promise<unknown>): Promise<void> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert(error instanceof HeddleError && error.code === code, `Expected HeddleError "${code}", got ${String(error)}`);
}
