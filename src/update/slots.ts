/**
 * From the slots that the op `pack` leaves (`tensor/slots.ts`) to the bytes that travel: the same ones, bit for bit, that
 * `packUpdate` makes of the same residual. What is left to the host is to count: the header, and each chunk's own count, whose
 * width depends on the fullest chunk.
 */
import { assert } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { NOT_FINITE, type PackForm, slotWords } from "../tensor/slots.ts";
import { CHUNK, chunksOf, HEADER_BYTES, putHeader, widthOf } from "./format.ts";

/** P, and what the op was told. */
export interface SlotShape extends PackForm {
  readonly parameters: number;
}

/** The update in `slots` [chunks, slotWords]; null where a number is not finite. */
export function joinSlots(slots: Uint32Array, { parameters, ...form }: SlotShape): Bytes | null {
  const words = slotWords(form);
  const chunks = chunksOf(parameters);
  assert(slots.length === chunks * words, `Cannot join slots: got ${slots.length} words, need ${chunks * words}`);
  let [keep, entries, bodyBits] = [0, 0, 0];
  for (let at = 0; at < slots.length; at += words) {
    const head = slots[at] as number;
    if (head === NOT_FINITE) {
      return null;
    }
    keep = Math.max(keep, head & 0xffff);
    entries += head & 0xffff;
    bodyBits += head >>> 16;
  }
  const width = widthOf(keep);
  // A word more than the bits need, so that the last one may be written whole.
  const out = new Uint32Array(Math.ceil((bodyBits + chunks * (1 + width)) / 32) + 2);
  let end = 0;
  const put = (value: number, count: number): void => {
    const [at, shift] = [end >>> 5, end & 31];
    out[at] = (out[at] as number) | (value << shift);
    out[at + 1] = shift === 0 ? 0 : value >>> (32 - shift);
    end += count;
  };
  for (let chunk = 0; chunk < chunks; chunk += 1) {
    const at = chunk * words;
    const [count, length] = [(slots[at] as number) & 0xffff, (slots[at] as number) >>> 16];
    if (count === Math.min(keep, parameters - chunk * CHUNK, CHUNK)) {
      put(1, 1);
    } else {
      put(count << 1, 1 + width);
    }
    for (let from = 0; from < length; from += 32) {
      put(slots[at + 1 + from / 32] as number, Math.min(32, length - from));
    }
  }
  const body = Math.ceil(end / 8);
  const bytes = new Uint8Array(HEADER_BYTES + body);
  putHeader(new DataView(bytes.buffer), { bits: form.bits, keep, parameters, entries, bytes: bytes.length });
  // Bits fill bytes from the lowest up, as bytes do words.
  for (let i = 0; i < body; i += 1) {
    bytes[HEADER_BYTES + i] = (out[i >>> 2] as number) >>> (8 * (i & 3));
  }
  return bytes;
}
