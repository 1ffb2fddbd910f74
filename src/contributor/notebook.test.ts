import { encode } from "@msgpack/msgpack";
import { expect, test } from "vitest";
import { digestOf, floatBytes, type Digest } from "../base/bytes.ts";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import type { Blobs } from "../store/store.ts";
import { EMPTY_PAGE, openNotebook, type Page } from "./notebook.ts";

const run = "a".repeat(64) as Digest;

/** What the key of an empty page holds. */
const whole = { residual: null, round: 0, made: 0, moments: null, signed: null, late: null, base: null };

/** A notebook on a disk with room for so many blobs. */
function notebookWith(room: number) {
  const disk = createMemoryDisk();
  const store = createMemoryStore({ disk });
  const put: Blobs["put"] = async (bytes, known) => {
    if (disk.blobs.size >= room && !disk.blobs.has(digestOf(bytes))) {
      throw new Error("The disk is full");
    }
    return store.blobs.put(bytes, known);
  };
  return { disk, store, notebook: openNotebook({ ...store, blobs: { ...store.blobs, put } }, run) };
}

function pageOf(value: number): Page {
  const of = (part: number): Float32Array<ArrayBuffer> => new Float32Array(8).fill(value + part);
  const params = of(0);
  const moments = { m: of(0.5), v: of(0.75), t: 1 };
  return { ...EMPTY_PAGE, base: { digest: digestOf(floatBytes(params)), params }, residual: of(0.25), moments };
}

test("a page is read as it was written, and only its blobs are kept", async () => {
  const { disk, notebook } = notebookWith(99);
  for (const value of [1, 2, 2, 3]) {
    await notebook.write(pageOf(value));
  }
  expect(await notebook.read()).toEqual(pageOf(3));
  expect(disk.blobs.size).toBe(4);
});

test("contributions without a verdict are read as they were written, with their payloads", async () => {
  const { disk, notebook } = notebookWith(99);
  const [late, signed] = [1, 2].map((round): NonNullable<Page["signed"]> => {
    const id = digestOf(Uint8Array.of(round)) as string as NonNullable<Page["signed"]>["pending"]["id"];
    const pending = { id, round, baseVersion: round, wireBytes: 9, pieces: 1, steps: 3, loss: 2 };
    return { pending, header: Uint8Array.of(round), signature: Uint8Array.of(3), payload: Uint8Array.of(4, round) };
  }) as [NonNullable<Page["late"]>, NonNullable<Page["signed"]>];
  await notebook.write({ ...pageOf(1), late, signed });
  expect(await notebook.read()).toEqual({ ...pageOf(1), late, signed });
  expect(disk.blobs.size).toBe(6);
  await notebook.write({ ...pageOf(1), late: null, signed });
  expect(disk.blobs.size).toBe(5);
});

test("a disk without room for the base keeps the rest", async () => {
  const { disk, notebook } = notebookWith(3);
  await notebook.write(pageOf(1));
  expect(await notebook.read()).toEqual({ ...pageOf(1), base: null });
  expect(disk.blobs.size).toBe(3);
});

test("a page that cannot be written leaves nothing behind, and the one before as it was", async () => {
  const { disk, notebook } = notebookWith(5);
  await notebook.write(pageOf(1));
  await expect(notebook.write(pageOf(2))).rejects.toThrow("full");
  expect(await notebook.read()).toEqual(pageOf(1));
  expect(disk.blobs.size).toBe(4);
});

test.each([
  ["blobs are written", "put", 3],
  ["the page is written", "page", 4],
  ["what it replaced is deleted", "delete", 4],
] as const)("what a process leaves that dies while %s is deleted at the next start", async (_, at, left) => {
  const { disk, store, notebook } = notebookWith(99);
  await notebook.write(pageOf(1));
  const dead = async (): Promise<never> => new Promise(() => undefined);
  let puts = 0;
  const dying = openNotebook(
    {
      ...store,
      keys: {
        ...store.keys,
        set: async (key, value) => (at === "page" && puts > 0 ? dead() : store.keys.set(key, value)),
      },
      blobs: {
        ...store.blobs,
        put: async (bytes, known) => {
          puts += 1;
          return at === "put" && puts > left ? dead() : store.blobs.put(bytes, known);
        },
        delete: async (digest) => (at === "delete" ? dead() : store.blobs.delete(digest)),
      },
    },
    run,
  );
  await dying.read();
  void dying.write(pageOf(2));
  await expect.poll(() => disk.blobs.size).toBe(4 + left);
  expect(await openNotebook(store, run).read()).toEqual(pageOf(at === "delete" ? 2 : 1));
  expect(disk.blobs.size).toBe(4);
});

test.each([
  ["is no msgpack", new Uint8Array([0xc1, 1, 2])],
  ["is another value", new Uint8Array(encode(null))],
  ["lacks fields", new Uint8Array(encode({ round: 0, made: 0 }))],
  ["names no blob", new Uint8Array(encode({ ...whole, moments: { m: 1, v: "x".repeat(64), t: 1 } }))],
])("a key that is damaged, since it %s, is an empty page", async (_, bytes) => {
  const { store, notebook } = notebookWith(9);
  await store.keys.set(`contributor/${run}/notebook`, bytes);
  expect(await notebook.read()).toEqual(EMPTY_PAGE);
});

test("a page that names a blob of something else is read without it", async () => {
  const { store, notebook } = notebookWith(9);
  const other = await store.blobs.put(new Uint8Array([1, 2, 3]));
  const named = { ...whole, base: other, residual: { digest: other, bits: 64 }, moments: { m: other, v: other, t: 1 } };
  await store.keys.set(`contributor/${run}/notebook`, new Uint8Array(encode({ ...named, made: 7 })));
  expect(await notebook.read()).toEqual({ ...EMPTY_PAGE, made: 7 });
});
