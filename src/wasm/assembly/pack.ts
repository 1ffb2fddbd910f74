/**
 * What is sent of an update: error feedback, and the op `pack`, a tile of which is one chunk (`tensor/slots.ts`). Which entries
 * are sent is found by a radix search of 11, 10 and 10 bits, as in `update/select.ts`; the levels are those of
 * `tensor/magnitude.ts`. Integers only, so that every engine leaves the same bits.
 */
import { CLASS_MAX, CLASS_MIN, CLASS_SHIFT } from "./levels";
import { word, address, loadTail, storeTail } from "./math";
import { BLOCK, CHUNK, PACK_COUNTS, PACK_NUMBERS, PACK_PICKED, PACK_REST, PACK_SUMS } from "./opcodes";

const NOT_FINITE: u32 = 0xffffffff;
const RICE_MAX: i32 = 12;
const CLASSES: i32 = 16;
const OCTAVES: i32 = 10;
const SEARCHED: i32 = OCTAVES * CLASSES;
const STEP_MAX: i32 = 8;

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
  const valueBits = word(ins, 7);
  const levels = findLevels(count, valueBits, scratch);
  const first = levels & 4095;
  const step = levels >> 12;
  const half = step > 0 ? (1 << (step - 1)) >> 1 : 0;
  const top = (1 << (valueBits - 1)) - 1;
  at = put(slot, at, levels, 16);
  let previous = -1;
  for (let i = 0; i < count; i++) {
    const index = pickedAt(scratch, i);
    const place = (<usize>index) << 2;
    // What follows the zeros of a gap: a one, its low bits, the sign, the level.
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
    if (step > 0) {
      const level = (classOf(load<u32>(scratch + place)) - first + half) >> (step - 1);
      bits |= max(0, min(top, level)) << width;
      width += valueBits - 1;
    }
    at = put(slot, at, bits, width);
  }
  store<u32>(slot, count | (at << 16));
}

/** ORs the low `count` (1 to 17) bits of `value` into the slot, from bit `at` on; returns where they end. */
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
  return min(CLASS_MAX, <i32>((size + (1 << (CLASS_SHIFT - 1))) >> CLASS_SHIFT));
}

function sizeAt(scratch: usize, i: i32): u32 {
  return load<u32>(scratch + ((<usize>pickedAt(scratch, i)) << 2));
}

/** first | step << 12, as `createLevelSearch` finds them. */
function findLevels(count: i32, bits: i32, scratch: usize): i32 {
  const numbers = scratch + PACK_NUMBERS;
  const sums = scratch + PACK_SUMS;
  let highest = 0;
  for (let i = 0; i < count; i++) highest = max(highest, classOf(sizeAt(scratch, i)));
  const base = highest - (highest % CLASSES) + CLASSES - SEARCHED;
  // Numbers of the classes, each one place higher, then of those below each.
  memory.fill(numbers, 0, (SEARCHED + 1) << 2);
  for (let i = 0; i < count; i++) increment(numbers, max(0, classOf(sizeAt(scratch, i)) - base) + 1);
  let lowest = 0;
  while (at32(numbers, lowest + 1) == 0) lowest += 1;
  let squares = 0;
  store<i32>(sums, 0);
  for (let at = 0; at < SEARCHED; at++) {
    const n = at32(numbers, at + 1);
    const units = unitsOf(at);
    const place = (<usize>(at + 1)) << 2;
    store<i32>(numbers + place, at32(numbers, at) + n);
    store<i32>(sums + place, at32(sums, at) + n * units);
    squares += n * units * units;
  }
  const end = highest - base + 1;
  let best = 0;
  let bestStep = 0;
  let least: u32 = u32.MAX_VALUE;
  for (let first = lowest; first < end; first++) {
    const error = <u32>(squares + errorOf(first, 0, SEARCHED, scratch));
    if (error < least) {
      least = error;
      best = first;
    }
  }
  const top = (1 << (bits - 1)) - 1;
  const levelMax = min(end + CLASSES - 2, CLASS_MAX - base);
  for (let step = top == 0 ? 0 : STEP_MAX; step > 0; step--) {
    const wide = 1 << (step - 1);
    const half = wide >> 1;
    const firstMin = max(lowest - wide + half + 1, CLASS_MIN - base);
    for (let first = firstMin; first < end - wide + half; first++) {
      const last = min(top, (end - 1 - first + half) >> (step - 1));
      if (first + last * wide > levelMax) continue;
      // Modulo 2^32, below which the sum is.
      let error = squares;
      let from = 0;
      for (let i = 0; i <= last; i++) {
        const to = i == last ? end : first + (i + 1) * wide - half;
        error += errorOf(first + i * wide, from, to, scratch);
        from = to;
      }
      if (<u32>error < least) {
        least = error;
        best = first;
        bestStep = step;
      }
    }
  }
  // The same levels with the largest step that reaches all that are used.
  if (bestStep > 0) {
    let used = 0;
    const wide = 1 << (bestStep - 1);
    for (let level = 1; level <= top; level++) {
      const from = best + level * wide - (wide >> 1);
      const to = level == top ? end : min(end, from + wide);
      if (from < end && at32(numbers, to) != at32(numbers, from)) used |= level;
    }
    bestStep += ctz(used);
  }
  return (base + best) | (bestStep << 12);
}

/** What the values of the classes from `from` up to `to` add to the error when they are sent as `level`, but for their squares. */
function errorOf(level: i32, from: i32, to: i32, scratch: usize): i32 {
  const n = at32(scratch + PACK_NUMBERS, to) - at32(scratch + PACK_NUMBERS, from);
  const sum = at32(scratch + PACK_SUMS, to) - at32(scratch + PACK_SUMS, from);
  const units = unitsOf(level);
  return units * (n * units - 2 * sum);
}

/** A magnitude of a class in units; both count from the lowest class searched. */
function unitsOf(at: i32): i32 {
  return ((CLASSES + (at & (CLASSES - 1))) << 5) >> min(31, OCTAVES - (at >> 4));
}

function at32(words: usize, at: i32): i32 {
  return load<i32>(words + ((<usize>at) << 2));
}
