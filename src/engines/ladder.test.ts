import { describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import type { Outputs } from "../tensor/engine.ts";
import { createTwin } from "../tensor/twin.ts";
import { climb, engineRung, type Rung } from "./ladder.ts";
import { attentionWork, matmulWork } from "./works.ts";

/** A clock that only runs move. */
class Time {
  nowMs = 0;
  readonly now = (): number => this.nowMs;
  /** The twin, each run of which takes `eachMs`, and each submit `fenceMs` besides; all of its outputs are off by `error`. */
  rung(label: string, { error = 0, eachMs = () => 50, fenceMs = () => 0 }: Faults = {}): Rung {
    const rung = engineRung(label, createTwin());
    return {
      ...rung,
      compile: async (program) => {
        const plan = await rung.compile(program);
        const repeat = async (times: number): Promise<void> => {
          this.nowMs += fenceMs() + times * eachMs();
        };
        return { ...plan, repeat, run: async (outputs) => shifted(await plan.run(outputs), error) };
      },
    };
  }
}

interface Faults {
  readonly error?: number;
  readonly eachMs?: () => number;
  readonly fenceMs?: () => number;
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
    const time = new Time();
    const rungs = [time.rung("right"), time.rung("wrong", { error: 0.01 })];
    const readings = await climb(works, () => rungs, { nowMs: time.now, rounds: 3 });
    const of = (work: string) =>
      readings.filter((reading) => reading.work === work).map(({ rung, type }) => [rung, type]);
    for (const { name } of works) {
      expect(of(name)).toEqual([
        ["wrong", "wrong"],
        ["right", "measured"],
      ]);
    }
    // 2·40·36·20 FLOP in 50 ms.
    const [first] = readings.filter(({ type }) => type === "measured");
    expect(first).toEqual({ work: "matmul 40×36×20", rung: "right", type: "measured", rate: 57_600 / 50e6, spread: 0 });
  });

  test("skips what one dispatch would take too long for, by the speed at the smaller size", async () => {
    const works = [matmulWork({ m: 8, n: 8, k: 8 }), matmulWork({ m: 80, n: 80, k: 80 })];
    const time = new Time();
    const slow = { ...time.rung("slow"), gpu: true };
    const readings = await climb(works, () => [slow], { nowMs: time.now, rounds: 1, submitMsMax: 200 });
    expect(readings.map(({ type }) => type)).toEqual(["measured", "skipped"]);
    expect(readings[1]).toMatchObject({ detail: "one dispatch would take about 50000 ms" });
  });

  test.each([0, 0.45, 2, 15, 103])(
    "tells kernels of 10 to 100 µs apart beside fences of about %d ms",
    async (fenceMs) => {
      const time = new Time();
      const rng = createRng("fences", fenceMs);
      const fence = (): number => fenceMs + Math.min(fenceMs, 0.6) * (rng.float() - 0.5);
      const rungs = [0.1, 0.02, 0.012, 0.01].map((ms) => time.rung(`${ms}`, { eachMs: () => ms, fenceMs: fence }));
      const work = matmulWork({ m: 4, n: 4, k: 4 });
      const readings = await climb([work], () => rungs, { nowMs: time.now });
      for (const reading of readings) {
        const rate = work.flops / Number(reading.rung) / 1e6;
        const off = reading.type === "measured" ? Math.abs(reading.rate / rate - 1) : Infinity;
        expect([reading.rung, off < 0.1]).toEqual([reading.rung, true]);
      }
    },
  );

  test("goes on when a rung fails, and stops when it is told to", async () => {
    const works = [matmulWork({ m: 4, n: 4, k: 4 }), matmulWork({ m: 8, n: 8, k: 8 })];
    const broken: Rung = { label: "broken", gpu: true, compile: () => Promise.reject(new Error("no such kernel")) };
    const signal = { aborted: false };
    const onWork = (_work: unknown, index: number): void => {
      signal.aborted = index === 1;
    };
    const time = new Time();
    const rungs = [broken, time.rung("right")];
    const readings = await climb(works, () => rungs, { nowMs: time.now, rounds: 1, signal, onWork });
    expect(readings).toMatchObject([
      { work: "matmul 4×4×4", rung: "broken", type: "failed", detail: "no such kernel" },
      { work: "matmul 4×4×4", rung: "right", type: "measured" },
    ]);
  });
});
