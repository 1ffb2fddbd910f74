/** The tuner on kernels that take a made-up time, on a clock that only they move. */
import { expect, test } from "vitest";
import { record } from "../tensor/record.ts";
import type { MatmulRung } from "./matmul.ts";
import { exportTuning, importTuning, tune, type TunerOptions } from "./tuner.ts";

/** One small product that is transposed, and two that are not. */
function program() {
  const r = record("products");
  const [x, w] = [r.input("x", [8, 16]), r.input("w", [4, 16])];
  r.matmul(x, w, { transB: true });
  r.matmul(x, r.input("large", [16, 64]));
  r.matmul(x, r.input("small", [16, 4]));
  return r.finish([]);
}

function options(msOf: (rung: MatmulRung, program: string) => number, msMax: number) {
  const state = { ms: 0, compiled: [] as string[] };
  const chosen: TunerOptions = {
    candidates: ["tiled", "register", "blocks-8x4"],
    compile: async ({ name, tensors }, rung) => {
      state.compiled.push(`${name} [${tensors[1]?.shape}] ${rung}`);
      state.ms += 50;
      return {
        run: async () => {
          state.ms += msOf(rung, name);
        },
        idle: async () => undefined,
        [Symbol.dispose]: () => undefined,
      };
    },
    msMax,
    nowMs: () => state.ms,
  };
  return { state, chosen };
}

test("tune() takes the fastest candidate for each form, on its largest product", async () => {
  const { state, chosen } = options((rung, name) => {
    const fast = name.endsWith("nt") ? "blocks-8x4" : "register";
    return rung === fast ? 2 : 5;
  }, 1e5);
  expect(await tune(program(), chosen)).toEqual({ nn: "register", nt: "blocks-8x4" });
  expect(state.compiled[0]).toBe("tuning nn [16,64] tiled");
  expect(state.compiled.length).toBe(6);
});

test("tune() keeps its budget but for the candidate it is at, and decides among those it tried", async () => {
  const { state, chosen } = options(() => 20, 100);
  expect(await tune(program(), chosen)).toEqual({ nn: "tiled" });
  expect(state.compiled.length).toBe(1);
  expect(state.ms).toBeLessThan(200);
});

test("importTuning() takes what exportTuning() wrote for the same adapter, and nothing else", () => {
  const tuning = { nn: "register", nt: "subgroup-8x4" } as const;
  const text = exportTuning(tuning, "nvidia ampere");
  expect(importTuning(text, "nvidia ampere")).toEqual(tuning);
  expect(importTuning(text, "apple m3")).toBeUndefined();
  for (const other of [
    "",
    "null",
    "7",
    '{"version":1}',
    text.replace("register", "warp"),
    text.replace('"nn"', '"xx"'),
  ]) {
    expect(importTuning(other, "nvidia ampere")).toBeUndefined();
  }
});
