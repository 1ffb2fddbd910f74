import { describe, expect, test } from "vitest";
import { lowerMedian } from "../base/sorted.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { exampleCharter } from "../protocol/examples.ts";
import type { Losses } from "../protocol/messages.ts";
import {
  improvementOf,
  judgeLosses,
  judgeNorm,
  standardsOf,
  usualSizeOf,
  withUpdate,
  type AcceptedUpdate,
} from "./judge.ts";

const { trust } = sampleCharter(exampleCharter.train, exampleCharter.evaluation);
const losses = (assignedBefore: number, assignedAfter: number, randomBefore = 3, randomAfter = 3): Losses => ({
  assignedBefore,
  assignedAfter,
  randomBefore,
  randomAfter,
});
const reasonOf = (given: Losses, privateData = false): string => {
  const verdict = judgeLosses({ losses: given, norm: 1, privateData, among: 1, others: standardsOf([]), trust });
  return verdict.type === "refused" ? verdict.reason : verdict.type;
};

describe("judgeLosses()", () => {
  test("accepts what improves its own data and does no harm", () => {
    expect(reasonOf(losses(3, 2.9))).toBe("accepted");
    expect(reasonOf(losses(3, 2.9, 3, 3 * (1 + trust.harmMax)))).toBe("accepted");
  });

  test("refuses harm, and losses that are no numbers, as harmful", () => {
    expect(reasonOf(losses(3, 2.9, 3, 3.2))).toBe("harmful");
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

describe("judgeLosses() beside others", () => {
  const others = [0.2, 0.1, 0.3].map((improvement) => ({ norm: 4, steps: 10, privateData: false, improvement }));
  const verdictOf = (improvement: number, norm: number, beside: readonly AcceptedUpdate[] = others): string =>
    judgeLosses({
      losses: losses(3, 3 * (1 - improvement)),
      norm,
      privateData: false,
      among: 1,
      others: standardsOf(beside),
      trust,
    }).type;

  test("refuses noise: what improves a little where others improved a lot", () => {
    expect(verdictOf(0.001, 4)).toBe("refused");
    expect(verdictOf(0.001, 4, [])).toBe("accepted");
    expect(verdictOf(0.2 * trust.improvementShare + 1e-9, 4)).toBe("accepted");
    expect(verdictOf(0.2 * trust.improvementShare - 1e-6, 4)).toBe("refused");
  });

  test("asks less in proportion of a small update, and no more of a large one", () => {
    expect(verdictOf(0.006, 1)).toBe("accepted");
    expect(verdictOf(0.004, 1)).toBe("refused");
    expect(verdictOf(0.021, 400)).toBe("accepted");
  });

  test("asks no more of a small update because others are small whose improvement was not measured", () => {
    for (const privateData of [true, false]) {
      const small = { norm: 0.5, steps: 10, privateData, improvement: null };
      expect(verdictOf(0.006, 1, [...others, small, small, small, small])).toBe("accepted");
      expect(verdictOf(0.004, 1, [...others, small, small, small, small])).toBe("refused");
    }
  });

  test("never asks less than improvementMin, nor anything for others' work that was not measured", () => {
    const stuck = others.map((other) => ({ ...other, improvement: -0.1 }));
    expect(verdictOf(trust.improvementMin / 2, 4, stuck)).toBe("refused");
    expect(verdictOf(trust.improvementMin * 2, 4, stuck)).toBe("accepted");
    const unmeasured = others.map((other) => ({ ...other, improvement: null }));
    expect(verdictOf(trust.improvementMin * 2, 4, unmeasured)).toBe("accepted");
  });

  test("asks for no share of others' improvement where the charter's share is 0, also of the first of all", () => {
    const free = { ...trust, improvementMin: -1, improvementShare: 0 };
    for (const beside of [[], others]) {
      const judged = judgeLosses({
        losses: losses(3, 3.1),
        norm: 4,
        privateData: false,
        among: 1,
        others: standardsOf(beside),
        trust: free,
      });
      expect(judged.type).toBe("accepted");
    }
  });
});

describe("judgeLosses() of one of many", () => {
  test("counts what its share of a mean improves as many times as there are shares, and the harm of the whole once", () => {
    const verdictOf = (given: Losses): string => {
      const facts = { norm: 4, privateData: false, among: 8, others: standardsOf(others), trust };
      const verdict = judgeLosses({ ...facts, losses: given });
      return verdict.type === "refused" ? verdict.reason : verdict.type;
    };
    const others = [0.2, 0.1, 0.3].map((improvement) => ({ norm: 4, steps: 10, privateData: false, improvement }));
    const owed = (0.2 * trust.improvementShare) / 8;
    expect(verdictOf(losses(3, 3 * (1 - owed) - 1e-9))).toBe("accepted");
    expect(verdictOf(losses(3, 3 * (1 - owed) + 1e-6))).toBe("no-improvement");
    expect(verdictOf(losses(3, 2.9, 3, 3 * (1 + trust.harmMax) - 1e-9))).toBe("accepted");
    expect(verdictOf(losses(3, 2.9, 3, 3 * (1 + trust.harmMax) + 1e-6))).toBe("harmful");
    expect(improvementOf(losses(3, 2.4), 8)).toBeCloseTo(1.6, 12);
  });
});

describe("judgeNorm()", () => {
  const samples = [1, 2, 3, 4].map((norm) => ({ norm, steps: 10, privateData: false }));
  const usual = usualSizeOf(samples);

  test("refuses a norm beyond normMax times the lower median", () => {
    expect(judgeNorm({ norm: 20, steps: 10 }, usual, trust).type).toBe("accepted");
    expect(judgeNorm({ norm: 20.1, steps: 10 }, usual, trust)).toEqual({ type: "refused", reason: "norm-too-large" });
  });

  test("allows a contribution of more steps a norm that is larger in proportion", () => {
    expect(judgeNorm({ norm: 60, steps: 30 }, usual, trust).type).toBe("accepted");
    expect(judgeNorm({ norm: 61, steps: 30 }, usual, trust).type).toBe("refused");
    expect(judgeNorm({ norm: 20.1, steps: 1 }, usual, trust).type).toBe("refused");
  });

  test("is misled neither by tiny updates on private data nor by one that is not among many that are", () => {
    const tiny = [1e-6, 1e-6, 1e-6, 1e-6, 1e-6].map((norm) => ({ norm, steps: 1, privateData: true }));
    expect(usualSizeOf([...tiny, ...samples])).toEqual({ ...usual, samples: 9 });
    expect(usualSizeOf(tiny)).toEqual({ samples: 5, norm: 1e-6, steps: 1 });
    expect(judgeNorm({ norm: 20, steps: 10 }, usualSizeOf([...samples, ...tiny]), trust).type).toBe("accepted");
    expect(judgeNorm({ norm: 20, steps: 10 }, usualSizeOf(tiny), trust).type).toBe("refused");
    const many = samples.map((sample) => ({ ...sample, privateData: true }));
    const one = { norm: 1e-6, steps: 1, privateData: false };
    expect(usualSizeOf([...many, one, one, one])).toMatchObject({ norm: 1, steps: 10 });
  });

  test("says nothing when there is too little to compare with, or when it is off", () => {
    expect(judgeNorm({ norm: 1e9, steps: 1 }, usualSizeOf(samples.slice(2)), trust).type).toBe("accepted");
    expect(judgeNorm({ norm: 1e9, steps: 1 }, usual, { ...trust, normMax: 0 }).type).toBe("accepted");
    expect(judgeNorm({ norm: Infinity, steps: 1 }, usualSizeOf([]), trust).type).toBe("refused");
  });
});

describe("withUpdate()", () => {
  test("counts what was measured, in whatever order it comes", () => {
    const improvements = [0.3, null, 0.1, 0.3, -2, 0.2];
    const updates = improvements.map((improvement, i) => ({
      norm: (7 * i) % 4,
      steps: 1,
      privateData: false,
      improvement,
    }));
    const standards = standardsOf(updates);
    expect(standardsOf(updates.toReversed())).toEqual(standards);
    expect(updates.reduce(withUpdate, standardsOf([]))).toEqual(standards);
    expect([lowerMedian(standards.norms), lowerMedian(standards.improvements)]).toEqual([1, 0.2]);
  });
});
