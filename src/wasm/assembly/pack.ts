/**
 * What is sent of an update: error feedback, and the op `pack`, a tile of which is one chunk (`tensor/slots.ts`). Which entries
 * are sent is found by a radix search of 11, 10 and 10 bits, as in `update/select.ts`; the two magnitudes are those of
 * `tensor/magnitude.ts`. Integers only, so that every engine leaves the same bits.
 */
import { word, address, loadTail, storeTail } from "./math";
import { BLOCK, CHUNK, PACK_COUNTS, PACK_NUMBERS, PACK_PICKED, PACK_REST, PACK_SUMS } from "./opcodes";

const NOT_FINITE: u32 = 0xffffffff;
const RICE_MAX: i32 = 12;
const CLASSES: i32 = 4;
const UNIT_BITS: i32 = 16;
const EXPONENT_MAX: i32 = 254;
const OCTAVES: i32 = 32;

/** residual = scale · residual + (base − params). */
export function feedbackTile(ins: usize, tile: i32): void {
  const from = (<usize>tile * BLOCK) << 2;
  let left = min(BLOCK, word(ins, 6) - tile * BLOCK);
  let residual = address(ins, 2) + from;
  let base = address(ins, 3) + from;
  let params = address(ins, 4) + from;
  const scale = f32x4.splat(load<f32>(address(ins, 5)));
  for (; left >= 4; left -= 4) {
    const change = f32x4.sub(v128.load(base), v128.load(params));
    v128.store(residual, f32x4.add(f32x4.mul(scale, v128.load(residual)), change));
    residual += 16;
    base += 16;
    params += 16;
  }
  if (left > 0) {
    const change = f32x4.sub(loadTail(base, left, 0), loadTail(params, left, 0));
    storeTail(residual, f32x4.add(f32x4.mul(scale, loadTail(residual, left, 0)), change), left);
  }
}

export function packChunkTile(ins: usize, tile: i32, scratch: usize): void {
  const from = tile * CHUNK;
  const length = min(CHUNK, word(ins, 4) - from);
  const values = address(ins, 2) + ((<usize>from) << 2);
  const bytes = (<usize>word(ins, 6)) << 2;
  const slot = address(ins, 3) + <usize>tile * bytes;
  memory.fill(slot, 0, bytes);
  if (!loadPatterns(values, length, scratch)) {
    store<u32>(slot, NOT_FINITE);
    return;
  }
  const count = select(length, word(ins, 5), scratch);
  if (count == 0) return;
  const whole = count == length;
  let at = 0;
  let rice = 0;
  if (!whole) {
    rice = bestRice(count, scratch);
    at = put(slot, at, rice, 4);
  }
  const found = magnitudes(count, scratch);
  const low = <i32>(found & 0xff);
  const high = <i32>((found >> 8) & 0xff);
  const split = <i32>(found >> 16);
  at = put(slot, at, low | (high << 8), 16);
  let previous = -1;
  for (let i = 0; i < count; i++) {
    const index = pickedAt(scratch, i);
    const place = (<usize>index) << 2;
    // What follows the zeros of a gap: a one, its low bits, the sign, the pick.
    let bits = 0;
    let width = 0;
    if (!whole) {
      const gap = index - previous - 1;
      at += gap >> rice;
      bits = 1 | ((gap & ((1 << rice) - 1)) << 1);
      width = 1 + rice;
      previous = index;
    }
    bits |= (<i32>(load<u32>(values + place) >> 31)) << width;
    width += 1;
    if (low < high) {
      bits |= (classOf(load<u32>(scratch + place)) >= split ? 1 : 0) << width;
      width += 1;
    }
    at = put(slot, at, bits, width);
  }
  store<u32>(slot, count | (at << 16));
}

/** ORs the low `count` (1 to 16) bits of `value` into the slot, from bit `at` on; returns where they end. */
function put(slot: usize, at: i32, value: i32, count: i32): i32 {
  const place = slot + 4 + ((<usize>(at >> 5)) << 2);
  const shifted = (<u64>value) << (at & 31);
  store<u32>(place, load<u32>(place) | <u32>shifted);
  // Words of the next slot are another thread's.
  if ((at & 31) + count > 32) store<u32>(place, <u32>(shifted >> 32), 4);
  return at + count;
}

