import { expect, test } from "vitest";
import { createGapWindow, percentile } from "./frames.ts";

test("percentile() is the smallest value that the share does not exceed", () => {
  const values = Array.from({ length: 20 }, (_, i) => 20 - i);
  expect([0, 0.5, 0.95, 1].map((share) => percentile(values, share))).toEqual([1, 10, 19, 20]);
  expect(percentile([], 0.95)).toBeNaN();
});

test("createGapWindow() reads once a second, and a frame that comes too late counts", () => {
  const { add } = createGapWindow();
  const readings: (number | null)[] = [];
  let nowMs = 5;
  readings.push(add(nowMs));
  for (let frame = 1; frame <= 60; frame += 1) {
    nowMs += frame % 10 === 0 ? 40 : 16;
    readings.push(add(nowMs));
  }
  expect(readings.filter((gapMs) => gapMs !== null)).toEqual([40]);
});

test("createGapWindow() waits for a few frames where they are rare", () => {
  const { add } = createGapWindow();
  expect([0, 900, 1800, 2700, 3600].map(add)).toEqual([null, null, null, null, 900]);
});
