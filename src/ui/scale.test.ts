import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { extent, linear, ticks, linePath } from "./scale.ts";

describe("scale", () => {
  test("linear() and its inverse agree, and an empty range maps to the middle", () => {
    const scale = linear({ from: 2, to: 4, start: 100, end: 0 });
    expect(scale.at(3)).toBe(50);
    expect(scale.inverse(scale.at(2.5))).toBeCloseTo(2.5);
    expect(linear({ from: 1, to: 1, start: 0, end: 10 }).at(1)).toBe(5);
  });

  test("ticks() are round, ascending and inside the range", () => {
    expect(ticks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(ticks(2.31, 2.38, 3)).toEqual([2.32, 2.34, 2.36, 2.38]);
    expect(ticks(0, 2, 5, true)).toEqual([0, 1, 2]);
    const from = fc.double({ min: -1e6, max: 1e6, noNaN: true });
    fc.assert(
      // Spans down to a millionth of the values: below that a double has no digits left to tell ticks apart.
      fc.property(from, fc.double({ min: 1e-6, max: 1e3, noNaN: true }), (start, relative) => {
        const span = relative * Math.max(1, Math.abs(start));
        const found = ticks(start, start + span, 4);
        expect(found.length).toBeLessThanOrEqual(10);
        expect(found.toSorted((a, b) => a - b)).toEqual(found);
      }),
    );
  });

  test("extent() pads, survives one value, none, and values that are not finite", () => {
    expect(extent([1, 3], 0.5)).toEqual({ from: 0, to: 4 });
    expect(extent([2], 0.1)).toEqual({ from: 1.8, to: 2.2 });
    expect(extent([], 0.1)).toEqual({ from: 0, to: 1 });
    expect(extent([Number.NaN, 1, Number.POSITIVE_INFINITY, 2], 0)).toEqual({ from: 1, to: 2 });
  });
});

const lineOf = (values: readonly number[]): string => linePath(values, { width: 300, height: 48 });

describe("linePath()", () => {
  test("draws a line from 0 to the largest value, level where there is one value or none above 0", () => {
    expect(lineOf([0, 5, 10])).toBe("M0.0 48.0L150.0 24.0L300.0 0.0");
    expect(lineOf([7])).toBe("M0.0 0.0H300");
    expect(lineOf([0, 0])).toBe("M0.0 48.0L300.0 48.0");
    expect(lineOf([])).toBe("");
  });

  test("shows the largest of what shares a place, and takes what is no number for 0", () => {
    const values = Array.from({ length: 30_000 }, (_, i) => (i === 15_050 ? 9 : 1));
    const path = lineOf(values);
    expect(path.split("L").length).toBe(300);
    expect(path.match(/ 0\.0/g)?.length).toBe(1);
    expect(lineOf([Number.NaN, 2])).toBe("M0.0 48.0L300.0 0.0");
  });
});
