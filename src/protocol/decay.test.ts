import { expect, test } from "vitest";
import { sampleCharter } from "./sample.ts";
import { rateShare } from "./decay.ts";

const data = { name: "none", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const { round } = sampleCharter([], data);

test("rateShare() falls in a straight line from the first round on, and stays at the charter's share", () => {
  const falling = { ...round, decayRounds: 4, decayTo: 0.2 };
  expect([1, 2, 3, 4, 5, 50].map((number) => rateShare(falling, number))).toEqual(
    [1, 0.8, 0.6, 0.4, 0.2, 0.2].map(near),
  );
  expect(rateShare({ ...round, decayRounds: 10, decayTo: 0 }, 10)).toBeCloseTo(0.1, 12);
});

test("rateShare() is 1 in every round of a charter without decay", () => {
  expect([1, 2, 1_000].map((number) => rateShare({ ...round, decayRounds: 0, decayTo: 0 }, number))).toEqual([1, 1, 1]);
});

function near(value: number): unknown {
  return expect.closeTo(value, 12);
}
