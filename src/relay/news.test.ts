import { encode } from "@msgpack/msgpack";
import { expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import type { Bus } from "../store/bus.ts";
import { createMemoryStore } from "../store/memory.ts";
import { joinNews, readNews, toldLog } from "./news.ts";

test("toldLog() tells what fits the bus and its own limit, and appends all of it", async () => {
  const told: Bytes[] = [];
  const bus = {
    payloadBytesMax: 66_000,
    publish: (_: string, bytes: Bytes) => told.push(bytes),
  } as unknown as Bus;
  const log = toldLog(createMemoryStore().log, bus);
  expect(await log.append(0, [new Uint8Array(1_000), new Uint8Array(2)])).toBe(true);
  expect(await log.append(2, [new Uint8Array(65_999)])).toBe(true); // fits, but not with what is said about it
  expect(await log.append(3, [new Uint8Array(300_000)])).toBe(true);
  expect(await log.append(4, Array(5_000).fill(Uint8Array.of(1)))).toBe(true); // too many to be read
  expect(await log.append(9, [new Uint8Array(1)])).toBe(false);
  expect(told.map((bytes) => readNews(bytes)?.after)).toEqual([0]);
  expect(await log.length()).toBe(5_004);
});

test("joinNews() makes one of those that follow each other", () => {
  const entries = (...bytes: number[]): Bytes[] => bytes.map((byte) => Uint8Array.of(byte));
  const news = [
    { after: 3, entries: entries(3) },
    { after: 4, entries: entries(4, 5) },
    { after: 7, entries: entries(7) },
    { after: 6, entries: entries(6) },
    { after: 7, entries: entries(7) },
  ];
  expect(joinNews(news)).toEqual([
    { after: 3, entries: entries(3, 4, 5) },
    { after: 7, entries: entries(7) },
    { after: 6, entries: entries(6, 7) },
  ]);
  expect(news[0]?.entries.length, "what was given stays what it was").toBe(1);
  expect(
    joinNews([
      { after: 0, entries: [] },
      { after: 0, entries: Array(200_000).fill(Uint8Array.of(1)) },
    ])[0]?.entries.length,
  ).toBe(200_000);
});

test("readNews() is null for what announces more than is there, before memory is taken for it", () => {
  const nested = Array.from({ length: 100 }, () => [0xdd, 0x01, 0xc9, 0xc3, 0x80]).flat(); // arrays of 30 million, in each other
  expect(readNews(Uint8Array.from(nested))).toBeNull();
  expect(readNews(Uint8Array.of(0x81, 0xc0, 0xc0)), "what has a place and no meaning").toBeNull();
  expect(readNews(encode([3, Array(5_000).fill(Uint8Array.of(1))]))).toBeNull();
  expect(readNews(encode([3, [Uint8Array.of(1)]]))).toEqual({ after: 3, entries: [Uint8Array.of(1)] });
});
