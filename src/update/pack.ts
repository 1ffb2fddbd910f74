/**
 * Packs a dense update into the few bytes that travel: per chunk of 4,096 the largest entries, their indices near their
 * entropy, their values as 1 to 4 bits or exactly. `format.ts` is the layout, `select.ts` what is kept, `tensor/magnitude.ts` how
 * it is rounded; what is not sent stays with the sender (`feedback.ts`). The recipe is SparseLoCo's (Sarfi et al., 2025) with
 * a better quantiser and index code. Integer operations only: one input, one packing, everywhere.
 */
import { assert } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Compression } from "../protocol/charter.ts";
import { PARAMETERS_MAX } from "../protocol/limits.ts";
import { alignWriter, type BitWriter, createBitWriter, putBits, putUnary } from "./bits.ts";
import {
  CHUNK,
  chunksOf,
  FIRST_BITS,
  type Header,
  HEADER_BYTES,
  putHeader,
  RICE_BITS,
  STEP_BITS,
  VALUE_MAX,
  widthOf,
} from "./format.ts";
import { classOf, createLevelSearch, levelOf } from "../tensor/magnitude.ts";
import { bestRice } from "./rice.ts";
import { createSelector, selectBySorting } from "./select.ts";

/** Bit patterns of the largest f32 and, one below it, of the largest subnormal one; without sign. */
const LARGEST = 0x7f7fffff;
const SUBNORMAL = 0x007fffff;
/** Smallest normal f32. */
const SMALLEST = 2 ** -126;

/**
 * Packs `values` [P], at least one and all finite (anything else is a bug of the caller and throws). With 1 to 4 bits the values
 * are rounded to f32 first, those beyond its largest number to that; zeros and subnormal numbers are never sent. With 64
 * bits min(keep, L) entries of each chunk of L are sent exactly, zeros included; they must be within f32's range.
 */
export function packUpdate(values: Float32Array | Float64Array, { keep, bits }: Compression): Bytes {
  const parameters = values.length;
  assert(
    parameters >= 1 && parameters <= PARAMETERS_MAX,
    `Cannot pack update: got ${parameters} parameters, need 1 to ${PARAMETERS_MAX}`,
  );
  assert(
    Number.isInteger(keep) && keep >= 1 && keep <= CHUNK,
    `Cannot pack update: keep is ${keep}, need 1 to ${CHUNK}`,
  );
  const counted = countEntries(values, { keep, bits });
  const form = { keep: counted.keep, bits };
  return joinChunks([packChunks(values, form)], { ...form, parameters, entries: counted.entries });
}

/** Some whole chunks of an update, one behind the other, without a header. */
export interface PackedChunks {
  /** What the bit section has of them, filled to a whole byte with zeros. */
  readonly bits: Bytes;
  readonly bitLength: number;
  /** 64 bits: the exact values, f64. */
  readonly exact: Bytes;
}

/** What chunks will send: the largest number of entries of any, and all together. */
export interface Counted {
  readonly keep: number;
  readonly entries: number;
}

/** Counts what `packChunks` will send of `values`, whole chunks of an update. Throws as `packUpdate` does. */
export function countEntries(
  values: Float32Array | Float64Array,
  { keep, bits }: Pick<Compression, "keep" | "bits">,
): Counted {
  return bits === 64 ? countExact(values.length, keep) : countRounded(values, keep);
}

/** Packs whole chunks of an update in which no chunk sends more than `keep` entries, and some one that many. */
export function packChunks(
  values: Float32Array | Float64Array,
  { keep, bits }: Pick<Compression, "keep" | "bits">,
): PackedChunks {
  return bits === 64 ? packExact(values, keep) : packRounded(values, { keep, bits });
}

