import { expect, test } from "vitest";
import { objectionToAssignment, objectionToCharter, PRIVATE_TERMS, tooLittle } from "./terms.ts";
import { charter, train } from "./walk.fixture.ts";

test("objectionToCharter() refuses exact values, and contributions of few steps or tokens", () => {
  const objection = (change: object): string | null => objectionToCharter({ ...charter, ...change }, PRIVATE_TERMS);
  expect(objection({})).toBeNull();
  expect(objection({ uplink: { ...charter.uplink, bits: 64 } })).toMatch(/exact values/);
  expect(objection({ round: { ...charter.round, stepsMax: 7 } })).toMatch(/7 steps/);
  expect(objection({ inner: { ...charter.inner, batch: 1 }, round: { ...charter.round, stepsMax: 15 } })).toMatch(
    /1920 tokens/,
  );
});

test("objectionToAssignment() holds an assignment to the charter and to the same least", () => {
  const objection = (change: object): string | null =>
    objectionToAssignment({ ...train("t", 1), stepsMax: 100, ...change }, charter, PRIVATE_TERMS);
  expect(objection({ keep: 2_048 })).toBeNull();
  expect(objection({ keep: 2_049 })).toMatch(/2049 values/);
  expect(objection({ stepsMax: 1 })).toMatch(/1 steps/);
});

test("tooLittle() lets what is enough leave", () => {
  expect(tooLittle({ steps: 8, tokens: 2_048 }, PRIVATE_TERMS)).toBeNull();
  expect(tooLittle({ steps: 8, tokens: 2_047 }, PRIVATE_TERMS)).not.toBeNull();
});
