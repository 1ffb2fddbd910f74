/** The tuner on kernels that take a made-up time, on a clock that only they move. */
import { expect, test } from "vitest";
import { assert, AssertionError, HeddleError } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import type { InTurn } from "../base/turn.ts";
import type { Program } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import type { AnyRung, Trial } from "./trials.ts";
import { createTuner, tune, type Search, type TunerOptions } from "./tuner.ts";

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

/** What every run takes beside its ops. */
const FENCE_MS = 0.5;

function options(
  msOf: (rung: AnyRung, program: string) => number,
  msMax: number,
  {
    fenceMs = () => FENCE_MS,
    tickMs,
    ...faults
  }: Faults & { readonly fenceMs?: () => number; readonly tickMs?: number | undefined } = {},
) {
  const state = { ms: 0, compiled: [] as string[], alive: new Set<AnyRung>(), aliveMost: 0, submitMsMax: 0 };
  const tried = new Map<Trial, readonly AnyRung[]>();
  const chosen: TunerOptions = {
    candidates: (subject) =>
      subject.startsWith("attention") ? ["flash-16", "flash-64"] : ["tiled-64x64", "register", "blocks-8x4"],
    tried,
    keep: async (trial, rungs) => void tried.set(trial, rungs),
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
      let disposed = false;
      return {
        kernels: [rung === faults.alias ? "tiled-64x64" : rung],
        write: (_, values) => {
          sum += Float32Array.from(values).reduce((all, value) => all + Math.abs(value), 0);
        },
        repeat: async (times) => {
          assert(!disposed, "It was disposed of");
          state.submitMsMax = Math.max(state.submitMsMax, msOf(rung, name) * times);
          const tookMs = fenceMs() + msOf(rung, name) * times;
          state.ms += tickMs === undefined ? tookMs : Math.ceil(tookMs / tickMs) * tickMs;
        },
        run: async () => {
          state.ms += fenceMs() + msOf(rung, name);
          const value = sum + (faults.wrong?.rung === rung ? faults.wrong.by * sum : 0);
          return Object.fromEntries(outputs.map((output) => [output, Float32Array.of(value)])) as never;
        },
        [Symbol.dispose]: () => {
          disposed = true;
          state.alive.delete(rung);
        },
      };
    },
    usable: () => faults.lost !== true,
    msMax,
    nowMs: () => state.ms,
  };
  /** The fastest rung by subject. */
  const found = async (program: Program, changed: Partial<TunerOptions> = {}): Promise<Record<string, unknown>> => {
    await tune(program, { ...chosen, ...changed });
    return Object.fromEntries([...tried].map(([trial, [rung]]) => [trial.split(" ")[0], rung]));
  };
  return { state, chosen, tried, found };
}

test("tune() takes the fastest candidate for each form, on its largest product", async () => {
  const { state, found } = options((rung, name) => {
    const fast = name.endsWith("nt") ? "blocks-8x4" : "register";
    return rung === fast ? 2 : 5;
  }, 1e5);
  expect(await found(program())).toEqual({ nn: "register", nt: "blocks-8x4" });
  expect(state.compiled[0]).toBe("tuning nn [16,64] tiled-64x64");
  expect(state.compiled.length).toBe(6);
});

test("tune() takes the fastest candidate for attention and for the way back, on the largest", async () => {
  const { state, found } = options((rung, name) => {
    const fast = name.endsWith("Backward") ? "flash-16" : "flash-64";
    return rung === fast ? 2 : 5;
  }, 1e5);
  expect(await found(attentionProgram())).toEqual({ attention: "flash-64", attentionBackward: "flash-16" });
  expect(state.compiled).toEqual([
    "tuning attentionBackward [128,8] flash-16",
    "tuning attentionBackward [128,8] flash-64",
    "tuning attention [128,8] flash-16",
    "tuning attention [128,8] flash-64",
  ]);
});

