import { expect, test } from "vitest";
import { fuzz } from "../fuzz/fuzz.ts";
import { SOCKETS } from "../fuzz/sockets.ts";

test.each(SOCKETS)("$name: malformed input ends its own connection and no other", async (target) => {
  const report = await fuzz(target, { seed: 7, inputs: target.inputsInTest });
  expect(report.failure).toBeNull();
  expect(report.inputs).toBe(target.inputsInTest);
  expect(report.outcomes.size).toBeGreaterThan(1);
});
