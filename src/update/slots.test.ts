import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { record } from "../tensor/record.ts";
import { type PackForm, slotWords } from "../tensor/slots.ts";
import { createTwin } from "../tensor/twin.ts";
import { CHUNK } from "./format.ts";
import { packUpdate } from "./pack.ts";
import { updateValues } from "./samples.fixture.ts";
import { joinSlots } from "./slots.ts";

/** The slots of `values` as the twin makes them. */
async function slotsOf(values: Float32Array, form: PackForm): Promise<Uint32Array> {
  const r = record("pack");
  r.pack(r.input("residual", [values.length]), form);
  using twin = createTwin();
  using plan = await twin.compile(r.finish(["slots"]));
  plan.write("residual", values);
  return new Uint32Array((await plan.run(["slots"])).slots.buffer);
}

describe("joinSlots()", () => {
  test("makes the bytes of packUpdate() from the slots of the op pack", async () => {
    const widths = fc.constantFrom<1 | 2 | 3 | 4>(1, 2, 3, 4);
    const keeps = fc.constantFrom(1, 2, 3, 17, 64, 256, 4095, 4096);
    await fc.assert(
      fc.asyncProperty(updateValues(), keeps, widths, async (values, keep, bits) => {
        const joined = joinSlots(await slotsOf(values, { keep, bits }), { parameters: values.length, keep, bits });
        expect(joined).toEqual(packUpdate(values, { keep, bits, beta: 1 }));
      }),
      { numRuns: 60 },
    );
  });

  test("makes nothing of a chunk that is not finite", async () => {
    for (const wrong of [Number.NaN, -Infinity]) {
      const values = new Float32Array(CHUNK + 3).fill(1);
      values[CHUNK + 1] = wrong;
      const form = { keep: 5, bits: 2 };
      expect(joinSlots(await slotsOf(values, form), { parameters: values.length, ...form })).toBeNull();
    }
  });
});

test("slotWords() is enough for gaps that are as dear as gaps can be", async () => {
  for (const [keep, bits] of [1, 2, 63, 64, 256, 1000, 4095].flatMap((n) => [
    [n, 1] as const,
    [n, 2] as const,
    [n, 4] as const,
  ])) {
    // All gaps equal, or all in one: a slot that is too short would not join to the same bytes.
    for (const index of [(i: number) => Math.floor(((i + 1) * CHUNK) / keep) - 1, (i: number) => CHUNK - keep + i]) {
      const values = new Float32Array(CHUNK);
      for (let i = 0; i < keep; i += 1) {
        values[index(i)] = 1 + (i % 2 ** (bits - 1));
      }
      const slots = await slotsOf(values, { keep, bits });
      expect((slots[0] as number) >>> 16).toBeLessThanOrEqual(32 * (slotWords({ keep, bits }) - 1));
      expect(joinSlots(slots, { parameters: CHUNK, keep, bits })).toEqual(packUpdate(values, { keep, bits, beta: 1 }));
    }
  }
});
