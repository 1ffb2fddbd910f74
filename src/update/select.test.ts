import * as fc from "fast-check";
import { expect, test } from "vitest";
import { CHUNK } from "./format.ts";
import { updateValues } from "./samples.fixture.ts";
import { createSelector, selectBySorting } from "./select.ts";

test("createSelector() picks what sorting picks, zeros apart", () => {
  const select = createSelector(CHUNK);
  const picked = new Uint16Array(CHUNK);
  fc.assert(
    fc.property(updateValues(), fc.integer({ min: 1, max: CHUNK }), (all, keep) => {
      const values = all.subarray(0, CHUNK);
      const patterns = new Uint32Array(values.buffer, 0, values.length).map((bits) => bits & 0x7fffffff);
      const count = select(patterns, values.length, keep, picked);
      const wanted = selectBySorting(values, keep).filter((i) => values[i] !== 0);
      expect([...picked.subarray(0, count)]).toEqual(wanted);
    }),
    { numRuns: 200 },
  );
});
