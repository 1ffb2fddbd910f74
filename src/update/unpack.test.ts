import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { equalBytes } from "../base/bytes.ts";
import type { Compression } from "../protocol/charter.ts";
import { CHUNK, HEADER_BYTES } from "./format.ts";
import { packUpdate } from "./pack.ts";
import { samples, updateValues } from "./samples.fixture.ts";
import { type UnpackLimits, unpackUpdate } from "./unpack.ts";

const COMPRESSION: Compression = { keep: 8, bits: 2, beta: 1 };

function limitsFor(values: ArrayLike<number>): UnpackLimits {
  return { parameters: values.length, keepMax: CHUNK };
}

function reasonOf(bytes: Uint8Array, limits: UnpackLimits): string {
  const result = unpackUpdate(bytes, limits);
  return result.ok ? "ok" : result.reason;
}

/** A copy with a u32 of the header replaced. */
function withField(bytes: Uint8Array, offset: number, value: number): Uint8Array {
  const copy = new Uint8Array(bytes);
  new DataView(copy.buffer).setUint32(offset, value, true);
  return copy;
}

/** Bit section from a string of 0 and 1 in stream order, behind a header. */
function packet(bits: string, header: { keep: number; parameters: number; entries: number }): Uint8Array {
  const section = bits.replaceAll(/[^01]/g, "");
  const bytes = new Uint8Array(HEADER_BYTES + Math.ceil(section.length / 8));
  const view = new DataView(bytes.buffer);
  bytes.set([0x48, 0x64, 0x6c, 0x55, 2, 2]);
  view.setUint16(6, header.keep, true);
  view.setUint32(8, header.parameters, true);
  view.setUint32(12, header.entries, true);
  view.setUint32(16, bytes.length, true);
  [...section].forEach((bit, i) => {
    const at = HEADER_BYTES + (i >> 3);
    bytes[at] = (bytes[at] as number) | (Number(bit) << (i & 7));
  });
  return bytes;
}

/** A copy with another number of bits a value in its header. */
function withBits(bytes: Uint8Array, bits: number): Uint8Array {
  const copy = new Uint8Array(bytes);
  copy[5] = bits;
  return copy;
}

/** A number's bits, lowest first. */
function low(value: number, count: number): string {
  return value.toString(2).padStart(count, "0").split("").toReversed().join("");
}

