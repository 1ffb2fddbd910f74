import { expect, test } from "vitest";
import { record } from "../tensor/record.ts";
import { createTwin } from "../tensor/twin.ts";
import { explainPlans } from "./explain.ts";

test("explainPlans() tells the text of every Plan and leaves the engine as it is", async () => {
  const told: string[] = [];
  using engine = explainPlans(createTwin(), (text) => told.push(text));
  const r = record("sum");
  r.add(r.state("total", [2]), r.input("x", [2]), r.value("sum", [2]));
  using plan = await engine.compile(r.finish(["sum"]));
  expect(told).toEqual([plan.describe()]);
  expect(told[0]).toContain("plan sum\n");
  engine.writeState("total", Float32Array.of(1, 2));
  plan.write("x", Float32Array.of(3, 4));
  expect(await plan.run(["sum"])).toEqual({ sum: Float32Array.of(4, 6) });
});
