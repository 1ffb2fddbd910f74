/**
 * How the op `pack` leaves a chunk of an update: its bits as `update/format.ts` has them, but for its count, in a slot of as
 * many words as the longest chunk could need. The count's width depends on the fullest chunk of all, so who joins the slots
 * writes it (`update/slots.ts`).
 *
 * Word 0 of a slot is the count of its entries, and above its 16 bits the number of bits that follow, from the lowest bit of
 * word 1 up. What is left of the slot is zero. A chunk with a number that is not finite has NOT_FINITE for word 0.
 */
import { gapBitsMax } from "../base/rice.ts";

export { RICE_MAX } from "../base/rice.ts";

/** Parameters that a slot is for. */
export const CHUNK = 4096;
export const NOT_FINITE = 0xffff_ffff;
/** Bits that say which levels a chunk's entries have: the first one's class, then the step; and which Rice parameter its gaps. */
export const FIRST_BITS = 12;
export const STEP_BITS = 4;
export const RICE_BITS = 4;

/** What the op `pack` sends: `keep` entries of a chunk at most, with `bits` bits a value, 1 to 4. */
export interface PackForm {
  readonly keep: number;
  readonly bits: number;
}

/** Bits of a value at most. */
export const VALUE_BITS_MAX = 4;

/** Words of a slot. */
export function slotWords({ keep, bits: valueBits }: PackForm): number {
  let bits = 0;
  for (let n = 1; n <= keep; n += 1) {
    bits = Math.max(bits, FIRST_BITS + STEP_BITS + valueBits * n + gapsMax(n));
  }
  return 1 + Math.ceil(bits / 32);
}

/** The most bits that the gaps of `n` entries can take, with their Rice parameter; of a whole chunk none are sent. */
function gapsMax(n: number): number {
  return n < CHUNK ? RICE_BITS + gapBitsMax({ count: n, sum: CHUNK - n }) : 0;
}

/** Slots of P parameters. */
export function chunksOf(parameters: number): number {
  return Math.ceil(parameters / CHUNK);
}