function pickedAt(scratch: usize, i: i32): i32 {
  return load<u16>(scratch + PACK_PICKED + ((<usize>i) << 1));
}

/** Bit patterns without sign, of what is never sent 0, to the beginning of the scratch memory; whether all are finite. */
function loadPatterns(values: usize, length: i32, scratch: usize): bool {
  let largest: u32 = 0;
  for (let i: usize = 0; i < <usize>length; i++) {
    const size = load<u32>(values + (i << 2)) & 0x7fffffff;
    largest = max(largest, size);
    store<u32>(scratch + (i << 2), size > 0x7fffff ? size : 0);
  }
  return largest < 0x7f800000;
}

/** Writes the indices of the `keep` largest patterns, ascending and of equal ones the lower index; returns their number. */
function select(length: i32, keep: i32, scratch: usize): i32 {
  const counts = scratch + PACK_COUNTS;
  const rest = scratch + PACK_REST;
  memory.fill(counts, 0, 2048 << 2);
  let nonzero = 0;
  for (let i: usize = 0; i < <usize>length; i++) {
    const size = load<u32>(scratch + (i << 2));
    nonzero += size > 0 ? 1 : 0;
    increment(counts, size >> 20);
  }
  if (nonzero <= keep) return pick(length, 0, 0, scratch);
  // The bin of the smallest pattern kept, and how many of that bin are.
  let found = descend(counts, 2047, keep);
  let top = found >> 16;
  let n: usize = 0;
  for (let i: usize = 0; i < <usize>length; i++) {
    const size = load<u32>(scratch + (i << 2));
    if (size >> 20 == top) {
      store<u32>(rest + (n << 2), size);
      n += 1;
    }
  }
  for (let shift: i32 = 10; shift >= 0; shift -= 10) {
    memory.fill(counts, 0, 1024 << 2);
    for (let i: usize = 0; i < n; i++) increment(counts, (load<u32>(rest + (i << 2)) >> shift) & 1023);
    found = descend(counts, 1023, <i32>(found & 0xffff));
    top = (top << 10) | (found >> 16);
    let m: usize = 0;
    for (let i: usize = 0; i < n; i++) {
      const size = load<u32>(rest + (i << 2));
      if (size >> shift == top) {
        store<u32>(rest + (m << 2), size);
        m += 1;
      }
    }
    n = m;
  }
  return pick(length, top, <i32>(found & 0xffff), scratch);
}

function increment(counts: usize, bin: u32): void {
  const place = counts + ((<usize>bin) << 2);
  store<u32>(place, load<u32>(place) + 1);
}

/** Goes down from bin `from` until `keep` are passed: the bin reached, and below 16 bits how many of it are still to be kept. */
function descend(counts: usize, from: i32, keep: i32): u32 {
  let bin = from;
  let left = keep;
  let n = <i32>load<u32>(counts + ((<usize>bin) << 2));
  while (n < left) {
    left -= n;
    bin -= 1;
    n = <i32>load<u32>(counts + ((<usize>bin) << 2));
  }
  return ((<u32>bin) << 16) | <u32>left;
}

/** Picks everything above a pattern and the first `equal` that equal it. */
function pick(length: i32, above: u32, equal: i32, scratch: usize): i32 {
  let n = 0;
  let left = equal;
  for (let i = 0; i < length; i++) {
    const size = load<u32>(scratch + ((<usize>i) << 2));
    if (size < above || size == 0) continue;
    if (size == above) {
      if (left == 0) continue;
      left -= 1;
    }
    store<u16>(scratch + PACK_PICKED + ((<usize>n) << 1), <u16>i);
    n += 1;
  }
  return n;
}

/** The smallest Rice parameter that codes the gaps in the fewest bits (`update/rice.ts`). */
function bestRice(count: i32, scratch: usize): i32 {
  let rice = 0;
  for (; rice < RICE_MAX; rice++) {
    let saved = 0;
    let previous = -1;
    for (let i = 0; i < count; i++) {
      const index = pickedAt(scratch, i);
      saved += (((index - previous - 1) >> rice) + 1) >> 1;
      previous = index;
    }
    if (saved <= count) break;
  }
  return rice;
}