test("tune() does not time a candidate that comes out as the same kernels as an earlier one", async () => {
  const { state, found } = options((rung) => (rung === "register" ? 1 : 5), 1e5, { alias: "register" });
  expect(await found(program())).toEqual({ nn: "tiled-64x64", nt: "tiled-64x64" });
  expect(state.alive.size).toBe(0);
});

test("tune() keeps its budget but for the candidate it is at, and decides among those it tried", async () => {
  const { state, found } = options(() => 20, 100);
  expect(await found(program())).toEqual({ nn: "tiled-64x64" });
  expect(state.compiled.length).toBe(1);
  expect(state.ms).toBeLessThan(200);
});

test("tune() tries one candidate for the dearest form where the time is over before it begins", async () => {
  const { state, found } = options(() => 1, 1);
  // Every look at the clock takes longer than there is time.
  expect(await found(program(), { nowMs: () => (state.ms += 10) })).toEqual({ nn: "tiled-64x64" });
  expect(state.compiled).toEqual(["tuning nn [16,64] tiled-64x64"]);
});

test("tune() leaves out a candidate whose numbers are not the first one's, on inputs that are not zero", async () => {
  const msOf = (rung: AnyRung): number => (rung === "blocks-8x4" ? 2 : 5);
  for (const [by, fastest] of [
    [2e-3, "tiled-64x64"],
    [NaN, "tiled-64x64"],
    [1e-5, "blocks-8x4"],
  ] as const) {
    const { state, found } = options(msOf, 1e5, { wrong: { rung: "blocks-8x4", by } });
    expect([by, await found(program())]).toEqual([by, { nn: fastest, nt: fastest }]);
    expect(state.alive.size).toBe(0);
  }
});

test("tune() leaves out a candidate that is refused, and rejects once the device is gone", async () => {
  const msOf = (rung: AnyRung): number => (rung === "tiled-64x64" ? 2 : 5);
  const { found } = options(msOf, 1e5, { refused: "tiled-64x64" });
  expect(await found(program())).toEqual({ nn: "register", nt: "register" });
  const lost = options(msOf, 1e5, { refused: "register", lost: true });
  await expect(lost.found(program())).rejects.toThrow("does not compile");
  expect(lost.state.alive.size).toBe(0);
});

test("tune() disposes of candidates that are hopeless before it compiles the next one", async () => {
  const slower: Partial<Record<AnyRung, number>> = { "tiled-64x64": 20, register: 2, "blocks-8x4": 20 };
  const { state, found } = options((rung) => slower[rung] ?? 0, 1e5);
  expect(await found(program())).toEqual({ nn: "register", nt: "register" });
  expect(state.aliveMost).toBe(2);
  expect(state.alive.size).toBe(0);
});

test.each<[string, number[], number?]>([
  ["a candidate is three hundred times slower than the first", [0.01, 3, 0.9]],
  ["a candidate is thousands of times slower than the first", [0.01, 79, 4]],
  ["a candidate is ten thousand times slower than the first", [0.01, 130, 9]],
  ["each takes most of that", [150, 180, 120]],
  ["fences come on a tick of 100 ms, for kernels of 49 ms and less", [49, 20, 48], 100],
  ["fences come on a tick of 100 ms, for kernels of a millisecond and twenty", [1, 20, 20], 100],
  ["fences come on a tick of 100 ms, for kernels of twenty milliseconds and one", [20, 1, 20], 100],
  ["fences come on a tick of 100 ms, for kernels of a tenth of a millisecond and 200 times that", [0.1, 20, 0.3], 100],
])("tune() has no submit of more than 200 ms where %s", async (_, times, tickMs) => {
  const rungs = ["tiled-64x64", "register", "blocks-8x4"];
  const { state, found } = options((rung) => times[rungs.indexOf(rung)] ?? 0, 1e5, { tickMs });
  const fastest = rungs[times.indexOf(Math.min(...times))];
  expect(await found(program())).toEqual({ nn: fastest, nt: fastest });
  expect(state.submitMsMax).toBeLessThanOrEqual(200);
});

