import { describe, expect, test } from "vitest";
import { createBuckets, fullBucket, takeToken } from "./bucket.ts";

const rate = { perS: 2, burst: 3 };

describe("takeToken()", () => {
  test("gives a burst, then so many a second", () => {
    const bucket = fullBucket(rate, 0);
    expect([0, 0, 0].map((ms) => takeToken(bucket, rate, ms))).toEqual([0, 0, 0]);
    expect(takeToken(bucket, rate, 0)).toBe(500);
    expect(takeToken(bucket, rate, 499)).toBeGreaterThan(0);
    expect(takeToken(bucket, rate, 500)).toBe(0);
    const given = Array.from({ length: 100 }, (_, i) => takeToken(bucket, rate, 1_000 + i * 100));
    expect(given.filter((wait) => wait === 0).length).toBe(20);
  });

  test("gives everyone who is turned away a time of its own", () => {
    const bucket = fullBucket(rate, 0);
    const waits = Array.from({ length: 13 }, () => takeToken(bucket, rate, 0));
    expect(waits.slice(3)).toEqual(Array.from({ length: 10 }, (_, i) => 500 * (i + 1)));
  });
});

describe("createBuckets()", () => {
  test("keeps keys apart", () => {
    const buckets = createBuckets(rate, 10);
    expect([1, 2, 3, 4].map(() => buckets.take("a", 0) === 0)).toEqual([true, true, true, false]);
    expect(buckets.take("b", 0)).toBe(0);
  });

  test("has what was taken without a token paid by whoever asks next", () => {
    const buckets = createBuckets(rate, 10);
    buckets.owe("a", 5, 0); // two more than there are
    expect(buckets.take("a", 0)).toBe(1_500);
    expect(buckets.take("a", 1_499)).toBeGreaterThan(0);
    expect(buckets.take("a", 1_500)).toBe(0);
    expect(buckets.take("b", 0)).toBe(0);
  });

  test("holds at most so many, and forgets no key that still has to wait", () => {
    const buckets = createBuckets(rate, 10);
    for (let i = 0; i < 4; i += 1) {
      buckets.take("flood", 0);
    }
    const admitted = Array.from({ length: 100_000 }, (_, i) => buckets.take(`address ${i}`, 1)).filter(
      (wait) => wait === 0,
    );
    expect(buckets.size).toBe(10);
    expect(admitted.length).toBe(9 + rate.burst);
    expect(buckets.take("flood", 1)).toBeGreaterThan(0);
    expect(buckets.take("later", 60_000)).toBe(0);
    expect(buckets.take("later", 60_000)).toBe(0);
    expect(buckets.size).toBe(10);
  });
});
