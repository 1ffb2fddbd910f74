/**
 * Bits to bytes and back, lowest bit first. The writer grows as needed; the reader yields zeros past the end and leaves it
 * to the caller to ask `overrun`, once a chunk rather than once a bit. Plain state and functions, because these are the
 * innermost loops of the codec.
 */
import type { Bytes } from "../base/bytes.ts";

export interface BitWriter {
  bytes: Bytes;
  /** Whole bytes written. */
  length: number;
  /** Bits not yet written, lowest first. */
  word: number;
  filled: number;
}

export function createBitWriter(reserveBytes: number): BitWriter {
  return { bytes: new Uint8Array(Math.max(64, reserveBytes)), length: 0, word: 0, filled: 0 };
}

/** Appends the low `count` bits (0 … 24) of `value`, whose other bits are zero. */
export function putBits(writer: BitWriter, value: number, count: number): void {
  writer.word |= value << writer.filled;
  writer.filled += count;
  while (writer.filled >= 8) {
    if (writer.length === writer.bytes.length) {
      grow(writer);
    }
    writer.bytes[writer.length] = writer.word & 255;
    writer.length += 1;
    writer.word >>>= 8;
    writer.filled -= 8;
  }
}

/** Appends `zeros` zero bits and a one. */
export function putUnary(writer: BitWriter, zeros: number): void {
  let left = zeros;
  while (left >= 16) {
    putBits(writer, 0, 16);
    left -= 16;
  }
  putBits(writer, 1 << left, left + 1);
}

/** Fills the last byte with zero bits. */
export function alignWriter(writer: BitWriter): void {
  if (writer.filled > 0) {
    putBits(writer, 0, 8 - writer.filled);
  }
}

function grow(writer: BitWriter): void {
  const larger = new Uint8Array(writer.bytes.length * 2);
  larger.set(writer.bytes);
  writer.bytes = larger;
}

export interface BitReader {
  readonly bytes: Uint8Array;
  /** Next byte to load; may pass the end. */
  at: number;
  /** Bits loaded and not yet read, lowest first; bits above `filled` are zero. */
  word: number;
  filled: number;
}

export function createBitReader(bytes: Uint8Array, at: number): BitReader {
  return { bytes, at, word: 0, filled: 0 };
}

/** The next `count` bits (0 … 24) as an unsigned integer; zeros past the end. */
export function takeBits(reader: BitReader, count: number): number {
  if (reader.filled < count) {
    load(reader);
  }
  const value = reader.word & ((1 << count) - 1);
  reader.word >>>= count;
  reader.filled -= count;
  return value;
}

/** Number of zero bits before the next one, which is read too; −1 when there are more than `max`. */
export function takeUnary(reader: BitReader, max: number): number {
  let zeros = 0;
  while (reader.word === 0) {
    zeros += reader.filled;
    if (zeros > max) {
      return -1;
    }
    reader.filled = 0;
    load(reader);
  }
  const low = 31 - Math.clz32(reader.word & -reader.word);
  reader.word >>>= low;
  reader.word >>>= 1;
  reader.filled -= low + 1;
  return zeros + low > max ? -1 : zeros + low;
}

/** Whether more bits were read than there are. */
export function overrun(reader: BitReader): boolean {
  return reader.at - (reader.filled >>> 3) > reader.bytes.length;
}

/** Skips to the next whole byte; returns its offset, or −1 when the skipped bits are not all zero. */
export function alignReader(reader: BitReader): number {
  const spare = reader.filled & 7;
  const padding = reader.word & ((1 << spare) - 1);
  return padding === 0 ? reader.at - (reader.filled >>> 3) : -1;
}

/** Loads bytes until more than 24 bits are there. */
function load(reader: BitReader): void {
  while (reader.filled <= 24) {
    reader.word |= (reader.at < reader.bytes.length ? (reader.bytes[reader.at] as number) : 0) << reader.filled;
    reader.at += 1;
    reader.filled += 8;
  }
}
