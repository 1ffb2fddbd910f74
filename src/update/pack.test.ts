import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { digestOf } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import type { Compression } from "../protocol/charter.ts";
import { CHUNK, HEADER_BYTES } from "./format.ts";
import { packUpdate } from "./pack.ts";
import { densified, samples, updateValues } from "./samples.fixture.ts";
import { selectBySorting } from "./select.ts";
import { type SparseUpdate, unpackUpdate } from "./unpack.ts";

type RoundedBits = Exclude<Compression["bits"], 64>;
const rounded = (keep: number, bits: RoundedBits = 2): Compression => ({ keep, bits, beta: 1 });
const exact = (keep: number): Compression => ({ keep, bits: 64, beta: 1 });

function unpacked(values: Float32Array | Float64Array, compression: Compression): SparseUpdate {
  const result = unpackUpdate(packUpdate(values, compression), {
    parameters: values.length,
    keepMax: compression.keep,
    bits: compression.bits,
  });
  if (!result.ok) {
    throw new Error(`${result.reason}: ${result.detail}`);
  }
  return result.value;
}

const keeps = fc.constantFrom(1, 2, 3, 17, 64, 256, 4095, 4096);
const widths = fc.constantFrom<RoundedBits>(1, 2, 3, 4);

describe("packUpdate()", () => {
  test("round trips indices, signs with 1 to 4 bits", () => {
    fc.assert(
      fc.property(updateValues(), keeps, widths, (values, keep, bits) => {
        const { indices, values: sent } = unpacked(values, rounded(keep, bits));
        const wanted: number[] = [];
        for (let start = 0; start < values.length; start += CHUNK) {
          const chunk = values.subarray(start, start + CHUNK);
          wanted.push(
            ...selectBySorting(
              chunk.map((value) => (Math.abs(value) < 2 ** -126 ? 0 : value)),
              keep,
            )
              .filter((i) => Math.abs(chunk[i] as number) >= 2 ** -126)
              .map((i) => start + i),
          );
        }
        expect([...indices]).toEqual(wanted);
        const signs = Array.from(indices, (index) => Math.sign(values[index] as number));
        expect(Array.from(sent, Math.sign)).toEqual(signs);
      }),
      { numRuns: 150 },
    );
  });

  test("sends numbers with 4 bits of mantissa, of a chunk at most 2^(bits - 1) magnitudes", () => {
    fc.assert(
      fc.property(updateValues(), keeps, widths, (values, keep, width) => {
        const update = unpacked(values, rounded(keep, width));
        const magnitudes = new Map<number, Set<number>>();
        update.indices.forEach((index, i) => {
          const chunk = index >>> 12;
          magnitudes.set(chunk, (magnitudes.get(chunk) ?? new Set()).add(Math.abs(update.values[i] as number)));
        });
        for (const found of magnitudes.values()) {
          expect(found.size).toBeLessThanOrEqual(2 ** (width - 1));
          for (const magnitude of found) {
            const bits = new Uint32Array(Float32Array.of(magnitude).buffer)[0] as number;
            expect(bits & 0x7ffff).toBe(0);
            expect(magnitude).toBeGreaterThanOrEqual(2 ** -126);
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  test("sends exact values with 64 bits, zeros included", () => {
    fc.assert(
      fc.property(updateValues(), keeps, fc.double({ min: -3, max: 3, noNaN: true }), (values, keep, extra) => {
        const wide = Float64Array.from(values, (value) => value / 3 + extra * 1e-9);
        const update = unpacked(wide, exact(keep));
        const wanted: number[] = [];
        for (let start = 0; start < wide.length; start += CHUNK) {
          wanted.push(...selectBySorting(wide.subarray(start, start + CHUNK), keep).map((i) => start + i));
        }
        expect([...update.indices]).toEqual(wanted);
        expect(update.values).toEqual(Float64Array.from(wanted, (i) => wide[i] as number));
      }),
      { numRuns: 60 },
    );
  });

  test("packs what it unpacked into the same bytes, but for magnitudes that are far apart", () => {
    const near = updateValues().filter((values) => {
      const sizes = values.map(Math.abs).filter((size) => size > 0);
      return Math.max(...sizes) < 8 * Math.min(...sizes);
    });
    fc.assert(
      fc.property(near, keeps, fc.constantFrom<Compression["bits"]>(1, 2, 3, 4, 64), (values, keep, bits) => {
        // A dense 64-bit update cannot be told from its zeros, so only full ones are packed again.
        const compression: Compression = { keep: bits === 64 ? CHUNK : keep, bits, beta: 1 };
        const bytes = packUpdate(values, compression);
        const again = packUpdate(densified(unpacked(values, compression)), compression);
        expect(again).toEqual(bytes);
      }),
      { numRuns: 100 },
    );
  });

  test("keeps the lower index of equal magnitudes", () => {
    const values = Float32Array.from({ length: CHUNK + 5 }, (_, i) => (i % 2 === 0 ? 1 : -1));
    expect([...unpacked(values, rounded(3)).indices]).toEqual([0, 1, 2, CHUNK, CHUNK + 1, CHUNK + 2]);
    expect([...unpacked(values, exact(3)).indices]).toEqual([0, 1, 2, CHUNK, CHUNK + 1, CHUNK + 2]);
    values[4000] = 1.5;
    expect([...unpacked(values, rounded(3)).indices].slice(0, 3)).toEqual([0, 1, 4000]);
  });

  test("never rounds zeros and subnormal numbers", () => {
    const update = unpacked(Float64Array.of(0, -0, 1e-40, 2 ** -127, 1e-300, 2 ** -126), rounded(6));
    expect([...update.indices]).toEqual([5]);
    expect([...update.values]).toEqual([2 ** -126]);
    expect(unpacked(new Float32Array(5000), rounded(64)).indices).toHaveLength(0);
  });

  test("sends at most f32's largest class for what is beyond f32", () => {
    expect([...unpacked(Float64Array.of(1e300, -1e300), rounded(2)).values]).toEqual([31 * 2 ** 123, -31 * 2 ** 123]);
  });

  test("refuses what is not finite as a bug", () => {
    for (const value of [NaN, Infinity, -Infinity]) {
      expect(() => packUpdate(Float32Array.of(1, value), rounded(2))).toThrow(/not a finite number/);
      expect(() => packUpdate(Float64Array.of(1, value), exact(2))).toThrow(/need a number in f32's range/);
    }
    expect(() => packUpdate(new Float32Array(0), rounded(2))).toThrow(/need 1 to/);
    expect(() => packUpdate(new Float32Array(1), rounded(4097))).toThrow(/keep is 4097/);
  });

  // Measured with these samples; the index figure includes chunk counts, Rice parameters, levels and the header.
  test.each([
    { kind: "gauss", keep: 64, indexBits: 7.9, errors: [0.0119, 0.0042, 0.0018, 0.0007] },
    { kind: "laplace", keep: 64, indexBits: 7.9, errors: [0.0365, 0.0129, 0.005, 0.0021] },
    { kind: "gauss", keep: 256, indexBits: 5.6, errors: [0.0239, 0.0088, 0.0037, 0.0015] },
    { kind: "laplace", keep: 256, indexBits: 5.6, errors: [0.0651, 0.027, 0.009, 0.003] },
  ] as const)("costs $indexBits bits an index at most for $keep of 4,096 ($kind), relative errors $errors", (row) => {
    const { kind, keep, indexBits, errors } = row;
    const values = samples(kind, CHUNK * 64);
    const relative = ([1, 2, 3, 4] as const).map((bits) => {
      const bytes = packUpdate(values, rounded(keep, bits));
      const update = unpacked(values, rounded(keep, bits));
      expect(update.indices).toHaveLength(64 * keep);
      expect((bytes.length * 8) / update.indices.length - bits).toBeLessThan(indexBits);
      let missed = 0;
      let kept = 0;
      update.indices.forEach((index, i) => {
        const value = values[index] as number;
        missed += (value - (update.values[i] as number)) ** 2;
        kept += value ** 2;
      });
      return missed / kept;
    });
    errors.forEach((error, i) => expect(relative[i]).toBeLessThan(error));
  });

  test("needs no index bits when a chunk is sent whole", () => {
    const values = samples("gauss", CHUNK * 3);
    expect(packUpdate(values, exact(CHUNK)).length).toBe(HEADER_BYTES + 1 + values.length * 8);
    expect(packUpdate(values, rounded(CHUNK)).length).toBeLessThan(HEADER_BYTES + (values.length * 2) / 8 + 3 * 3);
  });

  test("packs the same bytes on every machine", () => {
    // Origin: this function on 2026-11-28; the values use integer arithmetic and exact divisions only.
    const rng = createRng("golden update");
    const values = Float32Array.from({ length: 10_000 }, () => (rng.below(2001) - 1000) ** 3 / 2 ** 30);
    const digests = ([1, 2, 3, 4] as const).map((bits) => digestOf(packUpdate(values, rounded(64, bits))));
    expect(digests).toEqual([
      "a47500e2429a7d78af9fb37cef38c5f44d965366265f5a6ef965dbd8d1bfae80",
      "37880253b4ef7f276c18743c73af8ea37ab5d2baec92a16a00e43980d12e1e5f",
      "e86b1a8c6123b542a914645ed559761abd9b59eac058e4cebafefdac095c433f",
      "835d71cbd8e8ccf687c4fc30c8bbab77af1227e72914d692c7273d3b850f00b0",
    ]);
    expect(digestOf(packUpdate(values, exact(64)))).toBe(
      "56f4d1d5cec496695f597d7e459166ab6279dcb2814da6cb9c37b70ee7f0c67f",
    );
  });

  test("writes the layout of format.ts", () => {
    // Five parameters, two kept: −4 at 1 and 1 at 3. Gaps 1 and 1; r = 0 costs 4 bits and r = 1 as many.
    const bytes = packUpdate(Float32Array.of(0, -4, 0.5, 1, 0), rounded(2));
    const bits = [...bytes.subarray(HEADER_BYTES)].map((byte) => byte.toString(2).padStart(8, "0")).toReversed();
    // From the highest bit down: padding, then entry 3 (level 0, sign 0, gap one-zero), entry 1 (level 1, sign 1, gap), the step
    // of 2^5 classes, the class of 1, r, full.
    expect(bits.join("")).toBe("000 0 0 10 1 1 10 0110 011111110000 0000 1".replaceAll(" ", ""));
    expect([...bytes.subarray(0, HEADER_BYTES)]).toEqual([
      0x48, 0x64, 0x6c, 0x55, 2, 2, 2, 0, 5, 0, 0, 0, 2, 0, 0, 0, 24, 0, 0, 0,
    ]);
  });
});
