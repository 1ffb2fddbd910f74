import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import { CLASS_MAX, CLASS_MIN, classOf, createLevelSearch, levelOf, magnitudeOf, type Levels } from "./magnitude.ts";

const search = createLevelSearch();

function patternsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length).map((bits) => bits & 0x7fffffff);
}

function find(values: Float32Array, bits: number): Levels {
  return search(
    patternsOf(values),
    Uint16Array.from(values, (_, i) => i),
    values.length,
    bits,
  );
}

/** What values are sent as. */
function sentOf(values: Float32Array, levels: Levels, bits: number): number[] {
  const wide = levels.step === 0 ? 0 : 2 ** (levels.step - 1);
  return Array.from(patternsOf(values), (pattern) =>
    magnitudeOf(levels.first + wide * levelOf(classOf(pattern), levels, bits)),
  );
}

const width = fc.constantFrom(1, 2, 3, 4);
const value = fc
  .tuple(fc.double({ min: 1, max: 2, noNaN: true }), fc.integer({ min: -2, max: 2 }))
  .map(([mantissa, exponent]) => mantissa * 2 ** exponent);
const some = fc.array(value, { minLength: 1, maxLength: 30 }).map((values) => Float32Array.from(values));

describe("createLevelSearch()", () => {
  /** The squared error of values sent at the levels that are found, and the least that any levels of this form make. */
  function errorsOf(values: Float32Array, bits: number): { found: number; least: number } {
    const errorOf = (levels: Levels): number => {
      const sent = sentOf(values, levels, bits);
      return values.reduce((sum, size, i) => sum + (size - (sent[i] as number)) ** 2, 0);
    };
    let least = Infinity;
    for (let first = 127 * 16 - 64; first <= 127 * 16 + 64; first += 1) {
      for (let step = bits === 1 ? 0 : 7; step >= 0; step -= 1) {
        least = Math.min(least, errorOf({ first, step }));
      }
    }
    return { found: errorOf(find(values, bits)), least };
  }

  test("finds levels that are the best of this form for values moved by a 32nd of themselves", () => {
    fc.assert(
      fc.property(some, width, (values, bits) => {
        const { found, least } = errorsOf(values, bits);
        // The search takes values as their classes, at most a 32nd away. So the levels it finds and the best are each at most that
        // much farther from the values, as vectors, than from the classes, of which it finds the nearest.
        const moved = Math.sqrt(values.reduce((sum, size) => sum + size ** 2, 0)) / 32;
        expect(Math.sqrt(found)).toBeLessThanOrEqual(Math.sqrt(least) + 2 * moved + 1e-6);
      }),
      { numRuns: 40 },
    );
  });

  test("makes hardly more error in many values than the best levels of this form", () => {
    const rng = createRng("levels");
    for (const bits of [1, 2, 3, 4]) {
      let [found, least] = [0, 0];
      for (let i = 0; i < 40; i += 1) {
        const errors = errorsOf(
          Float32Array.from({ length: 30 }, () => (1 + rng.float()) * 2 ** (rng.below(5) - 2)),
          bits,
        );
        found += errors.found;
        least += errors.least;
      }
      expect(found / least).toBeLessThan(1.02);
    }
  });

  test("makes no error where there are levels without one, and begins them low and far apart", () => {
    const first = fc.integer({ min: 120 * 16, max: 120 * 16 + 15 });
    const levels = fc.array(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(first, fc.integer({ min: 0, max: 3 }), width, levels, (from, shift, bits, drawn) => {
        const used = drawn.map((level) => level % 2 ** (bits - 1));
        const values = Float32Array.from(used, (level) => magnitudeOf(from + (level << shift)));
        const found = find(values, bits);
        expect(sentOf(values, found, bits)).toEqual([...values]);
        const lowest = Math.min(...used);
        expect(found.first).toBe(from + (lowest << shift));
        const any = used.reduce((all, level) => all | (level - lowest), 0);
        expect(found.step).toBe(any === 0 ? 0 : 32 - Math.clz32((any & -any) << shift));
      }),
    );
  });

  test("gives one level to one bit, and to values that are equal", () => {
    expect(find(Float32Array.of(0.25, -0.25), 4)).toEqual({ first: 125 * 16, step: 0 });
    expect(find(Float32Array.of(1, 2, 3), 1)).toEqual({ first: 128 * 16, step: 0 });
  });

  test("stays within normal, finite f32 at both ends", () => {
    for (const bits of [1, 2, 3, 4]) {
      for (const values of [
        [2 ** -126, 3.4028234663852886e38],
        [2 ** -126, 2 ** -125],
        [3.4e38, 3e38, 1e38],
        [2 ** -126],
      ]) {
        const floats = Float32Array.from(values);
        const levels = find(floats, bits);
        expect(levels.first).toBeGreaterThanOrEqual(CLASS_MIN);
        for (const sent of sentOf(floats, levels, bits)) {
          expect(sent).toBeGreaterThanOrEqual(2 ** -126);
          expect(sent).toBeLessThanOrEqual(magnitudeOf(CLASS_MAX));
        }
      }
    }
  });
});
