import { expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { trainProgram } from "../model/llama.ts";
import { SAMPLE_MODEL } from "../protocol/sample.ts";
import type { Engine } from "../tensor/engine.ts";
import { createTwin } from "../tensor/twin.ts";
import { measureProgram, type MeasureOptions } from "./measure.ts";

test("measureProgram() counts runs per second and leaves every state zero", async () => {
  const model = { ...SAMPLE_MODEL, vocabulary: 16, channels: 16, layers: 1, heads: 2, kvHeads: 1, hidden: 16, time: 8 };
  using engine = createTwin();
  let clockMs = 0;
  const nowMs = (): number => (clockMs += 100);
  const program = trainProgram(model, 1);
  // The clock goes on 100 ms each time it is read: once before, then after each run until 300 ms are over.
  expect(await measureProgram(engine, { program, output: "loss", nowMs })).toBeCloseTo(7.5, 6);
  const plan = await engine.compile(program);
  for (const state of ["params", "m", "v"]) {
    expect((await engine.readState(state)).every((value) => value === 0)).toBe(true);
  }
  plan[Symbol.dispose]();
});

test("measureProgram() measures what takes less memory where the device has no room, and nothing else", async () => {
  const model = { ...SAMPLE_MODEL, vocabulary: 16, channels: 16, layers: 2, heads: 2, kvHeads: 1, hidden: 16, time: 8 };
  const [program, instead] = [trainProgram(model, 1), trainProgram(model, 1, { recompute: true })];
  const measureOn = (code: "model-too-big" | "device-lost", programs: Pick<MeasureOptions, "program" | "instead">) => {
    const twin = createTwin();
    const compile: Engine["compile"] = async (wanted) => {
      if (wanted === program) {
        throw new HeddleError(code, "No");
      }
      return twin.compile(wanted);
    };
    let clockMs = 0;
    const nowMs = (): number => (clockMs += 100);
    return measureProgram({ ...twin, compile }, { ...programs, output: "loss", nowMs });
  };
  expect(await measureOn("model-too-big", { program, instead })).toBeCloseTo(7.5, 6);
  await expect(measureOn("model-too-big", { program })).rejects.toMatchObject({ code: "model-too-big" });
  await expect(measureOn("device-lost", { program, instead })).rejects.toMatchObject({ code: "device-lost" });
});
