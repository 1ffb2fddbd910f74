/** Measured on a model small enough to be read: unigram logits over 4 tokens, whose loss has a formula. */
import { describe, expect, test } from "vitest";
import type { ContributorId } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { batchAt, type Batch } from "../data/batch.ts";
import { createCorpus } from "../data/corpus.ts";
import type { TrustConfig } from "../protocol/charter.ts";
import { exampleCharter } from "../protocol/examples.ts";
import { judgeLosses, standardsOf } from "./judge.ts";
import { assignedBatches, measureLosses, randomBatches, type LossMeter, type MeasureFacts } from "./measure.ts";

const VOCABULARY = 4;
/** Token 0 is by far the most frequent. */
const rng = createRng("measure.test");
const corpus = createCorpus([Uint8Array.from({ length: 4_000 }, () => (rng.float() < 0.7 ? 0 : 1 + rng.below(3)))]);
const charter = {
  model: { ...exampleCharter.model, time: 16 },
  inner: { ...exampleCharter.inner, batch: 4 },
  trust: { ...exampleCharter.trust, sequences: 10 },
};
const facts: MeasureFacts = {
  round: 3,
  author: "a".repeat(64) as ContributorId,
  authorSeed: 7,
  authorSteps: 20,
  privateData: false,
  among: 1,
  seed: 99,
};

function unigram(): LossMeter & { readonly loads: number } {
  let logits = new Float32Array(VOCABULARY);
  const meter = {
    loads: 0,
    load: (params: Float32Array) => {
      logits = params.slice();
      meter.loads += 1;
    },
    loss: async ({ targets }: Batch) => {
      const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
      return targets.reduce((sum, target) => sum + total - (logits[target] as number), 0) / targets.length;
    },
  };
  return meter;
}

const base = new Float32Array(VOCABULARY);
const update = (...values: number[]) => ({
  parameters: VOCABULARY,
  indices: Uint32Array.from(values, (_, i) => i),
  values: Float32Array.from(values),
});
const verdictUnder = async (trust: TrustConfig, among: number, ...values: number[]): Promise<string> => {
  const measured = { ...facts, among };
  const options = { evaluator: unigram(), base, update: update(...values), corpus, facts: measured, charter };
  const losses = await measureLosses(options);
  const known = { norm: 1, privateData: false, among, others: standardsOf([]), trust };
  const verdict = judgeLosses({ ...known, losses });
  return verdict.type === "refused" ? verdict.reason : verdict.type;
};
const verdictAmong = (among: number, ...values: number[]): Promise<string> =>
  verdictUnder(charter.trust, among, ...values);
const verdictOf = (...values: number[]): Promise<string> => verdictAmong(1, ...values);

describe("measureLosses()", () => {
  test("measures before and after on the same data and needs no more than two loads", async () => {
    const evaluator = unigram();
    const losses = await measureLosses({ evaluator, base, update: update(-1), corpus, facts, charter });
    expect(evaluator.loads).toBe(2);
    expect(losses.assignedBefore).toBeCloseTo(Math.log(VOCABULARY), 6);
    expect(losses.assignedAfter as number).toBeLessThan(losses.assignedBefore as number);
    expect(losses.randomAfter).toBeLessThan(losses.randomBefore);
    expect(base).toEqual(new Float32Array(VOCABULARY));
  });

  test("leaves assigned data unmeasured when they are private", async () => {
    const own = { ...facts, privateData: true };
    const losses = await measureLosses({ evaluator: unigram(), base, update: update(-1), corpus, facts: own, charter });
    expect(losses).toMatchObject({ assignedBefore: null, assignedAfter: null });
  });

  test("a step down the gradient is accepted; flipped, a hundred times as large, or noise it is refused", async () => {
    expect(await verdictOf(-0.5, 0.1, 0.1, 0.1)).toBe("accepted");
    expect(await verdictOf(0.5, -0.1, -0.1, -0.1)).toBe("harmful");
    expect(await verdictOf(0.01, -0.002, -0.002, -0.002)).toBe("no-improvement");
    expect(await verdictOf(-50, 10, 10, 10)).toBe("harmful");
    expect(await verdictOf(0.3, -0.4, 0.5, -0.2)).toBe("harmful");
    expect(await verdictOf(3e38, -3e38, 3e38, 3e38)).toBe("harmful");
  });
});

describe("measureLosses() of one of many", () => {
  test("what overshoots alone and helps in a mean is accepted there; what points nowhere or back is not", async () => {
    const patient = { ...charter.trust, harmMax: 0.3 };
    const overshooting = [-3.9, 1.3, 1.3, 1.3] as const;
    expect(await verdictUnder(patient, 1, ...overshooting)).toBe("no-improvement");
    expect(await verdictUnder(patient, 8, ...overshooting)).toBe("accepted");
    expect(await verdictAmong(8, 0.01, -0.01, -0.01, -0.01)).toBe("no-improvement");
    expect(await verdictAmong(8, 1, 1, 1, 1)).toBe("no-improvement");
  });

  test("harm is what all of it does: colluders may be the whole mean", async () => {
    const steep = [-9, 3, 3, 3] as const;
    expect(await verdictAmong(8, ...steep)).toBe("harmful");
    const own = { ...facts, among: 8 };
    const { assignedBefore, assignedAfter } = await measureLosses({
      evaluator: unigram(),
      base,
      update: update(...steep),
      corpus,
      facts: own,
      charter,
    });
    expect(assignedAfter).toBeLessThan(assignedBefore as number);
  });
});

describe("data of a measurement", () => {
  test("assignedBatches() are distinct batches of the author's own steps, as many as the charter's sequences need", () => {
    const batches = assignedBatches(corpus, facts, charter);
    expect(batches.length).toBe(3);
    const place = { seed: facts.authorSeed, round: 3, contributor: facts.author, batch: 4, time: 16 };
    const own = Array.from({ length: 20 }, (_, step) => JSON.stringify(batchAt(corpus, { ...place, step })));
    const steps = batches.map((batch) => own.indexOf(JSON.stringify(batch)));
    expect(steps.every((step) => step >= 0)).toBe(true);
    expect(new Set(steps).size).toBe(3);
  });

  test("an author of few steps is measured on all of them", () => {
    expect(assignedBatches(corpus, { ...facts, authorSteps: 2 }, charter).length).toBe(2);
  });

  test("another seed chooses other data of both kinds", () => {
    const other = { ...facts, seed: 100 };
    expect(assignedBatches(corpus, other, charter)).not.toEqual(assignedBatches(corpus, facts, charter));
    expect(randomBatches(corpus, other, charter)).not.toEqual(randomBatches(corpus, facts, charter));
  });
});