describe("unpackUpdate()", () => {
  test("answers every random packet with an update or a reason", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.boolean(),
        fc.constantFrom(1, 2, 3, 4, 64),
        (tail, headed, bits) => {
          const bytes = headed ? packet("", { keep: 8, parameters: 20, entries: tail.length % 9 }) : new Uint8Array(0);
          const all = new Uint8Array([...bytes, ...tail]);
          if (headed) {
            all[5] = bits;
            new DataView(all.buffer).setUint32(16, all.length, true);
          }
          const result = unpackUpdate(all, { parameters: 20, keepMax: 8 });
          if (result.ok) {
            expect(result.value.values.every((value) => Number.isFinite(value))).toBe(true);
          }
        },
      ),
      { numRuns: 3000 },
    );
  });

  test("accepts a packet with flipped bits only if it is another update", () => {
    const widths = fc.constantFrom<1 | 2 | 3 | 4>(1, 2, 3, 4);
    const flips = fc.array(fc.nat(), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(updateValues(), fc.constantFrom(1, 8, 300), widths, flips, (values, keep, bits, places) => {
        const original = packUpdate(values, { keep, bits, beta: 1 });
        const bytes = original.slice();
        for (const place of places) {
          const at = place % bytes.length;
          bytes[at] = (bytes[at] as number) ^ (1 << (place % 8));
        }
        const result = unpackUpdate(bytes, { ...limitsFor(values), bits });
        if (result.ok && !equalBytes(original, bytes)) {
          const before = unpackUpdate(original, limitsFor(values));
          expect(result).not.toEqual(before);
          const { indices } = result.value;
          expect(
            indices.every((index, i) => index < values.length && (i === 0 || index > (indices[i - 1] as number))),
          ).toBe(true);
        }
      }),
      { numRuns: 1500 },
    );
  });

  test("refuses exact values that not every chunk has, none at all among them", () => {
    const nothing = packUpdate(new Float32Array(1), { keep: 1, bits: 2, beta: 1 });
    nothing[5] = 64; // two flipped bits away
    expect(reasonOf(nothing, { parameters: 1, keepMax: CHUNK })).toBe("malformed");
    const exact = packet("0 0 10 1 0000", { keep: 1, parameters: CHUNK + 2, entries: 1 });
    const bytes = new Uint8Array([...exact, ...new Uint8Array(8)]);
    bytes[5] = 64;
    expect(reasonOf(withField(bytes, 16, bytes.length), { parameters: CHUNK + 2, keepMax: CHUNK })).toBe("malformed");
  });

  test("refuses every truncation and extension", () => {
    fc.assert(
      fc.property(
        updateValues(),
        fc.constantFrom<Compression["bits"]>(1, 2, 3, 4, 64),
        fc.nat(),
        (values, bits, cut) => {
          const bytes = packUpdate(values, { keep: 8, bits, beta: 1 });
          expect(reasonOf(bytes.subarray(0, cut % bytes.length), limitsFor(values))).toBe("truncated");
          expect(reasonOf(new Uint8Array([...bytes, 0]), limitsFor(values))).toBe("malformed");
          const shorter = bytes.slice(0, HEADER_BYTES + (cut % (bytes.length - HEADER_BYTES)));
          expect(reasonOf(withField(shorter, 16, shorter.length), limitsFor(values))).toBe("malformed");
        },
      ),
      { numRuns: 200 },
    );
  });

  test("refuses what exceeds its limits before it allocates", () => {
    const values = samples("gauss", 5000);
    const bytes = packUpdate(values, COMPRESSION);
    const limits = { parameters: 5000, keepMax: 8 };
    expect(reasonOf(bytes, limits)).toBe("ok");
    expect(reasonOf(bytes, { ...limits, bytesMax: bytes.length })).toBe("ok");
    expect(reasonOf(bytes, { ...limits, bytesMax: bytes.length - 1 })).toBe("oversized");
    expect(reasonOf(bytes, { ...limits, keepMax: 7 })).toBe("oversized");
    expect(reasonOf(bytes, { ...limits, parameters: 4999 })).toBe("oversized");
    expect(reasonOf(bytes, { ...limits, parameters: 5001 })).toBe("malformed");
    expect(reasonOf(bytes, { ...limits, bits: 64 })).toBe("malformed");
    expect(reasonOf(withField(bytes, 8, 2 ** 28), limits)).toBe("oversized");
    // The parameters are right, but this packet cannot hold what the header announces.
    const empty = packet("1", { keep: 4096, parameters: 2 ** 28, entries: 2 ** 28 });
    expect(unpackUpdate(empty, { parameters: 2 ** 28, keepMax: CHUNK })).toMatchObject({
      reason: "malformed",
      detail: expect.stringContaining("cannot hold"),
    });
    expect(reasonOf(withField(bytes, 12, 17), limits)).toBe("malformed");
    expect(reasonOf(withField(bytes, 12, 15), limits)).toBe("malformed");
  });

  test("refuses another magic, version or number of bits", () => {
    const bytes = packUpdate(samples("gauss", 50), COMPRESSION);
    for (const [at, value] of [
      [0, 0x49],
      [4, 1],
      [5, 0],
      [5, 5],
      [5, 32],
      [5, 65],
    ] as const) {
      const copy = bytes.slice();
      copy[at] = value;
      expect(reasonOf(copy, { parameters: 50, keepMax: 8 })).toBe("malformed");
    }
  });

  test("accepts one packing only", () => {
    // P 5, entries at 1 (−4) and 3 (1): full, r 0, class 127·16, step 6 (2^5 classes), then gap, sign, level of both.
    const shape = { keep: 2, parameters: 5, entries: 2 };
    const limits = { parameters: 5, keepMax: 4096 };
    const levels = low(127 * 16, 12) + low(6, 4);
    const good = `1 ${low(0, 4)} ${levels} 01 1 1 01 0 0`;
    expect(packet(good, shape)).toEqual(packUpdate(Float32Array.of(0, -4, 0.5, 1, 0), { keep: 2, bits: 2, beta: 1 }));
    const cases: Readonly<Record<string, Uint8Array>> = {
      "padding that is not zero": packet(`${good} 001`, shape),
      "a spare byte": packet(`${good} ${"0".repeat(8)}`, shape),
      "a Rice parameter that is not the smallest best": packet(`1 ${low(1, 4)} ${levels} 11 1 1 11 0 0`, shape),
      "a Rice parameter out of range": packet(`1 ${low(13, 4)} ${levels} 1 ${low(1, 13)} 11 1 ${low(1, 13)} 00`, shape),
      "a full count that is announced": packet(`0 ${low(2, 2)} ${good.slice(1)}`, shape),
      "a keep that no chunk reaches": packet(`0 ${low(2, 2)} ${good.slice(1)}`, { ...shape, keep: 3 }),
      "a count above keep": packet(`0 ${low(3, 2)} ${good.slice(1)}`, shape),
      "an index beyond the end": packet(`1 ${low(0, 4)} ${levels} 01 1 1 0001 0 0`, shape),
      "a subnormal magnitude": packet(`1 ${low(0, 4)} ${low(15, 12)} ${low(6, 4)} 01 1 1 01 0 0`, shape),
      "levels that could begin higher": packet(`1 ${low(0, 4)} ${levels} 01 1 1 01 0 1`, shape),
      "levels that could be one": packet(`1 ${low(0, 4)} ${levels} 01 1 0 01 0 0`, shape),
      "levels that could lie farther apart": withBits(
        packet(`1 ${low(0, 4)} ${low(127 * 16, 12)} ${low(5, 4)} 01 1 ${low(2, 2)} 01 0 ${low(0, 2)}`, shape),
        3,
      ),
      "levels with 1 bit": withBits(packet(`1 ${low(0, 4)} ${levels} 01 1 01 0`, shape), 1),
      "more entries than its chunks have": packet(good, { ...shape, entries: 1 }),
    };
    for (const [what, bytes] of Object.entries(cases)) {
      expect(reasonOf(bytes, limits), what).toBe("malformed");
    }
    const infinite = packet(`1 ${low(0, 4)} ${low(254 * 16, 12)} ${low(5, 4)} 01 1 1 01 0 0`, shape);
    expect(reasonOf(infinite, limits)).toBe("not-finite");
  });

  test("refuses exact values that f32 cannot hold", () => {
    const bytes = packUpdate(Float64Array.of(1, 2, 3), { keep: 3, bits: 64, beta: 1 });
    for (const value of [NaN, Infinity, -Infinity, 1e39]) {
      const copy = bytes.slice();
      new DataView(copy.buffer).setFloat64(copy.length - 8, value, true);
      expect(reasonOf(copy, { parameters: 3, keepMax: 3 })).toBe("not-finite");
    }
  });

  test("reads views into larger buffers, wherever they begin", () => {
    for (const bits of [1, 2, 3, 4, 64] as const) {
      const bytes = packUpdate(samples("laplace", 600), { keep: 9, bits, beta: 1 });
      const shifted = new Uint8Array(bytes.length + 8);
      shifted.set(bytes, 3);
      const limits = { parameters: 600, keepMax: 9 };
      expect(unpackUpdate(shifted.subarray(3, 3 + bytes.length), limits)).toEqual(unpackUpdate(bytes, limits));
    }
  });
});
