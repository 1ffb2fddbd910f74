/** Slots of values: nothing that lives at the same time shares one, and memory is really saved. */
import { array, assert, integer, property, tuple } from "fast-check";
import { expect, test } from "vitest";
import { STEP_MODEL as MODEL } from "../engines/task.ts";
import { trainProgram } from "../model/llama.ts";
import { memoryOf } from "../model/memory.ts";
import { elementCount } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { fuse } from "./fuse.ts";
import { assignSlots, valueLifetimes } from "./memory.ts";

test("assignSlots() never lets two lifetimes that overlap share a slot, and every slot is large enough", () => {
  const lifetime = tuple(integer({ min: 1, max: 1000 }), integer({ min: 0, max: 20 }), integer({ min: 0, max: 6 })).map(
    ([bytes, from, length]) => ({ bytes, from, to: from + length }),
  );
  assert(
    property(array(lifetime, { maxLength: 30 }), (lifetimes) => {
      const slots = assignSlots(lifetimes);
      for (const [i, a] of lifetimes.entries()) {
        expect(slots.bytes[slots.of[i] as number]).toBeGreaterThanOrEqual(a.bytes);
        for (const [j, b] of lifetimes.entries()) {
          const together = i !== j && a.from <= b.to && b.from <= a.to;
          expect(together && slots.of[i] === slots.of[j]).toBe(false);
        }
      }
    }),
  );
});

test("assignSlots() needs two slots for a chain of values, however long", () => {
  const r = record("chain");
  let x = r.add(r.input("x", [8]), r.input("y", [8]));
  for (let i = 0; i < 10; i += 1) {
    x = r.add(x, x, r.value("sum", [8]));
  }
  const lifetimes = [...valueLifetimes(r.finish([])).values()];
  expect(assignSlots(lifetimes).bytes).toEqual([32, 32]);
});

test("valueLifetimes() keeps an output to the end", () => {
  const r = record("outputs");
  const x = r.input("x", [8]);
  const early = r.add(x, x, r.value("early", [8]));
  r.add(x, x, r.value("late", [8]));
  const lifetimes = valueLifetimes(r.finish(["early"]));
  expect(lifetimes.get(early)).toEqual({ bytes: 32, from: 0, to: Infinity });
});

test("assignSlots() takes at most 2 % more than what lives at one time in a training step, 4 % with values computed again", () => {
  for (const [most, layers, options] of [
    [1.02, 4, {}],
    [1.02, 4, { accumulate: 4 }],
    [1.02, 12, {}],
    [1.04, 4, { recompute: true }],
    [1.04, 12, { recompute: true }],
  ] as const) {
    const program = trainProgram({ ...MODEL, layers }, 8, options);
    const steps = fuse(program, 8).map((group) => group.flat());
    const slots = assignSlots([...valueLifetimes(program, steps).values()]);
    const inputs = program.tensors.filter(({ role }) => role === "input").map(({ shape }) => 4 * elementCount(shape));
    const bytes = [...slots.bytes, ...inputs].reduce((sum, size) => sum + size, 0);
    expect(bytes / memoryOf(program).valueBytes).toBeLessThan(most);
  }
});
