/**
 * The packed update's layout, shared by `pack.ts` and `unpack.ts`. One update has exactly one packing, so its SHA-256 is a
 * commitment to its contents. All numbers are little-endian and bits fill each byte from its lowest bit up.
 *
 *     offset  bytes  field
 *          0      4  magic "HdlU"
 *          4      1  version, 2
 *          5      1  bits per value, b: 1 to 4, or 64
 *          6      2  keep: the largest number of entries in any chunk, 0 … 4,096
 *          8      4  P, the number of parameters; chunks follow from it: ceil(P / 4,096)
 *         12      4  entries in all chunks together
 *         16      4  length of the whole update in bytes, this header included
 *         20      …  bit section, one chunk after the other, padded with zero bits to a whole byte
 *          …      …  bits 64 only: the values in index order, f64
 *
 * A chunk covers L = 4,096 parameters, the last one what is left. Its bits:
 *
 *     1                       1: it has min(keep, L) entries; 0: the count follows, and is a smaller one
 *     width(keep)             the count n, if announced (width(x): bits needed to write x)
 *     4                       Rice parameter r, if 0 < n < L
 *     12 + 4                  b ≤ 4 and n > 0: class c of the lowest level (16 … 4,079), step s
 *     n × (gap, sign, level)  gap: if n < L, index − previous index − 1 as (gap >> r) zeros, a one, then r low bits;
 *                             sign: b ≤ 4, 1 bit, 1 is negative; level i: b ≤ 4 and s > 0, b − 1 bits
 *
 * A level's magnitude is that of the f32 with the bit pattern (c + i·2^(s−1))·2^19, which is finite, or c·2^19 where s is 0.
 *
 * What makes it the only packing: r is the smallest that costs the fewest bits; where s > 0 some entry has level 0 and some one
 * that is odd; keep is reached by some chunk (bits 64: it is at least 1 and every chunk has min(keep, L) entries); padding is
 * zero, nothing follows.
 * Rice coding: Rice and Plaunt (1971); for 64 of 4,096 it costs 7.5 bits an index where 7.36 is the bound and fixed-width
 * indices cost 12.
 */

export { CHUNK, chunksOf, FIRST_BITS, RICE_BITS, RICE_MAX, STEP_BITS, VALUE_BITS_MAX } from "../tensor/slots.ts";

export const MAGIC = 0x556c6448; // "HdlU", read little-endian
export const FORMAT_VERSION = 2;
export const HEADER_BYTES = 20;
/** Largest finite f32; no entry may be larger, with 64 bits either, because parameters are f32. */
export const VALUE_MAX = 3.4028234663852886e38;

export interface Header {
  readonly bits: number;
  readonly keep: number;
  readonly parameters: number;
  readonly entries: number;
  readonly bytes: number;
}

/** Bits needed to write `value`; 0 for 0. */
export function widthOf(value: number): number {
  return 32 - Math.clz32(value);
}

/** Writes the header to the first bytes of `view`. */
export function putHeader(view: DataView, { bits, keep, parameters, entries, bytes }: Header): void {
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, FORMAT_VERSION);
  view.setUint8(5, bits);
  view.setUint16(6, keep, true);
  view.setUint32(8, parameters, true);
  view.setUint32(12, entries, true);
  view.setUint32(16, bytes, true);
}
