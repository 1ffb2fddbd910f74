import { array, assert, double, integer, oneof, property } from "fast-check";
import { expect, test } from "vitest";
import { insert, lowerMedian, sortedOf } from "./sorted.ts";

const numbers = array(oneof(integer({ min: 0, max: 9 }), double({ noNaN: true })), { maxLength: 600 });

test("insert() gives what sortedOf() gives of all, in whatever order they come, and leaves what it was given", () => {
  assert(
    property(numbers, (values) => {
      const ascending = values.toSorted((a, b) => a - b);
      let sorted = sortedOf([]);
      for (const [i, value] of values.entries()) {
        const next = insert(sorted, value);
        expect(sorted.size).toBe(i);
        sorted = next;
      }
      expect(sorted.runs.flat().map(Number)).toEqual(ascending);
      expect(sortedOf(values).runs.flat()).toEqual(ascending);
      expect(Math.max(0, ...sorted.runs.map((run) => run.length))).toBeLessThanOrEqual(128);
      expect(lowerMedian(sorted)).toBe(ascending[(values.length - 1) >> 1] ?? 0);
      expect(lowerMedian(sortedOf(values))).toBe(lowerMedian(sorted));
    }),
    { numRuns: 30 },
  );
});
