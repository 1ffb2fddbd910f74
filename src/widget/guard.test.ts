import { describe, expect, test } from "vitest";
import { clickCounts, visibleSince } from "./guard.ts";

describe("guard", () => {
  test("visibleSince() keeps the first moment and starts over when covered or out of view", () => {
    expect(visibleSince(null, { ratio: 1, uncovered: true }, 10)).toBe(10);
    expect(visibleSince(10, { ratio: 1, uncovered: null }, 20)).toBe(10);
    expect(visibleSince(10, { ratio: 1, uncovered: false }, 20)).toBeNull();
    expect(visibleSince(10, { ratio: 0.5, uncovered: true }, 20)).toBeNull();
  });

  test("clickCounts() wants a person's click on a button seen for half a second in a frame of a minimum size", () => {
    const good = { trusted: true, sinceMs: 0, nowMs: 500, width: 300, height: 200 };
    expect(clickCounts(good)).toBe(true);
    for (const change of [{ trusted: false }, { sinceMs: null }, { nowMs: 499 }, { width: 219 }, { height: 99 }]) {
      expect(clickCounts({ ...good, ...change })).toBe(false);
    }
  });
});
