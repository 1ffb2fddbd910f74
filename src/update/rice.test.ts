import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  createBitReader,
  createBitWriter,
  alignWriter,
  overrun,
  putBits,
  putUnary,
  takeBits,
  takeUnary,
} from "./bits.ts";
import { bestRice, isBestRice } from "./rice.ts";

const gapLists = fc.array(fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 4095 })), {
  minLength: 1,
  maxLength: 50,
});

test("bestRice() is the smallest parameter with the fewest bits, and isBestRice() accepts it alone", () => {
  fc.assert(
    fc.property(gapLists, (list) => {
      const gaps = Uint16Array.from(list);
      const costs = Array.from({ length: 13 }, (_, r) => list.reduce((sum, gap) => sum + (gap >>> r) + 1 + r, 0));
      const best = costs.indexOf(Math.min(...costs));
      expect(bestRice(gaps, gaps.length)).toBe(best);
      for (let r = 0; r < 16; r += 1) {
        expect(isBestRice(gaps, gaps.length, r)).toBe(r === best);
      }
    }),
  );
});

test("takeBits() and takeUnary() read what putBits() and putUnary() wrote", () => {
  const item = fc.oneof(
    fc.integer({ min: 0, max: 4095 }).map((zeros) => ({ zeros, count: 0, value: 0 })),
    fc
      .tuple(fc.integer({ min: 0, max: 24 }), fc.nat())
      .map(([count, n]) => ({ zeros: -1, count, value: n % 2 ** count })),
  );
  fc.assert(
    fc.property(fc.array(item, { maxLength: 60 }), (items) => {
      const writer = createBitWriter(1);
      for (const { zeros, count, value } of items) {
        if (zeros >= 0) {
          putUnary(writer, zeros);
        } else {
          putBits(writer, value, count);
        }
      }
      alignWriter(writer);
      const reader = createBitReader(writer.bytes.subarray(0, writer.length), 0);
      for (const { zeros, count, value } of items) {
        expect(zeros >= 0 ? takeUnary(reader, 4095) : takeBits(reader, count)).toBe(zeros >= 0 ? zeros : value);
      }
      expect(overrun(reader)).toBe(false);
      takeBits(reader, 24);
      expect(overrun(reader)).toBe(true);
    }),
  );
});

test("takeUnary() gives up at its limit and past the end", () => {
  expect(takeUnary(createBitReader(Uint8Array.of(0, 0, 0, 1), 0), 23)).toBe(-1);
  expect(takeUnary(createBitReader(Uint8Array.of(0, 0, 0, 1), 0), 24)).toBe(24);
  expect(takeUnary(createBitReader(new Uint8Array(0), 0), 4095)).toBe(-1);
});
