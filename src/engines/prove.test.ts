import { expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import type { Engine, Plan } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { proveEngine, type ProveOptions } from "./prove.ts";

const program: Program = { name: "p", tensors: [], ops: [], outputs: [] };

/** A device that fails its test with the tunings in `wrong`; every engine's plan is named after its tuning. */
function device(
  tuned: string | undefined,
  wrong: readonly (string | undefined)[],
  code: "device-wrong" | "device-lost",
) {
  const events: string[] = [];
  const options: ProveOptions = {
    tuned,
    create: async (own) => {
      events.push(`create ${own}`);
      return {
        kind: "webgpu",
        device: "fake",
        compile: async () => ({ describe: () => `plan ${own}` }) as Plan,
        [Symbol.dispose]: () => void events.push(`dispose ${own}`),
      } as unknown as Engine;
    },
    test: async (own) => {
      events.push(`test ${own}`);
      if (wrong.includes(own)) {
        throw new HeddleError(code, `The test fails with ${own}`);
      }
    },
    bar: async () => void events.push("bar"),
  };
  return { events, options };
}

test("proveEngine() keeps a tuning that passes", async () => {
  const { events, options } = device("kept", [], "device-wrong");
  const { engine, verdict } = await proveEngine(options);
  expect((await engine.compile(program)).describe()).toBe("plan kept");
  await verdict;
  expect(events).toEqual(["create kept", "test kept"]);
});

test("proveEngine() bars a kept tuning that fails and goes on without it", async () => {
  const { events, options } = device("kept", ["kept"], "device-wrong");
  const { engine } = await proveEngine(options);
  expect((await engine.compile(program)).describe()).toBe("plan undefined");
  expect(events).toEqual(["create kept", "test kept", "bar", "test undefined", "dispose kept", "create undefined"]);
});

test("proveEngine() disposes of the engine of a device that fails, with or without a tuning", async () => {
  for (const [tuned, wrong, code, end] of [
    ["kept", ["kept", undefined], "device-wrong", ["bar", "test undefined", "dispose kept"]],
    [undefined, [undefined], "device-wrong", ["dispose undefined"]],
    ["kept", ["kept"], "device-lost", ["dispose kept"]],
  ] as const) {
    const { events, options } = device(tuned, wrong, code);
    const { engine, verdict } = await proveEngine(options);
    await expect(engine.compile(program)).rejects.toMatchObject({ code });
    await expect(verdict).rejects.toMatchObject({ code });
    expect(events.slice(2)).toEqual(end);
  }
});
