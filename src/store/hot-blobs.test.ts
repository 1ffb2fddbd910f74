import { expect, test, vi } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { createHotBlobs } from "./hot-blobs.ts";
import { createMemoryStore } from "./memory.ts";
import type { Blobs } from "./store.ts";

const bytesOf = (fill: number, length = 100): Bytes => new Uint8Array(length).fill(fill);

/** A store's blobs, which count what is asked of them. */
async function world(...contents: Bytes[]) {
  const { blobs } = createMemoryStore();
  const digests = await Promise.all(contents.map((bytes) => blobs.put(bytes)));
  const counted = { size: vi.spyOn(blobs, "size"), get: vi.spyOn(blobs, "get"), slice: vi.spyOn(blobs, "slice") };
  const asked = (): number[] => Object.values(counted).map(({ mock }) => mock.calls.length);
  return { blobs, digests: digests as [Digest, ...Digest[]], asked };
}

/** As it is served. */
async function whole(blobs: Pick<Blobs, "size" | "slice">, digest: Digest): Promise<Bytes | undefined> {
  const size = await blobs.size(digest);
  return size === undefined ? undefined : blobs.slice(digest, 0, size);
}

test("a small blob is read once, however many ask, also at the same moment", async () => {
  const { blobs, digests, asked } = await world(bytesOf(1));
  const hot = createHotBlobs(blobs);
  const served = await Promise.all(Array.from({ length: 9 }, () => whole(hot, digests[0])));
  expect(served).toEqual(Array(9).fill(bytesOf(1)));
  const part = await hot.slice(digests[0], 10, 20);
  expect([part, part?.buffer.byteLength], "and not a view of all of it").toEqual([bytesOf(1, 10), 10]);
  expect(asked(), "and its size comes with its bytes").toEqual([0, 0, 1]);
  const one = await hot.get(digests[0]);
  one?.fill(9);
  expect([await hot.get(digests[0]), asked()], "and nobody changes what is kept").toEqual([bytesOf(1), [0, 0, 1]]);
});

test("what was put is not read again until it was deleted, and what one got is not either", async () => {
  const { blobs, digests, asked } = await world(bytesOf(2));
  const hot = createHotBlobs(blobs, { hotBytesMax: 100 });
  const bytes = bytesOf(1);
  const put = await hot.put(bytes);
  bytes.fill(7);
  expect([await hot.get(put), await whole(hot, put), asked()]).toEqual([bytesOf(1), bytesOf(1), [0, 0, 0]]);
  expect([await hot.get(digests[0]), await whole(hot, digests[0]), asked()[1]]).toEqual([bytesOf(2), bytesOf(2), 1]);
  await hot.delete(put);
  expect([await hot.get(put), await whole(hot, put), await blobs.list()]).toEqual([undefined, undefined, digests]);
  const reading = hot.get(digests[0]);
  await Promise.all([reading, hot.delete(digests[0])]);
  expect(await hot.get(digests[0]), "also where it was being read").toBeUndefined();
  const large = await hot.put(bytesOf(3, 101));
  const before = asked()[1];
  expect([await hot.get(large), asked()[1]]).toEqual([bytesOf(3, 101), (before ?? 0) + 1]);
});

test("a large blob, and one beyond what may be under way, is read slice by slice", async () => {
  const { blobs, digests, asked } = await world(bytesOf(1, 101), bytesOf(2), bytesOf(3));
  const hot = createHotBlobs(blobs, { hotBytesMax: 100, keptBytesMax: 150 });
  const served = await Promise.all(digests.map((digest) => whole(hot, digest)));
  expect(served).toEqual([bytesOf(1, 101), bytesOf(2), bytesOf(3)]);
  expect(asked(), "each begun with a slice").toEqual([3, 1, 5]);
  expect([await whole(hot, digests[2] as Digest), asked()]).toEqual([bytesOf(3), [3, 2, 5]]);
  expect([await whole(hot, digests[0]), asked()]).toEqual([bytesOf(1, 101), [4, 2, 6]]);
});

test("what was not asked for longest makes room", async () => {
  const { blobs, digests, asked } = await world(bytesOf(1), bytesOf(2), bytesOf(3));
  const hot = createHotBlobs(blobs, { keptBytesMax: 200 });
  const [a, b, c] = digests as [Digest, Digest, Digest];
  for (const digest of [a, b, a, c, a]) {
    await whole(hot, digest);
  }
  expect(asked()).toEqual([0, 0, 3]);
  await whole(hot, b);
  expect(asked()).toEqual([0, 1, 3]);
});

test("what is absent or empty is as the store says, and what fails is asked for again", async () => {
  const { blobs, digests, asked } = await world(bytesOf(1), new Uint8Array());
  const hot = createHotBlobs(blobs);
  const absent = digestOf(bytesOf(9));
  expect([await whole(hot, absent), await whole(hot, absent)]).toEqual([undefined, undefined]);
  expect(asked()).toEqual([0, 0, 2]);
  vi.mocked(blobs.slice).mockRejectedValueOnce(new Error("the store is away"));
  await expect(whole(hot, digests[0])).rejects.toThrow("the store is away");
  expect(await whole(hot, digests[0])).toEqual(bytesOf(1));
  expect(await whole(hot, digests[1] as Digest)).toEqual(new Uint8Array());
  expect(await hot.slice(digests[1] as Digest, 0, 5)).toEqual(new Uint8Array());
});

test("what is damaged is served as it is, and whole once it was put again", async () => {
  const { blobs, digests } = await world(bytesOf(1));
  const hot = createHotBlobs(blobs);
  vi.mocked(blobs.get).mockRejectedValueOnce(new HeddleError("integrity", "it was cut off"));
  for (const _ of ["to know its size", "again, as it was not whole", "to serve it"]) {
    vi.mocked(blobs.slice).mockResolvedValueOnce(bytesOf(1, 40));
  }
  expect(await whole(hot, digests[0])).toEqual(bytesOf(1, 40));
  expect(await whole(hot, digests[0])).toEqual(bytesOf(1));
});

test("a size that was not that of the whole is forgotten with its reading", async () => {
  const { blobs, digests } = await world(bytesOf(1), bytesOf(2));
  const hot = createHotBlobs(blobs, { hotBytesMax: 100, keptBytesMax: 150 });
  vi.mocked(blobs.size).mockResolvedValueOnce(40); // put again just after it was asked for
  expect(await whole(hot, digests[0])).toEqual(bytesOf(1, 40));
  await whole(hot, digests[1] as Digest);
  await whole(hot, digests[1] as Digest); // which takes the place of the first
  expect(await hot.size(digests[0])).toBe(100);
});

test("what the store deletes is served while it is kept, and gone where it is not", async () => {
  const { blobs, digests } = await world(bytesOf(1), bytesOf(2, 101));
  const hot = createHotBlobs(blobs, { hotBytesMax: 100 });
  await Promise.all(digests.map((digest) => whole(hot, digest)));
  await Promise.all(digests.map((digest) => blobs.delete(digest)));
  expect(await whole(hot, digests[0])).toEqual(bytesOf(1));
  expect(await whole(hot, digests[1] as Digest)).toBeUndefined();
  expect(await hot.slice(digests[1] as Digest, 7, 7), "as a HEAD asks").toBeUndefined();
});
