import { describe, expect, test } from "vitest";
import { bytesToFloats, concatBytes, digestOf, equalBytes, floatBytes, fromHex, isDigest, toHex } from "./bytes.ts";
import { createRng, permutation } from "./rng.ts";

describe("bytes", () => {
  test("bytesToFloats() inverts floatBytes(), also out of the middle of a Node Buffer", () => {
    const values = Float32Array.of(1, -2.5, 3e-20);
    const buffer = Buffer.concat([Buffer.from([7]), floatBytes(values)]).subarray(1);
    expect(bytesToFloats(buffer)).toEqual(values);
  });
  test("digestOf() is SHA-256", () => {
    // FIPS 180-2, appendix B.1
    expect(digestOf(new TextEncoder().encode("abc"))).toBe(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
  });
  test("isDigest() takes 64 lower-case hexadecimal digits and nothing else", () => {
    expect(isDigest("a".repeat(64))).toBe(true);
    expect([isDigest("A".repeat(64)), isDigest("a".repeat(63)), isDigest(3), isDigest(`${"a".repeat(64)}\n`)]).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
  test("concatBytes(), equalBytes(), toHex() and fromHex() agree", () => {
    const all = concatBytes([fromHex("00ff"), fromHex("10")]);
    expect(toHex(all)).toBe("00ff10");
    expect(equalBytes(all, fromHex("00ff10"))).toBe(true);
    expect(equalBytes(all, fromHex("00ff11"))).toBe(false);
  });
});

describe("rng", () => {
  test("createRng() gives the same numbers for the same seeds, and others for others", () => {
    const first = (...seeds: (string | number)[]): number[] => {
      const rng = createRng(...seeds);
      return [rng.uint32(), rng.uint32(), rng.below(10)];
    };
    expect(first("a", 1)).toEqual(first("a", 1));
    expect(first("a", 1)).not.toEqual(first("a", 2));
    expect(first("a", 11)).not.toEqual(first("a1", 1));
  });
  test("float() is uniform enough: ten bins of 10,000 draws stay within five deviations", () => {
    const rng = createRng("bins");
    const bins = Array.from({ length: 10 }, () => 0);
    for (let i = 0; i < 10_000; i += 1) {
      const bin = Math.floor(rng.float() * 10);
      bins[bin] = (bins[bin] ?? 0) + 1;
    }
    for (const count of bins) {
      expect(Math.abs(count - 1_000)).toBeLessThan(5 * Math.sqrt(900));
    }
  });
  test("permutation() holds every number once", () => {
    expect([...permutation(97, createRng("p"))].sort((a, b) => a - b)).toEqual(Array.from({ length: 97 }, (_, i) => i));
  });
});
