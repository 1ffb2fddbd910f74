import { describe, expect, test } from "vitest";
import { concatBytes, type Bytes } from "../base/bytes.ts";
import { countingBytes } from "./examples.ts";
import { readLedger, writeLedger } from "./ledger-file.ts";

/** A file asks nothing of its entries but their length. */
const ENTRIES: readonly Bytes[] = [300, 1, 256, 5_000, 5, 90, 41].map((length, i) => countingBytes(length, i));

async function* inPieces(bytes: Bytes, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) {
    yield bytes.subarray(at, at + size);
  }
}

async function* streamOf(all: readonly Bytes[]): AsyncGenerator<Bytes> {
  yield* all;
}

async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const value of values) {
    all.push(value);
  }
  return all;
}

const fileOf = async (all: readonly Bytes[]): Promise<Bytes> => concatBytes(await collect(writeLedger(streamOf(all))));

describe("readLedger()", () => {
  test("inverts writeLedger(), however the file is cut into pieces", async () => {
    const file = await fileOf(ENTRIES);
    for (const size of [7, 100, file.length]) {
      expect(await collect(readLedger(inPieces(file, size)))).toEqual(ENTRIES);
    }
  });

  test("refuses what is no ledger file, ends early, or announces more than an entry may have", async () => {
    const file = await fileOf(ENTRIES);
    const read = (bytes: Bytes): Promise<unknown> => collect(readLedger(inPieces(bytes, 64)));
    await expect(read(new Uint8Array())).rejects.toThrow('does not begin with "heddle ledger 1"');
    await expect(read(countingBytes(500))).rejects.toThrow('does not begin with "heddle ledger 1"');
    await expect(read(file.slice(0, -1))).rejects.toThrow("ends in the middle of entry 6");
    const huge = file.slice();
    huge.set([255, 255, 255, 255], 16);
    await expect(read(huge)).rejects.toThrow("entry 0 is said to have 4294967295 bytes, need 1 to 1048576");
    const none = file.slice();
    none.set([0, 0, 0, 0], 16);
    await expect(read(none)).rejects.toThrow("entry 0 is said to have 0 bytes");
  });
});