test("tune() cuts a product that is too large to be read back", async () => {
  const r = record("large");
  r.matmul(r.input("x", [4096, 4]), r.input("w", [4, 65_538]));
  const { state, found } = options(() => 20, 1);
  await found(r.finish([]));
  expect(state.compiled).toEqual(["tuning nn [4,1026] tiled-64x64"]);
});

test("tune() cuts the sums of a product that takes too long, which keeps its name", async () => {
  const r = record("deep");
  r.matmul(r.input("x", [2048, 8195]), r.input("w", [8195, 2048]));
  const { state, tried, found } = options(() => 20, 1);
  await found(r.finish([]));
  expect(state.compiled).toEqual(["tuning nn [67,1024] tiled-64x64"]);
  expect([...tried.keys()]).toEqual(["nn 35"]);
});

test("tune() cuts attention that is too large to be read back or takes too long: batches first, then time", async () => {
  const r = record("long");
  const shape = { batch: 4, time: 6000, heads: 16, kvHeads: 16, headDim: 64 };
  const [q, k, v] = ["q", "k", "v"].map((name) => r.input(name, [24_000, 1024])) as [number, number, number];
  r.attention(q, k, v, shape);
  const { state, found } = options(() => 20, 1);
  await found(r.finish([]));
  expect(state.compiled).toEqual(["tuning attention [375,1024] flash-16"]);
});

test.each([0.45, 2, 15, 103])(
  "tune() finds the fastest of kernels of 10 to 20 µs beside fences of about %d ms",
  async (fenceMs) => {
    const rungs = ["tiled-64x64", "register", "blocks-8x4", "blocks-4x4", "tiled-32x32"] as const;
    const rng = createRng("fences", fenceMs);
    for (let luck = 0; luck < 20; luck += 1) {
      const best = rungs[rng.below(rungs.length)];
      // The next best takes 15 % longer.
      const { found } = options((rung) => (rung === best ? 0.01 : 0.0115 + 0.002 * rungs.indexOf(rung as never)), 1e5, {
        fenceMs: () => fenceMs + 0.5 * (rng.float() - 0.5),
      });
      expect([luck, await found(program(), { candidates: () => rungs })]).toEqual([luck, { nn: best, nt: best }]);
    }
  },
);

test("tune() repeats an op more often when the first candidate was by far the slowest", async () => {
  const msOf = (rung: AnyRung): number => ({ "tiled-64x64": 1, register: 0.012 })[rung as string] ?? 0.01;
  const rng = createRng("slow first");
  const { state, found } = options(msOf, 1e5, { fenceMs: () => 0.5 + 0.5 * rng.float() });
  expect(await found(program())).toEqual({ nn: "blocks-8x4", nt: "blocks-8x4" });
  expect(state.alive.size).toBe(0);
});

test("tune() keeps what it begins before it runs it, and goes on with the rest, beside the fastest so far", async () => {
  const { state, chosen, tried, found } = options((rung) => (rung === "register" ? 20 : 30), 100);
  const small = program();
  await found(small);
  expect([...tried]).toEqual([["nn 13", ["tiled-64x64"]]]);
  // The GPU is lost with the second one.
  const lost: TunerOptions["compile"] = async (alone, tuning) => ({
    ...(await chosen.compile(alone, tuning)),
    run: async () => {
      if (Object.values(tuning)[0] === "register") {
        throw new HeddleError("device-lost", "The GPU went away");
      }
      return {} as never;
    },
  });
  state.ms = 0;
  await expect(found(small, { compile: lost, msMax: 1e5 })).rejects.toThrow("went away");
  expect([...tried]).toEqual([["nn 13", ["tiled-64x64", "register"]]]);
  state.compiled = [];
  await found(small, { msMax: 1e5 });
  expect(tried.get("nn 13")).toEqual(["tiled-64x64", "register", "blocks-8x4"]);
  expect(state.compiled.slice(0, 2)).toEqual(["tuning nn [16,64] tiled-64x64", "tuning nn [16,64] blocks-8x4"]);
  state.compiled = [];
  await found(small, { msMax: 1e5 });
  expect(state.compiled).toEqual([]);
});

