import { expect, test } from "vitest";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { createDeferred } from "../base/deferred.ts";
import { PIECE_BYTES } from "../protocol/limits.ts";
import { DIGEST_BYTES, digestPieces } from "../protocol/pieces.ts";
import { BlobPieces, FAILED_MS, READING_MAX } from "./blob-pieces.ts";

const blob: Bytes = Uint8Array.from({ length: 4 * PIECE_BYTES + 7 }, (_, i) => i % 251);
const name = (number: number): Digest => digestOf(Uint8Array.of(number));

/** A store in which every blob has the same bytes, and how often it was read. */
function counted(slice = async (start: number, end: number): Promise<Bytes | undefined> => blob.slice(start, end)) {
  let reads = 0;
  const blobs = {
    slice: (_: Digest, start: number, end: number) => {
      reads += 1;
      return slice(start, end);
    },
  };
  return { blobs, reads: () => reads };
}

test("BlobPieces.of() reads a blob once, however many ask, and then no more", async () => {
  const { blobs, reads } = counted();
  const pieces = new BlobPieces(blobs);
  const asked = await Promise.all(Array.from({ length: 100 }, () => pieces.of(name(1), blob.length)));
  expect(new Set(asked)).toEqual(new Set([digestPieces(blob, 5)]));
  await pieces.of(name(1), blob.length);
  expect(reads()).toBe(5);
});

test("BlobPieces.of() keeps as many as there is room for, those asked for last", async () => {
  const { blobs, reads } = counted();
  const pieces = new BlobPieces(blobs, { keptBytesMax: 2 * 5 * DIGEST_BYTES });
  for (const number of [1, 2, 1, 3, 1]) {
    await pieces.of(name(number), blob.length);
  }
  expect(reads()).toBe(3 * 5);
  await pieces.of(name(2), blob.length);
  expect(reads()).toBe(4 * 5);
});

test("BlobPieces.of() reads one blob at a time, and refuses when too many wait", async () => {
  const { promise, resolve } = createDeferred<undefined>();
  const { blobs, reads } = counted(async (start, end) => (await promise) ?? blob.slice(start, end));
  const pieces = new BlobPieces(blobs);
  const reading = Array.from({ length: READING_MAX }, (_, number) => pieces.of(name(number), blob.length));
  await expect(pieces.of(name(READING_MAX), blob.length)).rejects.toMatchObject({ code: "limit" });
  expect(reads()).toBe(1);
  resolve(undefined);
  await Promise.all(reading);
  expect(reads()).toBe(READING_MAX * 5);
});

test("BlobPieces.of() does not read a blob that is gone, or cannot be read, again for some seconds", async () => {
  const answers = [async () => undefined, () => Promise.reject(new Error("The disk failed"))];
  const { blobs, reads } = counted((start, end) => (answers.shift() ?? (async () => blob.slice(start, end)))());
  let nowMs = 0;
  const pieces = new BlobPieces(blobs, { nowMs: () => nowMs });
  const ask = () => pieces.of(name(1), blob.length);
  await expect(ask()).resolves.toBe(undefined);
  nowMs += FAILED_MS - 1;
  await expect(ask()).resolves.toBe(undefined);
  expect(reads()).toBe(1);
  nowMs += 1;
  await expect(ask()).rejects.toThrow("The disk failed");
  await expect(ask()).rejects.toThrow("The disk failed");
  expect(reads()).toBe(2);
  nowMs += FAILED_MS;
  await expect(ask()).resolves.toEqual(digestPieces(blob, 5));
});

test("BlobPieces.of() tells whoever has a blob read, and nobody who waits beside it or finds it kept", async () => {
  const { blobs } = counted();
  const pieces = new BlobPieces(blobs);
  const told: string[] = [];
  const ask = (who: string) => pieces.of(name(1), blob.length, () => told.push(who));
  await Promise.all([ask("first"), ask("second")]);
  await ask("third");
  expect(told).toEqual(["first"]);
});
