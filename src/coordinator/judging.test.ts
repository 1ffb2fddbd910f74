import { expect, test } from "vitest";
import type { ContributionId } from "../base/bytes.ts";
import { charter, GOOD, HARMFUL, Stage } from "./stage.fixture.ts";

test("takeMeasurement() after a sleep hands what validators had to the referee, and refuses none of it as busy", () => {
  const stage = new Stage((it) => expect(it.fold()).toEqual(it.state.durable));
  stage.come("ada", "bob", "cyd");
  const ids = ["ada", "bob", "cyd"].map((name) => stage.contribute(name)) as ContributionId[];
  stage.ready("ada", "bob", "cyd");
  stage.report("ada", HARMFUL);
  stage.nowMs += 10 * charter.round.judgeMs;
  stage.measure(stage.measures()[0] as ContributionId, GOOD);
  expect(new Set(stage.measures())).toEqual(new Set(ids));
  stage.measures().forEach((id) => stage.measure(id, GOOD));
  expect(stage.merges()).toEqual([[...ids].sort()]);
});