test("tune() ends where there is no room for a candidate, and tries it the next time", async () => {
  const { state, chosen, tried, found } = options(() => 20, 1e5);
  const kept: string[] = [];
  const keep: TunerOptions["keep"] = async (trial, rungs) => {
    kept.push(rungs.join());
    await chosen.keep(trial, rungs);
  };
  let room = 1;
  const compile: TunerOptions["compile"] = async (alone, tuning) => {
    room -= 1;
    if (room < 0) {
      throw new HeddleError("model-too-big", "It needs 2.0 MiB beside the Plans that are there");
    }
    return chosen.compile(alone, tuning);
  };
  await expect(found(program(), { compile, keep })).rejects.toThrow("beside the Plans");
  expect(kept).toEqual(["tiled-64x64", "tiled-64x64,register", "tiled-64x64"]);
  expect(state.alive.size).toBe(0);
  // What is tried already, and the guess, are compiled at every start.
  await expect(found(program(), { compile, keep })).rejects.toThrow("beside the Plans");
  expect([...tried]).toEqual([["nn 13", ["tiled-64x64"]]]);
  await found(program());
  expect(tried.get("nn 13")).toEqual(["tiled-64x64", "register", "blocks-8x4"]);
});

test("tune() keeps the fastest so far first when the device is lost with a later candidate", async () => {
  const { chosen, tried, found } = options((rung) => (rung === "register" ? 5 : 20), 1e5);
  const compile: TunerOptions["compile"] = async (alone, tuning) => ({
    ...(await chosen.compile(alone, tuning)),
    ...(Object.values(tuning)[0] === "blocks-8x4"
      ? { run: () => Promise.reject(new HeddleError("device-lost", "The GPU went away")) }
      : {}),
  });
  await expect(found(program(), { compile })).rejects.toThrow("went away");
  expect([...tried]).toEqual([["nn 13", ["register", "tiled-64x64", "blocks-8x4"]]]);
});

test.each(["tiled-64x64", "register", "blocks-8x4"] as const)(
  "tune() takes the fastest, %s, although the device stood still when it was timed first",
  async (fastest) => {
    const { state, chosen, found } = options((rung) => (rung === fastest ? 10 : 20), 1e5);
    const compile: TunerOptions["compile"] = async (alone, tuning) => {
      const plan = await chosen.compile(alone, tuning);
      let stallMs = Object.values(tuning)[0] === fastest ? 3_000 : 0;
      const repeat = async (times: number): Promise<void> => {
        state.ms += stallMs;
        stallMs = 0;
        await plan.repeat(times);
      };
      return { ...plan, repeat };
    };
    expect(await found(program(), { compile })).toEqual({ nn: fastest, nt: fastest });
    expect(state.alive.size).toBe(0);
  },
);

test("tune() takes none whose numbers are NaN, even if it is the first one", async () => {
  const wrong = { rung: "tiled-64x64", by: NaN } as const;
  const { state, found } = options((rung) => (rung === "tiled-64x64" ? 1 : rung === "register" ? 2 : 5), 1e5, {
    wrong,
  });
  expect(await found(program())).toEqual({ nn: "register", nt: "register" });
  expect(state.alive.size).toBe(0);
});

const candidates = () => ["register", "blocks-8x4"] as const;
const timeless = { msMax: 1e5, nowMs: () => 0 };

