/**
 * Makes malformed input out of valid samples, from a seed: bits flipped, bytes cut off, added, repeated and moved, two samples
 * spliced, lengths set to extremes, and, where a sample is msgpack, single values replaced by ones that are unlikely there. The
 * input number i of a seed depends on nothing but both, so that a failure is found again without what came before it.
 */
import { decode, encode } from "@msgpack/msgpack";
import { concatBytes, textBytes, type Bytes } from "../../src/base/bytes.ts";
import type { Rng } from "../../src/base/rng.ts";

/** Longest input that is made: above every limit of a message. */
const INPUT_BYTES_MAX = 300_000;
const EXTREMES = [
  0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
];
/** Heads of msgpack values that announce up to 4 GiB, or nest. */
const HEADS = [
  0xc1, 0xc4, 0xc6, 0xc9, 0xca, 0xcb, 0xcf, 0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0x81, 0x91, 0x8f, 0x9f,
];
const PIECES = [
  "\r\n",
  "\0",
  "%00",
  "../",
  "__proto__",
  "constructor",
  "NaN",
  "1e999",
  "-1",
  "9999999999",
  "\u202e",
  "Größe",
];

/** One malformed input. `corpus` holds at least one valid sample. */
export function mutated(corpus: readonly Bytes[], rng: Rng): Bytes {
  const sample = corpus[rng.below(corpus.length)] as Bytes;
  const restructured = rng.below(3) === 0 ? withOtherValue(sample, rng) : null;
  let bytes = restructured ?? changed(sample, corpus, rng);
  for (let more = rng.below(8); more > 5; more -= 1) {
    bytes = changed(bytes, corpus, rng);
  }
  return bytes.slice(0, INPUT_BYTES_MAX);
}

function changed(bytes: Bytes, corpus: readonly Bytes[], rng: Rng): Bytes {
  const at = rng.below(bytes.length + 1);
  const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
  switch (rng.below(11)) {
    case 0: {
      const flipped = bytes.slice();
      for (let flips = 1 + rng.below(4); flips > 0 && flipped.length > 0; flips -= 1) {
        const place = rng.below(flipped.length);
        flipped[place] = (flipped[place] as number) ^ (1 << rng.below(8));
      }
      return flipped;
    }
    case 1:
      return before.slice();
    case 2:
      return after.slice();
    case 3: {
      const other = corpus[rng.below(corpus.length)] as Bytes;
      return concatBytes([before, other.subarray(rng.below(other.length + 1))]);
    }
    case 4:
      return overwritten(bytes, at, extreme(rng));
    case 5:
      return overwritten(bytes, at, Uint8Array.of(HEADS[rng.below(HEADS.length)] as number, 0xff, 0xff, 0xff, 0xff));
    case 6: {
      const repeats = Array.from({ length: 1 + rng.below(4) }, () => after.subarray(0, 1 + rng.below(64)));
      return concatBytes([before, ...repeats, after]);
    }
    case 7:
      return concatBytes([before, after.subarray(rng.below(Math.min(64, after.length + 1)))]);
    case 8:
      return concatBytes([before, noise(rng, 1 + rng.below(32)), after]);
    case 9:
      return concatBytes([before, textBytes(PIECES[rng.below(PIECES.length)] as string), after]);
    default:
      return rng.below(64) === 0
        ? concatBytes([bytes, new Uint8Array(rng.below(INPUT_BYTES_MAX))])
        : noise(rng, rng.below(200));
  }
}

/** A number at one of its ends, of 2 or 4 bytes, lowest or highest first. */
function extreme(rng: Rng): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, EXTREMES[rng.below(EXTREMES.length)] as number, rng.below(2) === 0);
  return new Uint8Array(view.buffer).subarray(0, rng.below(2) === 0 ? 4 : 2);
}

function overwritten(bytes: Bytes, at: number, by: Uint8Array): Bytes {
  return concatBytes([bytes.subarray(0, at), by, bytes.subarray(at + by.length)]);
}

function noise(rng: Rng, length: number): Bytes {
  return Uint8Array.from({ length }, () => rng.below(256));
}

/** The sample with one of its values replaced, left out or added; null where it is no msgpack. */
function withOtherValue(sample: Bytes, rng: Rng): Bytes | null {
  let value: unknown;
  try {
    value = decode(sample);
  } catch {
    return null;
  }
  return new Uint8Array(encode(replaced(value, rng)));
}

function replaced(value: unknown, rng: Rng): unknown {
  if (Array.isArray(value) && value.length > 0 && rng.below(8) > 0) {
    const at = rng.below(value.length);
    return value.map((item, i) => (i === at ? replaced(item, rng) : (item as unknown)));
  }
  if (typeof value !== "object" || value === null || value instanceof Uint8Array || rng.below(16) === 0) {
    return unlikely(value, rng);
  }
  const entries = Object.entries(value);
  const at = rng.below(entries.length);
  switch (rng.below(8)) {
    case 0:
      return Object.fromEntries(entries.filter((_, i) => i !== at));
    case 1:
      return Object.fromEntries([...entries, ["more", unlikely(null, rng)]]);
    case 2:
      return Object.fromEntries(entries.reverse());
    default:
      return Object.fromEntries(entries.map(([name, item], i) => [name, i === at ? replaced(item, rng) : item]));
  }
}

function unlikely(value: unknown, rng: Rng): unknown {
  if (value instanceof Uint8Array && rng.below(2) === 0) {
    return changed(value.slice(), [value.slice()], rng);
  }
  if (typeof value === "number" && rng.below(2) === 0) {
    return [value + 1, value - 1, -value, value + 0.5, value * 2 ** 20, 1 / value][rng.below(6)];
  }
  if (typeof value === "string" && rng.below(2) === 0) {
    return value.slice(0, rng.below(value.length + 1)) + (PIECES[rng.below(PIECES.length)] as string);
  }
  const all: readonly unknown[] = [
    null,
    true,
    0,
    -1,
    Number.NaN,
    Infinity,
    2 ** 31,
    2 ** 53,
    1.5,
    "",
    "x".repeat(1 + rng.below(20_000)),
    new Uint8Array(rng.below(200)),
    [],
    [[[[[[[[[[]]]]]]]]]],
    {},
    { type: "accepted" },
    new Date(0),
  ];
  return all[rng.below(all.length)];
}
