import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { batchAt, type BatchPlace, evaluationBatches } from "./batch.ts";
import { copyTokens, createCorpus } from "./corpus.ts";

const PLACE: BatchPlace = { seed: 7, round: 3, contributor: "ab12", step: 0, batch: 4, time: 16 };
const counting = (length: number, from = 0): Uint8Array => Uint8Array.from({ length }, (_, i) => (from + i) % 251);

describe("createCorpus()", () => {
  test("joins its shards, wherever a window lies", () => {
    const lengths = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(lengths, fc.nat(), fc.nat(), (sizes, a, b) => {
        const total = sizes.reduce((sum, size) => sum + size, 0);
        let from = 0;
        const shards = sizes.map((size) => counting(size, (from += size) - size));
        const corpus = createCorpus(shards);
        expect(corpus.tokens).toBe(total);
        const start = a % (total + 1);
        const into = new Uint8Array(b % (total - start + 1));
        copyTokens(corpus, start, into);
        expect(into).toEqual(counting(into.length, start));
      }),
    );
  });

  test("reading past its end is a bug", () => {
    expect(() => copyTokens(createCorpus([counting(5)]), 3, new Uint8Array(3))).toThrow(/the corpus has 5/);
  });
});

describe("batchAt()", () => {
  const corpus = createCorpus([counting(100), counting(100, 100)]);

  test("targets are the tokens one place on", () => {
    const { tokens, targets } = batchAt(corpus, PLACE);
    expect(tokens).toHaveLength(64);
    tokens.forEach((token, i) => {
      expect(targets[i]).toBe(i % 16 === 15 ? (token + 1) % 251 : tokens[i + 1]);
    });
  });

  test("is a function of its arguments, and of each of them", () => {
    const first = batchAt(corpus, PLACE);
    expect(batchAt(createCorpus([counting(200)]), { ...PLACE })).toEqual(first);
    for (const other of [{ seed: 8 }, { round: 4 }, { contributor: "ab13" }, { step: 1 }]) {
      expect(batchAt(corpus, { ...PLACE, ...other })).not.toEqual(first);
    }
  });

  test("draws the same windows on every machine", () => {
    // Origin: this function on 2026-11-21, counting corpus of 200, the place above.
    const { tokens } = batchAt(corpus, PLACE);
    expect([0, 16, 32, 48].map((row) => tokens[row])).toEqual([157, 83, 174, 173]);
  });

  test("reaches the first and the last window of a short corpus", () => {
    const short = createCorpus([counting(18)]);
    const starts = new Set([...batchAt(short, { ...PLACE, batch: 50 }).tokens].filter((_, i) => i % 16 === 0));
    expect([...starts].sort()).toEqual([0, 1]);
  });

  test("says so when the corpus is too short", () => {
    const short = createCorpus([counting(16)]);
    expect(() => batchAt(short, PLACE)).toThrow(HeddleError);
    expect(() => batchAt(short, PLACE)).toThrow("the corpus has 16 bytes of text, need at least 17");
    expect(() => evaluationBatches(short, { batch: 1, time: 16, count: 1 })).toThrow(HeddleError);
    expect(batchAt(createCorpus([counting(17)]), PLACE).tokens[0]).toBe(0);
  });
});

describe("evaluationBatches()", () => {
  test("spreads windows evenly from the start to the end", () => {
    const corpus = createCorpus([counting(111)]);
    const batches = evaluationBatches(corpus, { batch: 2, time: 10, count: 3 });
    const starts = batches.flatMap(({ tokens }) => [tokens[0], tokens[10]]);
    expect(starts).toEqual([0, 20, 40, 60, 80, 100]);
    expect(batches[2]?.targets.at(-1)).toBe(110);
    expect(evaluationBatches(corpus, { batch: 1, time: 10, count: 1 })[0]?.tokens[0]).toBe(0);
  });
});

test("batchAt() draws from all of a long corpus", () => {
  const corpus = createCorpus(Array.from({ length: 10 }, (_, i) => new Uint8Array(1000).fill(i)));
  const seen = new Set<number>();
  for (let step = 0; step < 50; step += 1) {
    batchAt(corpus, { ...PLACE, step, time: 1 }).tokens.forEach((token) => seen.add(token));
  }
  expect(seen.size).toBe(10);
});
