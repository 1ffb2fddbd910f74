import { expect, test } from "vitest";
import { enoughRepeats } from "./repeats.ts";

/** Runs of a device with such a fence whose op takes `eachMs`. */
async function tried(fenceMs: number, eachMs: number, more: { readonly hasTime?: () => boolean } = {}) {
  const repeats: number[] = [];
  const found = await enoughRepeats(
    async (count) => {
      repeats.push(count);
      return fenceMs + count * eachMs;
    },
    { workMs: 10, repeatsMax: 1024, ...more },
  );
  return { ...found, tries: repeats };
}

test.each([0, 0.45, 2, 15, 103])(
  "enoughRepeats() works 10 ms at least beside a fence of %d ms, and tells it",
  async (fenceMs) => {
    for (const eachMs of [0.005, 0.01, 0.09, 1, 4, 10, 60]) {
      const { repeats, fenceMs: found, tries } = await tried(fenceMs, eachMs);
      const workedMs = repeats * eachMs;
      expect([eachMs, workedMs >= 9.99 || repeats === 1024]).toEqual([eachMs, true]);
      expect(workedMs).toBeLessThanOrEqual(Math.max(60, eachMs));
      expect(found).toBeCloseTo(fenceMs, 6);
      expect(tries.length).toBeLessThanOrEqual(fenceMs > 100 ? 13 : 6);
      expect(Math.max(...tries) * eachMs).toBeLessThanOrEqual(Math.max(120, eachMs));
    }
  },
);

test.each([16.7, 50, 100, 100.3])(
  "enoughRepeats() has no submit of more than 200 ms where fences come on a tick of %d ms",
  async (tickMs) => {
    for (const eachMs of [0.01, 1, 4, 12, 24, 49, 60, 99, 180]) {
      const works: number[] = [];
      const { repeats } = await enoughRepeats(
        async (count) => {
          works.push(count * eachMs);
          return Math.ceil((0.5 + count * eachMs) / tickMs) * tickMs;
        },
        { workMs: 10, repeatsMax: 1024 },
      );
      expect([eachMs, Math.max(...works) <= 200]).toEqual([eachMs, true]);
      expect([eachMs, repeats * eachMs >= 9.99]).toEqual([eachMs, true]);
    }
  },
);

test("enoughRepeats() runs once what takes long, and where there is no time to look", async () => {
  expect(await tried(1, 500)).toEqual({ repeats: 1, fenceMs: 1, tries: [0, 1] });
  expect(await tried(1, 0.1, { hasTime: () => false })).toMatchObject({ repeats: 1, tries: [0, 1] });
});