/** The update that consists of `parts`, in order. */
export function joinChunks(parts: readonly PackedChunks[], shape: Omit<Header, "bytes">): Bytes {
  const bits = parts.reduce((sum, { bitLength }) => sum + bitLength, 0);
  const tail = parts.reduce((sum, { exact }) => sum + exact.length, 0);
  const body = HEADER_BYTES + Math.ceil(bits / 8);
  assert(body + tail < 2 ** 32, `Cannot pack update: it has ${body + tail} bytes, need less than 2^32`);
  const bytes = new Uint8Array(body + tail);
  let at = HEADER_BYTES * 8;
  let exactAt = body;
  for (const { bits: part, bitLength, exact } of parts) {
    putPart(bytes, at, part);
    bytes.set(exact, exactAt);
    at += bitLength;
    exactAt += exact.length;
  }
  putHeader(new DataView(bytes.buffer), { ...shape, bytes: bytes.length });
  return bytes;
}

/** Writes `part` from bit `at` on, behind which there are zeros. */
function putPart(bytes: Bytes, at: number, part: Bytes): void {
  const [first, shift] = [Math.floor(at / 8), at % 8];
  if (shift === 0) {
    bytes.set(part, first);
    return;
  }
  for (let i = 0; i < part.length; i += 1) {
    const byte = (part[i] as number) << shift;
    bytes[first + i] = (bytes[first + i] as number) | (byte & 255);
    if (byte > 255) {
      bytes[first + i + 1] = byte >>> 8; // the padding, which may lie beyond the end, is zeros
    }
  }
}

/** The form with 1 to 4 bits. */
function packRounded(
  values: Float32Array | Float64Array,
  { keep, bits }: Pick<Compression, "keep" | "bits">,
): PackedChunks {
  const writer = createBitWriter(Math.ceil((chunksOf(values.length) * keep * (bits + 2)) / 8));
  const select = createSelector(CHUNK);
  const search = createLevelSearch();
  const scratch = createScratch();
  const { floats, patterns, picked, gaps } = scratch;
  for (let start = 0; start < values.length; start += CHUNK) {
    const length = loadChunk(values, start, scratch);
    const count = keep > 0 ? select(patterns, length, keep, picked) : 0;
    const rice = putShape(writer, { picked, count, length, keep, gaps });
    if (count === 0) {
      continue;
    }
    const levels = search(patterns, picked, count, bits);
    putBits(writer, levels.first | (levels.step << FIRST_BITS), FIRST_BITS + STEP_BITS);
    const valueBits = levels.step === 0 ? 1 : bits;
    for (let i = 0; i < count; i += 1) {
      if (count < length) {
        putGap(writer, gaps[i] as number, rice);
      }
      const index = picked[i] as number;
      const sign = (floats[index] as number) < 0 ? 1 : 0;
      const level = levelOf(classOf(patterns[index] as number), levels, bits);
      putBits(writer, sign | (level << 1), valueBits);
    }
  }
  return finish(writer, new Uint8Array(0));
}

/** The exact form. */
function packExact(values: Float32Array | Float64Array, keep: number): PackedChunks {
  const writer = createBitWriter(0);
  const { picked, gaps } = createScratch();
  const kept = new Float64Array(chunksOf(values.length) * keep);
  let entries = 0;
  for (let start = 0; start < values.length; start += CHUNK) {
    const chunk = values.subarray(start, start + CHUNK);
    for (let i = 0; i < chunk.length; i += 1) {
      const size = Math.abs(chunk[i] as number);
      assert(size <= VALUE_MAX, `Cannot pack update: entry ${start + i} is ${chunk[i]}, need a number in f32's range`);
    }
    const count = Math.min(keep, chunk.length);
    if (count === chunk.length) {
      kept.set(chunk, entries);
    } else {
      picked.set(selectBySorting(chunk, count));
      for (let i = 0; i < count; i += 1) {
        kept[entries + i] = chunk[picked[i] as number] as number;
      }
    }
    entries += count;
    const rice = putShape(writer, { picked, count, length: chunk.length, keep, gaps });
    for (let i = 0; i < count && count < chunk.length; i += 1) {
      putGap(writer, gaps[i] as number, rice);
    }
  }
  return finish(writer, new Uint8Array(kept.buffer, 0, entries * 8));
}