test("createTuner() gives all searches one budget, and what they wait for does not count", async () => {
  let ms = 0;
  const given: number[] = [];
  const search: Search = async (_, { msMax }) => {
    given.push(msMax);
    ms += 1_500;
    if (given.length === 2) {
      throw new HeddleError("device-wrong", "The GPU refused its work");
    }
  };
  const inTurn: InTurn = (work) => {
    ms += 7_000;
    return work();
  };
  const tuner = createTuner({ candidates, search, inTurn, msMax: 2_000, nowMs: () => ms });
  for (const rows of [8, 64, 512, 4_096]) {
    const r = record("sized");
    r.matmul(r.input("x", [rows, 16]), r.input("w", [16, 64]));
    await tuner.learn(r.finish([]));
  }
  expect(given).toEqual([2_000, 500]);
});

test("createTuner() searches where candidates are left, each trial once, and tells what is tried", async () => {
  const searches: string[][] = [];
  const told: string[] = [];
  const search: Search = async (_, { tried, keep }) => {
    searches.push([...tried.keys()]);
    await keep("nn 13", ["blocks-8x4"]);
  };
  const given = new Map([["nt 9", ["register", "blocks-8x4"]]] as const);
  const onTried = async (tried: ReadonlyMap<string, readonly string[]>) => void told.push([...tried.keys()].join());
  const tuner = createTuner({ ...timeless, given, candidates, search, onTried });
  const few = record("few");
  few.matmul(few.input("x", [8, 16]), few.input("w", [4, 16]), { transB: true });
  await tuner.learn(few.finish([]));
  expect(searches).toEqual([]);
  await Promise.all([tuner.learn(program()), tuner.learn(program())]);
  expect(searches).toEqual([["nt 9"]]);
  expect(told).toEqual(["nt 9,nn 13"]);
  expect(tuner.tuningFor(program())).toEqual({ nt: "register", nn: "blocks-8x4" });
});

test("createTuner() tells the trial last that was tried last", async () => {
  const given = new Map([
    ["nn 13", ["register"]],
    ["nt 9", ["register", "blocks-8x4"]],
  ] as const);
  const search: Search = (_, { keep }) => keep("nn 13", ["register", "blocks-8x4"]);
  const tuner = createTuner({ ...timeless, given, candidates, search });
  await tuner.learn(program());
  expect([...tuner.tried().keys()]).toEqual(["nt 9", "nn 13"]);
});

test("createTuner() takes for one size what was fastest for the nearest, and searches for its own", async () => {
  let searches = 0;
  const given = new Map([
    ["nn 9", ["register", "blocks-8x4"]],
    ["nn 20", ["blocks-8x4", "register"]],
  ] as const);
  const tuner = createTuner({ ...timeless, given, candidates, search: async () => void (searches += 1) });
  for (const [rows, rung] of [
    [2, "register"],
    [4_096, "blocks-8x4"],
  ] as const) {
    const r = record("sized");
    r.matmul(r.input("x", [rows, 16]), r.input("w", [16, 64]));
    expect([rows, tuner.tuningFor(r.finish([]))]).toEqual([rows, { nn: rung }]);
    await tuner.learn(r.finish([]));
  }
  expect(searches).toBe(2);
});

test("createTuner() takes the guess where the search rejects, but for what was found before", async () => {
  let searches = 0;
  const search: Search = async (_, { keep }) => {
    searches += 1;
    await keep("nn 13", ["register"]);
    throw new HeddleError("device-lost", "The GPU went away");
  };
  const tuner = createTuner({ ...timeless, candidates, search });
  await tuner.learn(program());
  await tuner.learn(program());
  expect([searches, tuner.tuningFor(program())]).toEqual([1, { nn: "register" }]);
});

test("createTuner() takes no mistake of its own for the device's", async () => {
  const tuner = createTuner({ ...timeless, candidates, search: () => Promise.reject(new AssertionError("a mistake")) });
  await expect(tuner.learn(program())).rejects.toThrow("a mistake");
});
