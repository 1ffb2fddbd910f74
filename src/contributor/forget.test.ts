import { expect, test } from "vitest";
import { digestOf, floatBytes, type Digest } from "../base/bytes.ts";
import { createMemoryDisk, createMemoryStore, type MemoryDisk } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { forgetEarlierRuns } from "./forget.ts";
import { EMPTY_PAGE, notebookKey, openNotebook, type Page } from "./notebook.ts";

const [first, second] = ["a".repeat(64) as Digest, "b".repeat(64) as Digest];

function pageOf(value: number): Page {
  const params = new Float32Array(8).fill(value);
  return {
    ...EMPTY_PAGE,
    base: { digest: digestOf(floatBytes(params)), params },
    residual: new Float32Array(8).fill(-value),
  };
}

/** A device takes part in `run` at `origin` on what is in `store`: reads its notebook, has its text, forgets, writes a page. */
async function takePart(
  store: Store,
  { run, origin = "", value }: { run: Digest; origin?: string; value: number },
): Promise<Page> {
  const notebook = openNotebook(store, run);
  const page = await notebook.read();
  const text = await store.blobs.put(Uint8Array.of(value));
  await forgetEarlierRuns(store, { run, origin, blobs: new Set([...notebook.names(), text]) });
  await notebook.write(pageOf(value));
  return page;
}

const keysOf = ({ values }: MemoryDisk): string[] => [...values.keys()].sort();

test("forgetEarlierRuns() leaves of earlier runs nothing, and of the present one all", async () => {
  const disk = createMemoryDisk();
  const store = createMemoryStore({ disk });
  await store.keys.set("tuning/x", Uint8Array.of(1));
  await takePart(store, { run: first, value: 1 });
  expect(await takePart(store, { run: first, value: 2 })).toEqual(pageOf(1));
  expect(disk.blobs.size).toBe(3); // the first text is no longer the charter's
  expect(await takePart(store, { run: second, value: 3 })).toEqual(EMPTY_PAGE);
  expect(await takePart(store, { run: second, value: 3 })).toEqual(pageOf(3));
  expect(disk.blobs.size).toBe(3);
  const key = notebookKey(second);
  expect(keysOf(disk)).toEqual([key, `${key}/stored`, "tuning/x"]);
});

test("forgetEarlierRuns() leaves another relay's run, and blobs while there is one", async () => {
  const disk = createMemoryDisk();
  const store = createMemoryStore({ disk });
  await takePart(store, { run: first, origin: "https://a", value: 1 });
  await takePart(store, { run: second, origin: "https://b", value: 2 });
  expect(await takePart(store, { run: first, origin: "https://a", value: 1 })).toEqual(pageOf(1));
  expect(await takePart(store, { run: second, origin: "https://b", value: 2 })).toEqual(pageOf(2));
  expect(disk.blobs.size).toBe(6);
  await takePart(store, { run: "c".repeat(64) as Digest, origin: "https://b", value: 3 });
  expect(await openNotebook(store, second).read()).toEqual(EMPTY_PAGE);
  expect(await openNotebook(store, first).read()).toEqual(pageOf(1));
});

test.each([
  ["a ledger", (store: Store) => store.log.append(0, [Uint8Array.of(1)])],
  ["data sets", (store: Store) => store.keys.set("dataset/books", Uint8Array.of(1))],
])("forgetEarlierRuns() leaves a store that holds %s as it is", async (_, fill) => {
  const disk = createMemoryDisk();
  const store = createMemoryStore({ disk });
  await takePart(store, { run: first, value: 1 });
  await fill(store);
  const [keys, blobs] = [keysOf(disk), disk.blobs.size];
  await forgetEarlierRuns(store, { run: second, origin: "", blobs: new Set() });
  expect([keysOf(disk), disk.blobs.size]).toEqual([keys, blobs]);
});

test("forgetEarlierRuns() that dies at any write loses nothing of the present run, and goes on at the next start", async () => {
  for (let writes = 0, died = true; died; writes += 1) {
    const disk = createMemoryDisk();
    const store = createMemoryStore({ disk });
    await takePart(store, { run: first, value: 1 });
    await openNotebook(store, second).write(pageOf(2));
    let left = writes;
    const mortal =
      <A extends unknown[], R>(write: (...args: A) => Promise<R>) =>
      (...args: A): Promise<R> => {
        left -= 1;
        return left < 0 ? Promise.reject(new Error("dead")) : write(...args);
      };
    const { keys, blobs } = store;
    const dying: Store = {
      ...store,
      keys: { ...keys, set: mortal(keys.set), delete: mortal(keys.delete) },
      blobs: { ...blobs, delete: mortal(blobs.delete) },
    };
    const present = { run: second, origin: "", blobs: new Set([...disk.blobs.keys()].slice(-2)) };
    died = await forgetEarlierRuns(dying, present).then(
      () => false,
      () => true,
    );
    expect(await takePart(store, { run: second, value: 2 }), `${writes} writes`).toEqual(pageOf(2));
    expect(keysOf(disk).some((key) => key.includes(first))).toBe(false);
    expect(disk.blobs.size).toBe(3);
    expect(writes).toBeLessThan(20);
  }
});
