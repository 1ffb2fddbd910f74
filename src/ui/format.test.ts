import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatAgo, formatBytes, formatCount, formatLoss, formatPlural, formatShare, formatShort } from "./format.ts";

describe("formatting", () => {
  test("formatCount() groups thousands and keeps one decimal only below ten", () => {
    expect(formatCount(1_234.4)).toBe("1,234");
    expect(formatCount(3.14)).toBe("3.1");
    expect(formatCount(7)).toBe("7");
    expect(formatCount(Number.NaN)).toBe("–");
  });

  test("formatShort() rolls over to the next unit instead of showing 1000", () => {
    expect(formatShort(999.4)).toBe("999");
    expect(formatShort(999.6)).toBe("1\u00a0k");
    expect(formatShort(999_600)).toBe("1\u00a0M");
    expect(formatShort(12_345)).toBe("12.3\u00a0k");
  });

  test("formatBytes() writes decimal units", () => {
    expect(formatBytes(0)).toBe("0\u00a0B");
    expect(formatBytes(1_234_567)).toBe("1.23\u00a0MB");
    expect(formatBytes(Number.NaN)).toBe("–");
  });

  test("formatAgo() never says 60 minutes or 24 hours, and a future time is now", () => {
    expect(formatAgo(0, 44_000)).toBe("just now");
    expect(formatAgo(0, 46_000)).toBe("1\u00a0min ago");
    expect(formatAgo(0, 3_569_000)).toBe("59\u00a0min ago");
    expect(formatAgo(0, 3_600_000)).toBe("1\u00a0h ago");
    expect(formatAgo(0, 84_599_000)).toBe("23\u00a0h ago");
    expect(formatAgo(0, 86_400_000)).toBe("1\u00a0d ago");
    expect(formatAgo(10_000, 0)).toBe("just now");
  });

  test("formatLoss(), formatShare() and formatPlural() read as written", () => {
    expect(formatLoss(2.31449)).toBe("2.314");
    expect(formatLoss(Number.POSITIVE_INFINITY)).toBe("–");
    expect(formatShare(0.05)).toBe("5\u00a0%");
    expect(formatPlural(1, "contributor", "contributors")).toBe("1 contributor");
    expect(formatPlural(0, "contributor", "contributors")).toBe("0 contributors");
  });

  test("every formatter returns a short, non-empty text for any number", () => {
    fc.assert(
      fc.property(fc.double(), (value) => {
        for (const text of [formatShort(value), formatBytes(value), formatShare(value), formatAgo(value, 0)]) {
          expect(text.length).toBeGreaterThan(0);
        }
        expect(formatShort(Math.abs(value) % 1e15).length).toBeLessThanOrEqual(9);
      }),
    );
  });
});
