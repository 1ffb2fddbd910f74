import { describe, expect, test } from "vitest";
import { sampleCharter } from "../protocol/sample.ts";
import { exampleCharter } from "../protocol/examples.ts";
import type { Losses } from "../protocol/messages.ts";
import { judgeLosses, judgeNorm } from "./judge.ts";

const { trust } = sampleCharter(exampleCharter.train, exampleCharter.evaluation);
const losses = (assignedBefore: number, assignedAfter: number, randomBefore = 3, randomAfter = 3): Losses => ({
  assignedBefore,
  assignedAfter,
  randomBefore,
  randomAfter,
});
const reasonOf = (given: Losses, privateData = false): string => {
  const verdict = judgeLosses(given, privateData, trust);
  return verdict.type === "refused" ? verdict.reason : verdict.type;
};

describe("judgeLosses()", () => {
  test("accepts what improves its own data and does no harm", () => {
    expect(reasonOf(losses(3, 2.9))).toBe("accepted");
    expect(reasonOf(losses(3, 2.9, 3, 3 * (1 + trust.harmMax)))).toBe("accepted");
  });

  test("refuses harm, and losses that are no numbers, as harmful", () => {
    expect(reasonOf(losses(3, 2.9, 3, 3.1))).toBe("harmful");
    for (const wrong of [NaN, Infinity]) {
      expect(reasonOf(losses(3, 2.9, 3, wrong))).toBe("harmful");
      expect(reasonOf(losses(3, wrong))).toBe("harmful");
      expect(reasonOf(losses(3, 2.9, wrong, wrong))).toBe("harmful");
    }
  });

  test("refuses what does not improve its own data, measured or not", () => {
    expect(reasonOf(losses(3, 3))).toBe("no-improvement");
    expect(reasonOf(losses(3, 3 * (1 - trust.improvementMin / 2)))).toBe("no-improvement");
    expect(reasonOf(losses(NaN, 1))).toBe("no-improvement");
    const unmeasured = { assignedBefore: null, assignedAfter: null, randomBefore: 3, randomAfter: 3 };
    expect(reasonOf(unmeasured)).toBe("no-improvement");
    expect(reasonOf(unmeasured, true)).toBe("accepted");
    expect(reasonOf({ ...unmeasured, randomAfter: 4 }, true)).toBe("harmful");
  });
});

describe("judgeNorm()", () => {
  const usual = [1, 2, 3, 4].map((norm) => ({ norm, steps: 10 }));

  test("refuses a norm beyond normMax times the lower median", () => {
    expect(judgeNorm({ norm: 20, steps: 10 }, usual, trust).type).toBe("accepted");
    expect(judgeNorm({ norm: 20.1, steps: 10 }, usual, trust)).toEqual({ type: "refused", reason: "norm-too-large" });
  });

  test("allows a contribution of more steps a norm that is larger in proportion", () => {
    expect(judgeNorm({ norm: 60, steps: 30 }, usual, trust).type).toBe("accepted");
    expect(judgeNorm({ norm: 61, steps: 30 }, usual, trust).type).toBe("refused");
    expect(judgeNorm({ norm: 20.1, steps: 1 }, usual, trust).type).toBe("refused");
  });

  test("says nothing when there is too little to compare with, or when it is off", () => {
    expect(judgeNorm({ norm: 1e9, steps: 1 }, usual.slice(2), trust).type).toBe("accepted");
    expect(judgeNorm({ norm: 1e9, steps: 1 }, usual, { ...trust, normMax: 0 }).type).toBe("accepted");
    expect(judgeNorm({ norm: Infinity, steps: 1 }, [], trust).type).toBe("refused");
  });
});
