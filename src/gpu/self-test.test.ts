/** The self-test must pass on an engine that is right and refuse one that is a little wrong; the twin plays both. */
import { expect, test } from "vitest";
import type { Engine, Outputs } from "../tensor/engine.ts";
import { createTwin } from "../tensor/twin.ts";
import { largestDifference, selfTest } from "./self-test.ts";

/** The twin with one output's readings changed. */
function twinThatReads(output: string, change: (value: number) => number): Engine {
  const twin = createTwin();
  return {
    ...twin,
    compile: async (program) => {
      const plan = await twin.compile(program);
      const run = async <Name extends string>(names: readonly Name[] = []) => {
        const outputs = Object.entries(await plan.run<string>(names));
        return Object.fromEntries(
          outputs.map(([name, values]) => [name, name === output ? values.map(change) : values]),
        ) as Outputs<Name>;
      };
      return { ...plan, run, [Symbol.dispose]: () => plan[Symbol.dispose]() };
    },
  };
}

test("selfTest() passes on an engine that computes right", async () => {
  await expect(selfTest(createTwin())).resolves.toBeUndefined();
});

test("selfTest() refuses gradients that are all zero, though the forward pass is right", async () => {
  const refusal = { code: "device-wrong", message: expect.stringContaining('"first grads" is off by 1.0e+0') };
  await expect(selfTest(twinThatReads("grads", () => 0))).rejects.toMatchObject(refusal);
});

test("selfTest() refuses a loss that is not a number", async () => {
  await expect(selfTest(twinThatReads("loss", () => Number.NaN))).rejects.toMatchObject({ code: "device-wrong" });
});

test("largestDifference() is relative to the largest element", () => {
  expect(largestDifference(Float32Array.of(1, 9), Float32Array.of(0, 10))).toBeCloseTo(0.1);
  expect(largestDifference(Float32Array.of(0), Float32Array.of(0))).toBe(0);
});
