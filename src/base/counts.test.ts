import { expect, test } from "vitest";
import { createCounts } from "./counts.ts";

test("createCounts() counts each key apart, forgets those that are gone, and null at once", () => {
  const counts = createCounts();
  counts.add("a");
  counts.add("a");
  counts.add("b");
  counts.add(null);
  expect([counts.of("a"), counts.of("b"), counts.of("c"), counts.of(null), counts.size]).toEqual([2, 1, 0, 0, 2]);
  counts.remove("a");
  counts.remove("b");
  counts.remove("b"); // once too often
  counts.remove(null);
  expect([counts.of("a"), counts.of("b"), counts.of(null), counts.size]).toEqual([1, 0, 0, 1]);
});
