import { expect, test } from "vitest";
import { gpuMemoryLimit } from "./memory.ts";

const MiB = 2 ** 20;
const ANDROID =
  "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36";
const FIREFOX = "Mozilla/5.0 (Android 16; Mobile; rv:153.0) Gecko/153.0 Firefox/153.0";
const IPHONE =
  "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148";
const MAC =
  "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15";
const WINDOWS =
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";

test.each([
  ["an Android phone that tells of 4 GiB", ANDROID, 4, 1024],
  ["one that tells of 8, the most that is told", ANDROID, 8, 2048],
  ["one that tells nothing", FIREFOX, undefined, 768],
  ["an iPhone", IPHONE, undefined, 768],
  ["a laptop with 4 GiB", WINDOWS, 4, 1024],
  ["a desktop with 8 or more, whose GPU may have its own", WINDOWS, 8, Infinity],
  ["a desktop that tells nothing", MAC, undefined, Infinity],
])("gpuMemoryLimit() for %s", (_, userAgent, deviceMemory, expected) => {
  const limit = gpuMemoryLimit({ userAgent, ...(deviceMemory === undefined ? {} : { deviceMemory }) });
  expect(limit / MiB).toBe(expected);
});