function classOf(size: u32): i32 {
  return <i32>(size >> 23) * CLASSES + 32 - clz<i32>(<i32>((size >> 20) & 7));
}

function sizeAt(scratch: usize, i: i32): u32 {
  return load<u32>(scratch + ((<usize>pickedAt(scratch, i)) << 2));
}

/** low | high << 8 | split << 16, as `createMagnitudeSearch` finds them. */
function magnitudes(count: i32, scratch: usize): u32 {
  const numbers = scratch + PACK_NUMBERS;
  const sums = scratch + PACK_SUMS;
  let last = 0;
  for (let i = 0; i < count; i++) last = max(last, <i32>(sizeAt(scratch, i) >> 23));
  let first = last;
  let dust = 0;
  for (let i = 0; i < count; i++) {
    const octave = <i32>(sizeAt(scratch, i) >> 23);
    if (octave > last - OCTAVES) first = min(first, octave);
    else dust = max(dust, octave);
  }
  const start = first * CLASSES;
  const end = (last + 1) * CLASSES;
  const bytes = (<usize>(end - start)) << 2;
  memory.fill(numbers + ((<usize>start) << 2), 0, bytes);
  memory.fill(sums + ((<usize>start) << 2), 0, bytes);
  let below = 0;
  let belowSum: u32 = 0;
  for (let i = 0; i < count; i++) {
    const size = sizeAt(scratch, i);
    const octave = <i32>(size >> 23);
    const units = ((size & 0x7fffff) | 0x800000) >> (23 - UNIT_BITS);
    if (octave < first) {
      below += 1;
      belowSum += units >> min(31, dust - octave);
    } else {
      const place = (<usize>classOf(size)) << 2;
      store<u32>(numbers + place, load<u32>(numbers + place) + 1);
      store<u32>(sums + place, load<u32>(sums + place) + units);
    }
  }
  let total: u32 = 0;
  for (let at = start; at < end; at++) total += load<u32>(sums + ((<usize>at) << 2)) >> (last - (at >> 2));
  const only = powerFor(count, total, last);
  let best: u32 = ((last - UNIT_BITS + only) * 257) | (end << 16);
  let least = errorOf(count, total, only, 0);
  let belowInLast: u32 = 0;
  let top = below > 0 ? dust : first;
  for (let at = start; at < end; at++) {
    const n = <i32>load<u32>(numbers + ((<usize>at) << 2));
    if (n == 0) continue;
    if (below > 0) {
      const small = powerFor(below, belowSum, top);
      const large = powerFor(count - below, total - belowInLast, last);
      const low = top - UNIT_BITS + small;
      const high = last - UNIT_BITS + large;
      const error = errorOf(below, belowSum, small, last - top) + errorOf(count - below, total - belowInLast, large, 0);
      if (low < high && error < least) {
        least = error;
        best = low | (high << 8) | (at << 16);
      }
    }
    const sum = load<u32>(sums + ((<usize>at) << 2));
    belowSum = (belowSum >> min(31, (at >> 2) - top)) + sum;
    top = at >> 2;
    below += n;
    belowInLast += sum >> (last - top);
  }
  return best;
}

/** The power of two, in bits of a unit of octave `top`, that is nearest to the mean of `n` values. */
function powerFor(n: i32, sum: u32, top: i32): i32 {
  let power = min(UNIT_BITS + 1, UNIT_BITS + EXPONENT_MAX - top);
  while (sum << 2 <= (<u32>(3 * n)) << power) power -= 1;
  return power;
}

/** Their error but for the squares of the values, in squared units of an octave that is `up` above theirs, rounded down. */
function errorOf(n: i32, sum: u32, power: i32, up: i32): i64 {
  const part = ((<i64>n) << power) - 2 * <i64>sum;
  const shift = power - 2 * up;
  return shift >= 0 ? part << shift : part >> min(63, -shift);
}
