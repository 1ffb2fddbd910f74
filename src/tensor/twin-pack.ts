/**
 * The op `pack` as the twin computes it: chunk after chunk, by sorting, and bit after bit. The codec's own loops
 * (`update/pack.ts`) are faster and are compared with it, as every kernel is.
 */
import { classOf, createLevelSearch, levelOf } from "./magnitude.ts";
import { CHUNK, FIRST_BITS, NOT_FINITE, type PackForm, RICE_BITS, RICE_MAX, STEP_BITS } from "./slots.ts";

/** Fills `slots` [chunks, `slotWords`] with what is sent of `residual` [P]. */
export function packInto(
  slots: Uint32Array,
  residual: Float32Array | Float64Array,
  form: PackForm,
  slotWords: number,
): void {
  slots.fill(0);
  for (let start = 0, at = 0; start < residual.length; start += CHUNK, at += slotWords) {
    packChunk(Float32Array.from(residual.subarray(start, start + CHUNK)), form, slots.subarray(at, at + slotWords));
  }
}

function packChunk(values: Float32Array<ArrayBuffer>, form: PackForm, slot: Uint32Array): void {
  if (!values.every((value) => Number.isFinite(value))) {
    slot[0] = NOT_FINITE;
    return;
  }
  const sizes = new Uint32Array(values.buffer).map((bits) => bits & 0x7fff_ffff);
  const picked = pickLargest(sizes, form.keep);
  let bits = 0;
  /** Appends the low `count` bits of `value`, lowest first. */
  const put = (value: number, count: number): void => {
    for (let i = 0; i < count; i += 1, bits += 1) {
      const at = 1 + (bits >>> 5);
      slot[at] = (slot[at] as number) | (((value >>> i) & 1) << (bits & 31));
    }
  };
  if (picked.length > 0) {
    const whole = picked.length === values.length;
    const gaps = picked.map((index, i) => index - (picked[i - 1] ?? -1) - 1);
    const rice = cheapestRice(gaps);
    const levels = createLevelSearch()(sizes, Uint16Array.from(picked), picked.length, form.bits);
    if (!whole) {
      put(rice, RICE_BITS);
    }
    put(levels.first, FIRST_BITS);
    put(levels.step, STEP_BITS);
    picked.forEach((index, i) => {
      const gap = gaps[i] as number;
      if (!whole) {
        put(0, gap >>> rice);
        put(1, 1);
        put(gap, rice);
      }
      put((values[index] as number) < 0 ? 1 : 0, 1);
      if (levels.step > 0) {
        put(levelOf(classOf(sizes[index] as number), levels, form.bits), form.bits - 1);
      }
    });
  }
  slot[0] = picked.length | (bits << 16);
}

/** Indices of the `keep` largest, of equal ones the lower index, ascending; without zeros and subnormal numbers. */
function pickLargest(sizes: Uint32Array, keep: number): number[] {
  const sendable = Array.from(sizes.keys()).filter((i) => (sizes[i] as number) > 0x7f_ffff);
  sendable.sort((i, j) => (sizes[j] as number) - (sizes[i] as number) || i - j);
  return sendable.slice(0, keep).sort((i, j) => i - j);
}

/** The smallest Rice parameter of those that code `gaps` in the fewest bits. */
function cheapestRice(gaps: readonly number[]): number {
  const costs = Array.from({ length: RICE_MAX + 1 }, (_, rice) =>
    gaps.reduce((bits, gap) => bits + (gap >>> rice) + 1 + rice, 0),
  );
  return costs.indexOf(Math.min(...costs));
}
