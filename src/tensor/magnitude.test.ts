import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { classOf, createMagnitudeSearch, powerOf } from "./magnitude.ts";

const search = createMagnitudeSearch();

function patternsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length).map((bits) => bits & 0x7fffffff);
}

/** Σ (|v| − nearer of the two)². */
function errorOf(values: Float32Array, low: number, high: number): number {
  return values.reduce((sum, value) => {
    const size = Math.abs(value);
    return sum + Math.min((size - 2 ** low) ** 2, (size - 2 ** high) ** 2);
  }, 0);
}

describe("createMagnitudeSearch()", () => {
  test("finds two powers of two whose squared error is within 1% of the least", () => {
    const value = fc.tuple(fc.double({ min: 1, max: 2, noNaN: true }), fc.integer({ min: -8, max: 8 }));
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 30 }), (drawn) => {
        const values = Float32Array.from(drawn, ([mantissa, exponent]) => mantissa * 2 ** exponent);
        const picked = Uint16Array.from(values, (_, i) => i);
        const patterns = patternsOf(values);
        const { low, high, split } = search(patterns, picked, values.length);
        let least = Infinity;
        for (let b = -10; b <= 11; b += 1) {
          for (let a = -10; a <= b; a += 1) {
            least = Math.min(least, errorOf(values, a, b));
          }
        }
        let error = 0;
        values.forEach((size, i) => {
          const exponent = low < high && classOf(patterns[i] as number) >= split ? high : low;
          error += (size - powerOf(exponent)) ** 2;
        });
        expect(error).toBeLessThanOrEqual(least * 1.01);
      }),
    );
  });

  test("uses one magnitude when all values are the same power of two", () => {
    expect(search(patternsOf(Float32Array.of(0.25, -0.25)), Uint16Array.of(0, 1), 2)).toMatchObject({
      low: 125,
      high: 125,
    });
  });

  test("stays within normal f32 at both ends", () => {
    const { low, high } = search(
      patternsOf(Float32Array.of(2 ** -126, 3.4028234663852886e38)),
      Uint16Array.of(0, 1),
      2,
    );
    expect([powerOf(low), powerOf(high)]).toEqual([2 ** -126, 2 ** 127]);
  });
});
