/** The tuner on kernels that take a made-up time, on a clock that only they move. */
import { expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { record } from "../tensor/record.ts";
import { createTuner, exportTuning, importTuning, tune, type AnyRung, type TunerOptions } from "./tuner.ts";

/** One small product that is transposed, and two that are not. */
function program() {
  const r = record("products");
  const [x, w] = [r.input("x", [8, 16]), r.input("w", [4, 16])];
  r.matmul(x, w, { transB: true });
  r.matmul(x, r.input("large", [16, 64]));
  r.matmul(x, r.input("small", [16, 4]));
  return r.finish([]);
}

/** Attention of few rows and of many, and the way back through one of them. */
function attentionProgram() {
  const r = record("attention");
  const shape = { batch: 2, heads: 2, kvHeads: 1, headDim: 8 };
  const make = (time: number) => {
    const [rows, keyRows] = [
      [2 * time, 16],
      [2 * time, 8],
    ];
    const [q, k, v] = [r.input(`q ${time}`, rows), r.input(`k ${time}`, keyRows), r.input(`v ${time}`, keyRows)];
    return { q, k, v, out: r.attention(q, k, v, { ...shape, time }), rows, keyRows };
  };
  make(32);
  const { q, k, v, out, rows, keyRows } = make(64);
  const [dq, dk, dv] = [r.value("dq", rows), r.value("dk", keyRows), r.value("dv", keyRows)];
  const delta = r.value("delta", [256]);
  const dout = r.input("dout", rows);
  r.push({ type: "attentionBackward", q, k, v, out, lse: out + 1, dout, delta, dq, dk, dv, ...shape, time: 64 });
  return r.finish([]);
}

/** What candidates do other than take their time. */
interface Faults {
  readonly refused?: AnyRung;
  readonly lost?: boolean;
  /** Adds to every number that this rung computes. */
  readonly wrong?: { readonly rung: AnyRung; readonly by: number };
  /** Comes out as the same kernel as "tiled-64x64". */
  readonly alias?: AnyRung;
}

function options(msOf: (rung: AnyRung, program: string) => number, msMax: number, faults: Faults = {}) {
  const state = { ms: 0, compiled: [] as string[], alive: new Set<AnyRung>(), aliveMost: 0 };
  const chosen: TunerOptions = {
    candidates: (subject) =>
      subject.startsWith("attention") ? ["flash-16", "flash-64"] : ["tiled-64x64", "register", "blocks-8x4"],
    compile: async ({ name, tensors, outputs }, tuning) => {
      const [rung] = Object.values(tuning) as [AnyRung];
      state.compiled.push(`${name} [${tensors[1]?.shape}] ${rung}`);
      state.ms += 50;
      if (rung === faults.refused) {
        throw new HeddleError("device-wrong", "The GPU does not compile the kernel");
      }
      state.alive.add(rung);
      state.aliveMost = Math.max(state.aliveMost, state.alive.size);
      let sum = 0;
      return {
        kernels: [rung === faults.alias ? "tiled-64x64" : rung],
        write: (_, values) => {
          sum += Float32Array.from(values).reduce((all, value) => all + Math.abs(value), 0);
        },
        run: async () => {
          state.ms += msOf(rung, name);
          const value = sum + (faults.wrong?.rung === rung ? faults.wrong.by * sum : 0);
          return Object.fromEntries(outputs.map((output) => [output, Float32Array.of(value)])) as never;
        },
        idle: async () => undefined,
        [Symbol.dispose]: () => void state.alive.delete(rung),
      };
    },
    usable: () => faults.lost !== true,
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
  expect(state.compiled[0]).toBe("tuning nn [16,64] tiled-64x64");
  expect(state.compiled.length).toBe(6);
});

test("tune() takes the fastest candidate for attention and for the way back, on the largest", async () => {
  const { state, chosen } = options((rung, name) => {
    const fast = name.endsWith("Backward") ? "flash-16" : "flash-64";
    return rung === fast ? 2 : 5;
  }, 1e5);
  expect(await tune(attentionProgram(), chosen)).toEqual({ attention: "flash-64", attentionBackward: "flash-16" });
  expect(state.compiled).toEqual([
    "tuning attentionBackward [128,8] flash-16",
    "tuning attentionBackward [128,8] flash-64",
    "tuning attention [128,8] flash-16",
    "tuning attention [128,8] flash-64",
  ]);
});

test("tune() does not time a candidate that comes out as the same kernels as an earlier one", async () => {
  const { state, chosen } = options((rung) => (rung === "register" ? 1 : 5), 1e5, { alias: "register" });
  expect(await tune(program(), chosen)).toEqual({ nn: "tiled-64x64", nt: "tiled-64x64" });
  expect(state.alive.size).toBe(0);
});

test("tune() keeps its budget but for the candidate it is at, and decides among those it tried", async () => {
  const { state, chosen } = options(() => 20, 100);
  expect(await tune(program(), chosen)).toEqual({ nn: "tiled-64x64" });
  expect(state.compiled.length).toBe(1);
  expect(state.ms).toBeLessThan(200);
});

test("tune() tries one candidate for the dearest form where the time is over before it begins", async () => {
  const { state, chosen } = options(() => 1, 1);
  // Every look at the clock takes longer than there is time.
  expect(await tune(program(), { ...chosen, nowMs: () => (state.ms += 10) })).toEqual({ nn: "tiled-64x64" });
  expect(state.compiled).toEqual(["tuning nn [16,64] tiled-64x64"]);
});

test("tune() leaves out a candidate whose numbers are not the first one's, on inputs that are not zero", async () => {
  const msOf = (rung: AnyRung): number => (rung === "blocks-8x4" ? 2 : 5);
  for (const [by, fastest] of [
    [2e-3, "tiled-64x64"],
    [NaN, "tiled-64x64"],
    [1e-5, "blocks-8x4"],
  ] as const) {
    const { state, chosen } = options(msOf, 1e5, { wrong: { rung: "blocks-8x4", by } });
    expect([by, await tune(program(), chosen)]).toEqual([by, { nn: fastest, nt: fastest }]);
    expect(state.alive.size).toBe(0);
  }
});

test("tune() leaves out a candidate that is refused, and rejects once the device is gone", async () => {
  const msOf = (rung: AnyRung): number => (rung === "tiled-64x64" ? 2 : 5);
  const { chosen } = options(msOf, 1e5, { refused: "tiled-64x64" });
  expect(await tune(program(), chosen)).toEqual({ nn: "register", nt: "register" });
  const lost = options(msOf, 1e5, { refused: "register", lost: true });
  await expect(tune(program(), lost.chosen)).rejects.toThrow("does not compile");
  expect(lost.state.alive.size).toBe(0);
});

test("tune() disposes of candidates that are hopeless before it compiles the next one", async () => {
  const slower: Partial<Record<AnyRung, number>> = { "tiled-64x64": 20, register: 2, "blocks-8x4": 20 };
  const { state, chosen } = options((rung) => slower[rung] ?? 0, 1e5);
  expect(await tune(program(), chosen)).toEqual({ nn: "register", nt: "register" });
  expect(state.aliveMost).toBe(2);
  expect(state.alive.size).toBe(0);
});

test("tune() cuts a product that is too large to be read back", async () => {
  const r = record("large");
  r.matmul(r.input("x", [4096, 4]), r.input("w", [4, 65_538]));
  const { state, chosen } = options(() => 20, 1);
  await tune(r.finish([]), chosen);
  expect(state.compiled).toEqual(["tuning nn [4,1026] tiled-64x64"]);
});

test("tune() cuts attention that is too large to be read back: batches first, then time", async () => {
  const r = record("long");
  const shape = { batch: 4, time: 6000, heads: 16, kvHeads: 16, headDim: 64 };
  const [q, k, v] = ["q", "k", "v"].map((name) => r.input(name, [24_000, 1024])) as [number, number, number];
  r.attention(q, k, v, shape);
  const { state, chosen } = options(() => 20, 1);
  await tune(r.finish([]), chosen);
  expect(state.compiled).toEqual(["tuning attention [3000,1024] flash-16"]);
});

test("createTuner() searches for the forms that are not known yet, each once, and adds what it finds", async () => {
  const searches: string[][] = [];
  const tuner = createTuner({ nt: "register" }, async (_, known) => {
    searches.push([...known]);
    return { nn: "blocks-8x4" };
  });
  const few = record("few");
  few.matmul(few.input("x", [8, 16]), few.input("w", [4, 16]), { transB: true });
  await tuner.learn(few.finish([]));
  expect(searches).toEqual([]);
  await Promise.all([tuner.learn(program()), tuner.learn(program())]);
  expect(searches).toEqual([["nt"]]);
  expect(tuner.tuning()).toEqual({ nt: "register", nn: "blocks-8x4" });
});

test("createTuner() takes the guess where the search rejects, and says that nothing was found", async () => {
  let searches = 0;
  const tuner = createTuner(undefined, async () => {
    searches += 1;
    throw new HeddleError("device-lost", "The GPU went away");
  });
  await tuner.learn(program());
  await tuner.learn(program());
  expect([searches, tuner.tuning()]).toEqual([1, undefined]);
});

test("importTuning() takes what exportTuning() wrote for the same adapter, and nothing else", () => {
  const tuning = { nn: "register", nt: "subgroup-8x4", attention: "flash-64", attentionBackward: "rows" } as const;
  const text = exportTuning(tuning, "nvidia ampere");
  expect(importTuning(text, "nvidia ampere")).toEqual(tuning);
  expect(importTuning(text, "apple m3")).toBeUndefined();
  for (const other of [
    "",
    "null",
    "7",
    '{"version":2}',
    // What an earlier version wrote.
    '{"version":1,"adapter":"nvidia ampere","matmul":{"nn":"register"}}',
    text.replace("register", "warp"),
    text.replace("register", "rows"),
    text.replace('"rows"', '"register"'),
    text.replace('"nn"', '"xx"'),
  ]) {
    expect(importTuning(other, "nvidia ampere")).toBeUndefined();
  }
});
