/** The self-test must pass on an engine that is right and refuse one that is a little wrong; the twin plays both. */
import { describe, expect, test } from "vitest";
import type { Engine, Outputs } from "../tensor/engine.ts";
import { createTwin } from "../tensor/twin.ts";
import { createWasmEngine } from "../wasm/engine.ts";
import { largestDifference, selfTest } from "./self-test.ts";

/** An engine with one output's readings changed. */
function thatReads<E extends Engine>(engine: E, output: string, change: (value: number, i: number) => number): E {
  return {
    ...engine,
    compile: async (program) => {
      const plan = await engine.compile(program);
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
  const refusal = {
    code: "device-wrong",
    message: expect.stringContaining('"first grads" of "gain" is off by 1.0e+0'),
  };
  await expect(selfTest(thatReads(createTwin(), "grads", () => 0))).rejects.toMatchObject(refusal);
});

test("selfTest() refuses gradients of one matrix that are 1 % off, however small they are beside others", async () => {
  // Keys lie behind the table and the queries.
  const [from, to] = [36 * 32 + 32 * 32, 36 * 32 + 32 * 32 + 16 * 32];
  const off = thatReads(createTwin(), "grads", (value, i) => (i >= from && i < to ? 1.01 * value : value));
  for (const storage of ["f32", "f16"] as const) {
    const refusal = { code: "device-wrong", message: expect.stringContaining('"first grads" of "k" is off by 1.0e-2') };
    await expect(selfTest(off, { storage })).rejects.toMatchObject(refusal);
  }
});

test("selfTest() refuses a loss that is not a number", async () => {
  await expect(selfTest(thatReads(createTwin(), "loss", () => Number.NaN))).rejects.toMatchObject({
    code: "device-wrong",
  });
});

describe("selfTest() on a real GPU", () => {
  /** The WASM engine, which is right, and fast enough for what only GPUs compute. */
  const gpu = async () => ({ ...(await createWasmEngine({ threads: 1 })), kind: "webgpu" as const, software: false });

  test("passes on one that computes right at a model's size, too, with heads of any width", async () => {
    using engine = await gpu();
    await expect(selfTest(engine)).resolves.toBeUndefined();
    await expect(selfTest(engine, { headDim: 20 })).resolves.toBeUndefined();
  });

  test.each([
    ["one element of a tile that fills its place", "product 1152", 256 * 1152 - 1, 'op "matmul" (nt, 256×1152×1024)'],
    ["one of a tile at the edge", "product 508", 507, 'op "matmul" (nt, 256×508×1024)'],
    ["one of a sum that is cut", "product 36", 36 * 200, 'op "matmul" (nt, 256×36×1024)'],
    [
      "one of attention, in the second block of rows",
      "attended",
      100 * 128,
      'op "attention" ("attended", D 64, T 160)',
    ],
    ["one of attention's gradients", "dk", 100 * 64, 'op "attentionBackward" ("dk", D 64, T 160)'],
  ])("refuses one that is wrong in %s", async (_, output, at, where) => {
    using engine = await gpu();
    const off = thatReads(engine, output, (value, i) => (i === at ? 2 * value + 1 : value));
    const refusal = { code: "device-wrong", message: expect.stringContaining(where) };
    await expect(selfTest(off)).rejects.toMatchObject(refusal);
    await expect(selfTest({ ...off, software: true })).resolves.toBeUndefined();
  });
});

test("largestDifference() is relative to the largest element", () => {
  expect(largestDifference(Float32Array.of(1, 9), Float32Array.of(0, 10))).toBeCloseTo(0.1);
  expect(largestDifference(Float32Array.of(0), Float32Array.of(0))).toBe(0);
});
