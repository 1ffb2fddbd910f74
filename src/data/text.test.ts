import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { createDecoder, decode, encode, normaliseText } from "./text.ts";

const anyText = fc.oneof(fc.string({ unit: "binary" }), fc.string({ unit: "grapheme" }), fc.string());
/** Bytes that are nearly UTF-8: real text with some bytes replaced. */
const nearlyText = fc
  .tuple(anyText, fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }))))
  .map(([text, edits]) => {
    const bytes = new TextEncoder().encode(text);
    for (const [at, byte] of edits) {
      bytes[at % Math.max(1, bytes.length)] = byte;
    }
    return bytes;
  });

describe("encode() and decode()", () => {
  test("encode() is TextEncoder's UTF-8, lone surrogates included", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          anyText,
          fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
        ),
        (text) => {
          expect(encode(text)).toEqual(new TextEncoder().encode(text));
        },
      ),
    );
  });

  test("decode() is TextDecoder's, malformed bytes included", () => {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), nearlyText), (bytes) => {
        expect(decode(bytes)).toBe(decoder.decode(bytes));
      }),
      { numRuns: 1000 },
    );
  });

  test("createDecoder() gives the same text wherever the stream is cut", () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), nearlyText), fc.array(fc.nat()), (bytes, places) => {
        const decoder = createDecoder();
        const cuts = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
        const pieces = cuts.slice(1).map((end, i) => decoder.push(bytes.subarray(cuts[i], end)));
        expect(pieces.join("") + decoder.end()).toBe(decode(bytes));
      }),
    );
  });

  test("a character is held back until it is complete", () => {
    const decoder = createDecoder();
    expect([0xe2, 0x82, 0xac, 0x41].map((byte) => decoder.push([byte]))).toEqual(["", "", "€", "A"]);
    expect(decoder.push([0xf0, 0x9f]) + decoder.end() + decoder.end()).toBe("\ufffd");
  });
});

describe("normaliseText()", () => {
  test("refuses exactly what TextDecoder refuses, and zero bytes", () => {
    const strict = new TextDecoder("utf-8", { fatal: true });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 6 }), nearlyText), (bytes) => {
        let valid = !bytes.includes(0);
        try {
          strict.decode(bytes);
        } catch {
          valid = false;
        }
        if (valid) {
          expect(decode(normaliseText(bytes, "it"))).toBe(strict.decode(bytes).replaceAll("\r\n", "\n"));
        } else {
          expect(() => normaliseText(bytes, "it")).toThrow(HeddleError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  test("turns CRLF into LF, keeps a lone CR, drops a byte-order mark at the start only", () => {
    expect(decode(normaliseText(encode("\ufeffa\r\nb\rc\r\r\n\ufeff"), "it"))).toBe("a\nb\rc\r\n\ufeff");
  });

  test("says where and why", () => {
    expect(() => normaliseText(Uint8Array.of(65, 0xff), '"x.txt"')).toThrow('Cannot use "x.txt": byte 1 is not UTF-8');
    expect(() => normaliseText(Uint8Array.of(0), '"x.txt"')).toThrow("byte 0 is zero");
  });
});
