import { describe, expect, test } from "vitest";
import type { Outputs } from "../tensor/engine.ts";
import { createTwin } from "../tensor/twin.ts";
import { climb, engineRung, type Rung } from "./ladder.ts";
import { attentionWork, matmulWork } from "./works.ts";

/** A clock that goes on by 50 ms each time it is read. */
function ticking(): () => number {
  let ms = 0;
  return () => (ms += 50);
}

/** The twin, all of whose outputs are off by `error`. */
function twinRung(label: string, error = 0): Rung {
  const rung = engineRung(label, createTwin());
  return {
    ...rung,
    compile: async (program) => {
      const plan = await rung.compile(program);
      return { ...plan, run: async (outputs) => shifted(await plan.run(outputs), error) };
    },
  };
}

function shifted<Name extends string>(outputs: Outputs<Name>, by: number): Outputs<Name> {
  const entries = Object.entries<Float32Array>(outputs);
  return Object.fromEntries(
    entries.map(([name, values]) => [name, values.map((value) => value + by)]),
  ) as Outputs<Name>;
}

describe("climb()", () => {
  test("measures right rungs and calls a wrong one wrong, for every family of works", async () => {
    const works = [matmulWork({ m: 40, n: 36, k: 20 }), attentionWork(33, "forward"), attentionWork(33, "backward")];
    const rungs = [twinRung("right"), twinRung("wrong", 0.01)];
    const readings = await climb(works, () => rungs, { nowMs: ticking(), rounds: 3 });
    const of = (work: string) =>
      readings.filter((reading) => reading.work === work).map(({ rung, type }) => [rung, type]);
    for (const { name } of works) {
      expect(of(name)).toEqual([
        ["wrong", "wrong"],
        ["right", "measured"],
      ]);
    }
    // One run takes one tick: 2·40·36·20 FLOP in 50 ms.
    const [first] = readings.filter(({ type }) => type === "measured");
    expect(first).toEqual({ work: "matmul 40×36×20", rung: "right", type: "measured", rate: 57_600 / 50e6, spread: 0 });
  });

  test("skips what one dispatch would take too long for, by the speed at the smaller size", async () => {
    const works = [matmulWork({ m: 8, n: 8, k: 8 }), matmulWork({ m: 80, n: 80, k: 80 })];
    const slow = { ...twinRung("slow"), gpu: true };
    const readings = await climb(works, () => [slow], { nowMs: ticking(), rounds: 1, submitMsMax: 200 });
    expect(readings.map(({ type }) => type)).toEqual(["measured", "skipped"]);
    expect(readings[1]).toMatchObject({ detail: "one dispatch would take about 50000 ms" });
  });

  test("goes on when a rung fails, and stops when it is told to", async () => {
    const works = [matmulWork({ m: 4, n: 4, k: 4 }), matmulWork({ m: 8, n: 8, k: 8 })];
    const broken: Rung = { label: "broken", gpu: true, compile: () => Promise.reject(new Error("no such kernel")) };
    const signal = { aborted: false };
    const onWork = (_work: unknown, index: number): void => {
      signal.aborted = index === 1;
    };
    const rungs = [broken, twinRung("right")];
    const readings = await climb(works, () => rungs, { nowMs: ticking(), rounds: 1, signal, onWork });
    expect(readings).toMatchObject([
      { work: "matmul 4×4×4", rung: "broken", type: "failed", detail: "no such kernel" },
      { work: "matmul 4×4×4", rung: "right", type: "measured" },
    ]);
  });
});
