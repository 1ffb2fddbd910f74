import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { concatBytes, digestOf } from "../base/bytes.ts";
import { mayTravel } from "./category.ts";
import { cutSample } from "./sample.ts";
import { cutShards, DATASET_SHARDS_MAX, describeDataset } from "./shard.ts";
import { encode } from "./text.ts";

const OPEN = { name: "poems", licence: "CC0-1.0", category: "fully-open" } as const;
const strict = new TextDecoder("utf-8", { fatal: true });

describe("cutShards()", () => {
  test("gives text whose parts are text, within the limit and nearly as long, and together the whole", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), fc.integer({ min: 4, max: 50 }), (text, bytesMax) => {
        const bytes = encode(text);
        const shards = cutShards(bytes, bytesMax);
        expect(concatBytes(shards)).toEqual(bytes);
        shards.forEach((shard, i) => {
          expect(() => strict.decode(shard)).not.toThrow();
          expect(shard.length).toBeLessThanOrEqual(bytesMax);
          expect(i === shards.length - 1 || shard.length > bytesMax - 4).toBe(true);
        });
      }),
    );
  });

  test("gives nothing for nothing", () => {
    expect(cutShards(new Uint8Array(0))).toEqual([]);
  });
});

describe("describeDataset()", () => {
  test("lists each shard's digest and length", () => {
    const shards = cutShards(encode("one, two"), 5);
    expect(describeDataset(OPEN, shards)).toEqual({
      ...OPEN,
      shards: shards.map((shard) => ({ digest: digestOf(shard), bytes: shard.length })),
    });
  });

  test("refuses names that cannot be keys, empty licences, no text and too much", () => {
    const shard = encode("text");
    for (const name of ["", "Poems", "a/b", "-a", "a.", "a b", "x".repeat(65)]) {
      expect(() => describeDataset({ ...OPEN, name }, [shard]), name).toThrow(HeddleError);
    }
    expect(() => describeDataset({ ...OPEN, licence: " " }, [shard])).toThrow(/licence/);
    expect(() => describeDataset(OPEN, [])).toThrow(/no text/);
    const many = Array.from({ length: DATASET_SHARDS_MAX + 1 }, () => shard);
    expect(() => describeDataset(OPEN, many)).toThrow(/need at most 1024/);
  });
});

describe("cutSample()", () => {
  test("holds out the last twentieth, from the end of a line on", () => {
    const text = encode("a line of text\n".repeat(1000));
    const { train, evaluation } = cutSample(text, OPEN, 4096);
    expect([train.record.name, evaluation.record.name]).toEqual(["poems", "poems-held-out"]);
    expect(concatBytes([...train.shards, ...evaluation.shards])).toEqual(text);
    const heldOut = evaluation.record.shards.reduce((sum, shard) => sum + shard.bytes, 0);
    expect(heldOut / text.length).toBeCloseTo(0.05, 2);
    expect(strict.decode(evaluation.shards[0]).startsWith("a line")).toBe(true);
  });

  test("cuts between characters where there are no lines", () => {
    const { train, evaluation } = cutSample(encode("€".repeat(101)), OPEN);
    expect(strict.decode(train.shards[0]) + strict.decode(evaluation.shards[0])).toBe("€".repeat(101));
    expect(() => cutSample(encode("€"), OPEN)).toThrow(/too few/);
    expect(() => cutSample(new Uint8Array(0), OPEN)).toThrow(/too few/);
  });
});

test("mayTravel() lets fully open data travel and nothing else", () => {
  expect(mayTravel("fully-open")).toBe(true);
  for (const category of ["unique-open", "controlled", "sovereign", "private", "", "Fully-Open", "fully-open "]) {
    expect(mayTravel(category), category).toBe(false);
  }
});
