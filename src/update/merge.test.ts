import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createRng, permutation } from "../base/rng.ts";
import { updateNorm } from "./delta.ts";
import { medianNorm, mergeUpdates, type WeightedUpdate } from "./merge.ts";
import { sparse } from "./samples.fixture.ts";

const one = (id: string, dense: readonly number[], weight = 1): WeightedUpdate => ({
  id,
  update: sparse(dense),
  weight,
});
const free = { parameters: 3, clipToMedian: 0 };

function norm(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

describe("mergeUpdates()", () => {
  test("takes the weighted mean over those who sent an index", () => {
    const merged = mergeUpdates([one("a", [2, 4, 0], 1), one("b", [0, 8, 0], 3)], free);
    expect([...merged]).toEqual([2, 7, 0]);
  });

  test("gives exactly what was sent where there is one sender", () => {
    fc.assert(
      fc.property(
        fc.double({ min: -1e9, max: 1e9, noNaN: true }),
        fc.double({ min: 1e-9, max: 1e9, noNaN: true }),
        (v, w) => {
          expect(mergeUpdates([one("a", [v, 0, 0], w), one("b", [0, 1, 0], 1)], free)[0]).toBe(v === 0 ? 0 : v);
        },
      ),
    );
  });

  test("does not depend on the order of arrival, bit for bit", () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 2, max: 9 }),
        fc.constantFrom(0, 1, 1.5),
        (seed, count, clipToMedian) => {
          const rng = createRng("merge order", seed);
          const updates = Array.from({ length: count }, (_, i) =>
            one(
              `id ${i}`,
              Array.from({ length: 50 }, () => (rng.float() < 0.5 ? 0 : rng.normal() * 10 ** rng.below(5))),
              1 + rng.below(1000),
            ),
          );
          const shuffled = [...permutation(count, rng)].map((i) => updates[i] as WeightedUpdate);
          const options = { parameters: 50, clipToMedian };
          const merged = mergeUpdates(updates, options);
          const bytes = new Uint8Array(merged.buffer);
          expect(new Uint8Array(mergeUpdates(shuffled, options).buffer)).toEqual(bytes);
        },
      ),
    );
  });

  test("bounds what a contributor that shouts can do", () => {
    const rng = createRng("shout");
    const dense = (): number[] => Array.from({ length: 200 }, () => rng.normal());
    const honest = Array.from({ length: 7 }, (_, i) => one(`honest ${i}`, dense()));
    const loud = one(
      "loud",
      dense().map((value) => value * 100),
    );
    const options = { parameters: 200, clipToMedian: 1 };
    const without = norm(mergeUpdates(honest, options));
    const median = medianNorm(honest.map(({ update }) => updateNorm(update)));
    const clipped = norm(mergeUpdates([...honest, loud], options));
    expect(clipped).toBeLessThanOrEqual((7 / 8) * without + median / 8 + 1e-9);
    expect(norm(mergeUpdates([...honest, loud], { parameters: 200, clipToMedian: 0 }))).toBeGreaterThan(5 * clipped);
  });

  test("of two contributors the quieter one bounds the other", () => {
    const merged = mergeUpdates([one("a", [1, 0, 0]), one("b", [0, 1000, 0])], { parameters: 3, clipToMedian: 2 });
    expect([...merged]).toEqual([1, 2, 0]);
  });

  test("empty updates do not count to the median", () => {
    const merged = mergeUpdates([one("a", [0, 0, 0]), one("b", [0, 0, 0]), one("c", [5, 0, 0])], {
      parameters: 3,
      clipToMedian: 1,
    });
    expect([...merged]).toEqual([5, 0, 0]);
    expect([...mergeUpdates([], free)]).toEqual([0, 0, 0]);
  });

  test("repeated ids, useless weights and other lengths are bugs", () => {
    expect(() => mergeUpdates([one("a", [1]), one("a", [1])], { parameters: 1, clipToMedian: 0 })).toThrow(/twice/);
    for (const weight of [0, -1, NaN, Infinity]) {
      expect(() => mergeUpdates([one("a", [1, 0, 0], weight)], free)).toThrow(/weight/);
    }
    expect(() => mergeUpdates([one("a", [1])], free)).toThrow(/need 3/);
  });
});

test("medianNorm() takes the smaller of two middle ones", () => {
  expect(medianNorm([4, 0, 1, 3, 2])).toBe(2);
  expect(medianNorm([3, 1, 2])).toBe(2);
  expect(medianNorm([0])).toBe(0);
});