interface Scratch {
  /** One chunk as f32, and the same with the sign bits cleared and what is never sent set to zero. */
  readonly floats: Float32Array;
  readonly patterns: Uint32Array;
  readonly raw: Uint32Array;
  readonly picked: Uint16Array;
  readonly gaps: Uint16Array;
}

function createScratch(): Scratch {
  const floats = new Float32Array(CHUNK);
  const patterns = new Uint32Array(CHUNK);
  const raw = new Uint32Array(floats.buffer);
  return { floats, patterns, raw, picked: new Uint16Array(CHUNK), gaps: new Uint16Array(CHUNK) };
}

/** Loads the chunk at `start` as f32 bit patterns; returns its length. */
function loadChunk(
  values: Float32Array | Float64Array,
  start: number,
  { floats, patterns, raw }: Pick<Scratch, "floats" | "patterns" | "raw">,
): number {
  const length = Math.min(CHUNK, values.length - start);
  for (let i = 0; i < length; i += 1) {
    floats[i] = values[start + i] as number;
    const pattern = (raw[i] as number) & 0x7fffffff;
    patterns[i] = pattern <= SUBNORMAL ? 0 : pattern <= LARGEST ? pattern : LARGEST;
  }
  return length;
}

/** Every chunk sends min(keep, L) exact values. */
function countExact(parameters: number, keepMax: number): Counted {
  const keep = Math.min(keepMax, parameters);
  const last = parameters % CHUNK;
  return { keep, entries: Math.floor(parameters / CHUNK) * keep + Math.min(keep, last) };
}

/** Checks that all values are finite. */
function countRounded(values: Float32Array | Float64Array, keepMax: number): Counted {
  let keep = 0;
  let entries = 0;
  for (let start = 0; start < values.length; start += CHUNK) {
    const end = Math.min(start + CHUNK, values.length);
    let sendable = 0;
    let finite = true;
    for (let i = start; i < end; i += 1) {
      const value = values[i] as number;
      sendable += Math.abs(Math.fround(value)) >= SMALLEST ? 1 : 0;
      finite &&= Number.isFinite(value);
    }
    assert(finite, `Cannot pack update: an entry of ${start} to ${end - 1} is not a finite number`);
    const count = Math.min(keepMax, sendable);
    keep = Math.max(keep, count);
    entries += count;
  }
  return { keep, entries };
}

/** Writes a chunk's count and Rice parameter; fills `gaps`; returns the parameter. */
function putShape(
  writer: BitWriter,
  chunk: {
    readonly picked: Uint16Array;
    readonly count: number;
    readonly length: number;
    readonly keep: number;
    readonly gaps: Uint16Array;
  },
): number {
  const { picked, count, length, keep, gaps } = chunk;
  if (count === Math.min(keep, length)) {
    putBits(writer, 1, 1);
  } else {
    putBits(writer, count << 1, 1 + widthOf(keep));
  }
  if (count === 0 || count === length) {
    return 0;
  }
  let previous = -1;
  for (let i = 0; i < count; i += 1) {
    const index = picked[i] as number;
    gaps[i] = index - previous - 1;
    previous = index;
  }
  const rice = bestRice(gaps, count);
  putBits(writer, rice, RICE_BITS);
  return rice;
}

function putGap(writer: BitWriter, gap: number, rice: number): void {
  putUnary(writer, gap >>> rice);
  putBits(writer, gap & ((1 << rice) - 1), rice);
}

/** What was written, with the exact values that belong to it. */
function finish(writer: BitWriter, exact: Bytes): PackedChunks {
  const bitLength = writer.length * 8 + writer.filled;
  alignWriter(writer);
  return { bits: writer.bytes.slice(0, writer.length), bitLength, exact };
}
