import { expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import type { Bus } from "../store/bus.ts";
import { createMemoryStore } from "../store/memory.ts";
import { readNews, toldLog } from "./news.ts";

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
  expect(await log.append(9, [new Uint8Array(1)])).toBe(false);
  expect(told.map((bytes) => readNews(bytes)?.after)).toEqual([0]);
  expect(await log.length()).toBe(4);
});
