/**
 * The merge of packed updates, a module of its own: for each chunk of 4,096 parameters the payloads' entries are decoded and
 * added up one payload after the other, while the chunk's sums are in the processor's cache. The layout of a
 * packed update is in `src/update/format.ts`; `src/update/range.ts` plans the memory and calls this, with payloads or with the
 * pieces of them that a range of chunks has, which `skip` finds. The module keeps no state: a payload's cursor lies where the
 * caller says.
 *
 * Payloads were checked when they came. Of damaged ones it is asked only that nothing is written outside the chunk, and nothing
 * read outside the payloads and READ_AHEAD bytes behind them; most are noticed.
 */

import { CLASS_MAX, CLASS_MIN, CLASS_SHIFT } from "./levels";

const CHUNK: i32 = 4096;
const RICE_BITS: u64 = 4;
const VALUE_MAX: f64 = 3.4028234663852886e38;
/** Bits that a load at any bit position gives at least. */
const WORD_BITS: u64 = 57;
/** No position. */
const DAMAGED: u64 = u64.MAX_VALUE;
/** No Rice parameter: all parameters of the chunk are sent. */
const NO_GAPS: u64 = 16;

/** Payloads whose next bytes are loaded together, and about how many of each; change speed only. */
const TOUCHED: i32 = 16;
const TOUCHED_BYTES: usize = 256;

/** The values that the entries of a chunk pick from, f64: of each level the positive and the negative one. */
const VALUES: usize = memory.data(16 * 8, 16);
/** Takes what is computed for nothing. */
const SINK: usize = memory.data(8, 8);

// A cursor: the next bit, counted from address 0, and the first that is not of the bit section; the next exact value; how many
// times values count; entries that are left; keep and bits per value, as the header says.
const AT: usize = 0;
const END: usize = 8;
const EXACT: usize = 16;
const SCALE: usize = 24;
const LEFT: usize = 32;
const KEEP: usize = 36;
const BITS: usize = 40;

export const CURSOR_BYTES: i32 = 48;
/** Bytes behind the last payload that are read and not used. */
export const READ_AHEAD: i32 = 320;

/** The first address that the module does not use itself. */
export function heapBegin(): usize {
  return __heap_base;
}

/**
 * Makes a cursor for the chunks whose bits begin at bit `from` (0 … 7) of `piece` and are `length` many, whose exact values, if
 * any, lie at `exact`, and which have `entries` entries; `keep` and `bits` are the header's. Values count times `scale`.
 */
export function open(
  cursor: usize,
  piece: usize,
  from: u32,
  length: f64,
  exact: usize,
  entries: u32,
  keep: i32,
  bits: i32,
  scale: f64,
): void {
  const at = <u64>piece * 8 + from;
  store<u64>(cursor, at, AT);
  store<u64>(cursor, at + <u64>length, END);
  store<u32>(cursor, <u32>exact, EXACT);
  store<f64>(cursor, scale, SCALE);
  store<u32>(cursor, entries, LEFT);
  store<i32>(cursor, keep, KEEP);
  store<i32>(cursor, bits, BITS);
}

/** Moves a cursor over `chunks` whole chunks, of which nothing is merged. False if they are damaged. */
export function skip(cursor: usize, chunks: u32): bool {
  for (let i: u32 = 0; i < chunks; i++) {
    if (!skipChunk(cursor)) return false;
  }
  return true;
}

/** The next bit of a cursor, counted from address 0. */
export function bitOf(cursor: usize): f64 {
  return <f64>load<u64>(cursor, AT);
}

/** Entries that a cursor has before it. */
export function leftOf(cursor: usize): u32 {
  return load<u32>(cursor, LEFT);
}

/**
 * Merges `count` payloads, whose cursors lie one behind the other in the order of their merging, into the sums from `sums` on, f64
 * in whole chunks; `begins` clears them first. Returns −1, or the number of the cursor that is damaged.
 */
export function merge(cursors: usize, count: i32, parameters: u32, sums: usize, begins: bool): i32 {
  for (let start: u32 = 0; start < parameters; start += CHUNK) {
    const length = <i32>min<u32>(CHUNK, parameters - start);
    if (begins) memory.fill(sums, 0, CHUNK * 8);
    for (let i = 0; i < count; i++) {
      const cursor = cursors + <usize>i * CURSOR_BYTES;
      if (i % TOUCHED == 0) touch(cursor, min(TOUCHED, count - i));
      if (!mergeChunk(cursor, length, sums)) return i;
    }
    sums += CHUNK * 8;
  }
  for (let i = 0; i < count; i++) {
    const cursor = cursors + <usize>i * CURSOR_BYTES;
    // The last chunk of an update is followed by what fills its byte.
    if (load<u64>(cursor, END) - load<u64>(cursor, AT) >= 8 || load<u32>(cursor, LEFT) != 0) return i;
  }
  return -1;
}

/**
 * Loads what the next chunk of several payloads probably takes, so that these misses of the cache are waited for together: the
 * processor cannot follow a hundred streams of a few bytes each by itself. What is loaded is used for nothing.
 */
function touch(cursors: usize, count: i32): void {
  let sum: u8 = 0;
  for (let i = 0; i < count; i++) {
    const cursor = cursors + <usize>i * CURSOR_BYTES;
    const at = <usize>(load<u64>(cursor, AT) >> 3);
    const end = at + min(<usize>load<i32>(cursor, KEEP), TOUCHED_BYTES);
    for (let from = at; from <= end; from += 64) sum += load<u8>(from);
  }
  store<u8>(SINK, sum);
}

/** The 64 bits at a position, of which the low 57 are what follows there. */
function wordAt(at: u64): u64 {
  return load<u64>(<usize>(at >> 3)) >> (at & 7);
}

/**
 * What the next chunk of one payload begins with: how many entries it has, counted off those that are left, and how many bits
 * said so, times 2^16. −1 if it is damaged.
 */
function takeCount(cursor: usize, word: u64, length: i32): i32 {
  const keep = load<i32>(cursor, KEEP);
  let count = min(keep, length);
  let used = 1;
  if ((word & 1) == 0) {
    const width = 32 - clz(keep);
    count = <i32>(word >> 1) & ((1 << width) - 1);
    used += width;
    if (count > length) return -1;
  }
  const left = load<u32>(cursor, LEFT);
  if (<u32>count > left) return -1;
  store<u32>(cursor, left - count, LEFT);
  return count | (used << 16);
}

/** The next chunk of one payload, of `length` parameters. False if it is damaged. */
function mergeChunk(cursor: usize, length: i32, sums: usize): bool {
  let at = load<u64>(cursor, AT);
  const word = wordAt(at);
  const taken = takeCount(cursor, word, length);
  if (taken < 0) return false;
  const count = taken & 0xffff;
  let used: u64 = taken >> 16;
  let rice: u64 = NO_GAPS;
  if (count > 0 && count < length) {
    rice = (word >> used) & 15;
    used += RICE_BITS;
  }
  if (count == 0) {
    at += used;
  } else if (load<i32>(cursor, BITS) == 64) {
    const values = <usize>load<u32>(cursor, EXACT);
    if (!areSound(values, count)) return false;
    store<u32>(cursor, <u32>values + ((<u32>count) << 3), EXACT);
    at = mergeEntries<f64>(cursor, at + used, rice, count, length, values, sums);
  } else {
    const first = <i32>(word >> used) & 4095;
    const step = <i32>(word >> (used + 12)) & 15;
    if (first < CLASS_MIN || first > CLASS_MAX) return false;
    at += used + 16;
    const bits = step == 0 ? 1 : load<i32>(cursor, BITS);
    fillValues(first, step, bits, load<f64>(cursor, SCALE));
    if (bits == 1) at = mergeEntries<u8>(cursor, at, rice, count, length, VALUES, sums);
    else if (bits == 2) at = mergeEntries<u16>(cursor, at, rice, count, length, VALUES, sums);
    else if (bits == 3) at = mergeEntries<u32>(cursor, at, rice, count, length, VALUES, sums);
    else at = mergeEntries<u64>(cursor, at, rice, count, length, VALUES, sums);
  }
  if (at > load<u64>(cursor, END)) return false;
  store<u64>(cursor, at, AT);
  return true;
}

/** The next chunk of one payload, a whole one, passed over. False if it is damaged. */
function skipChunk(cursor: usize): bool {
  let at = load<u64>(cursor, AT);
  const word = wordAt(at);
  const taken = takeCount(cursor, word, CHUNK);
  if (taken < 0) return false;
  const count = taken & 0xffff;
  let used: u64 = taken >> 16;
  if (count > 0) {
    let bits: u64 = load<i32>(cursor, BITS);
    let rice: u64 = NO_GAPS;
    if (count < CHUNK) {
      rice = (word >> used) & 15;
      used += RICE_BITS;
    }
    if (bits == 64) {
      bits = 0;
    } else {
      if (((word >> (used + 12)) & 15) == 0) bits = 1;
      used += 16;
    }
    const end = load<u64>(cursor, END);
    at = rice == NO_GAPS ? at + used + <u64>count * bits : skipEntries(at + used, rice + 1 + bits, count, end);
    if (at > end) return false;
  } else {
    at += used;
  }
  store<u64>(cursor, at, AT);
  return at <= load<u64>(cursor, END);
}

/** Passes over `count` entries of some zeros and `rest` bits; four from one load where they fit. DAMAGED if there are not as many. */
function skipEntries(at: u64, rest: u64, count: i32, end: u64): u64 {
  let i = 0;
  while (i < count) {
    if (at > end) return DAMAGED;
    const word = wordAt(at);
    if (i + 4 <= count) {
      const zeros0 = ctz(word);
      const word1 = (word >> zeros0) >> rest;
      const zeros1 = ctz(word1);
      const word2 = (word1 >> zeros1) >> rest;
      const zeros2 = ctz(word2);
      const word3 = (word2 >> zeros2) >> rest;
      const zeros3 = ctz(word3);
      const used = zeros0 + zeros1 + zeros2 + zeros3 + 4 * rest;
      if (used <= WORD_BITS) {
        at += used;
        i += 4;
        continue;
      }
    }
    let left = word;
    while (left << (64 - WORD_BITS) == 0) {
      at += WORD_BITS;
      if (at > end) return DAMAGED;
      left = wordAt(at);
    }
    at += ctz(left) + rest;
    i++;
  }
  return at;
}

/** The scaled values of all levels that `bits` bits tell apart; those beyond f32's range, which only damaged payloads pick, are 0. */
function fillValues(first: i32, step: i32, bits: i32, scale: f64): void {
  const wide = step == 0 ? 0 : 1 << (step - 1);
  const end = VALUES + ((<usize>1) << (bits + 3));
  for (let place = VALUES; place < end; place += 16) {
    const value = first <= CLASS_MAX ? scale * <f64>reinterpret<f32>(first << CLASS_SHIFT) : 0;
    store<f64>(place, value, 0);
    store<f64>(place, -value, 8);
    first += wide;
  }
}

/** Whether all exact values are numbers in f32's range. */
function areSound(values: usize, count: i32): bool {
  let sound = true;
  for (let i = 0; i < count; i++) {
    sound = sound && abs(load<f64>(values + ((<usize>i) << 3))) <= VALUE_MAX;
  }
  return sound;
}

/**
 * Merges `count` entries, each a gap with Rice parameter `rice` (or none) and, but for exact values (T f64), bits that
 * pick one of the values: 1 (T u8), 2 (u16), 3 (u32) or 4 (u64); exact ones are one for each entry. Four entries are taken from one load where their
 * bits fit in it, which is the rule, and added before the next are decoded, so that the processor does both at once. Returns
 * the position behind them, DAMAGED if they do not fit.
 */
function mergeEntries<T>(cursor: usize, at: u64, rice: u64, count: i32, length: i32, values: usize, sums: usize): u64 {
  const bits: u64 = isFloat<T>() ? 0 : ctz<u64>(sizeof<T>()) + 1;
  const end = load<u64>(cursor, END);
  const scale = load<f64>(cursor, SCALE);
  let i = 0;
  if (rice == NO_GAPS) {
    if (at + <u64>count * bits > end) return DAMAGED;
    for (; i < count; i++) {
      add<T>(i, wordAt(at), values, scale, sums);
      at += bits;
      if (isFloat<T>()) values += 8;
    }
    return at;
  }
  const mask: u64 = (1 << rice) - 1;
  const step = rice + 1;
  let index: u64 = u64.MAX_VALUE;
  while (i < count) {
    if (at > end) return DAMAGED;
    if (i + 4 <= count) {
      const word = wordAt(at);
      const zeros0 = ctz(word);
      const rest0 = word >> zeros0;
      const picked0 = rest0 >> step;
      const word1 = picked0 >> bits;
      const zeros1 = ctz(word1);
      const rest1 = word1 >> zeros1;
      const picked1 = rest1 >> step;
      const word2 = picked1 >> bits;
      const zeros2 = ctz(word2);
      const rest2 = word2 >> zeros2;
      const picked2 = rest2 >> step;
      const word3 = picked2 >> bits;
      const zeros3 = ctz(word3);
      const rest3 = word3 >> zeros3;
      const picked3 = rest3 >> step;
      const used = zeros0 + zeros1 + zeros2 + zeros3 + 4 * (step + bits);
      if (used <= WORD_BITS) {
        at += used;
        index += 1 + ((zeros0 << rice) | ((rest0 >> 1) & mask));
        add<T>(index, picked0, values, scale, sums);
        if (isFloat<T>()) values += 8;
        index += 1 + ((zeros1 << rice) | ((rest1 >> 1) & mask));
        add<T>(index, picked1, values, scale, sums);
        if (isFloat<T>()) values += 8;
        index += 1 + ((zeros2 << rice) | ((rest2 >> 1) & mask));
        add<T>(index, picked2, values, scale, sums);
        if (isFloat<T>()) values += 8;
        index += 1 + ((zeros3 << rice) | ((rest3 >> 1) & mask));
        add<T>(index, picked3, values, scale, sums);
        if (isFloat<T>()) values += 8;
        i += 4;
        continue;
      }
    }
    let zeros: u64 = 0;
    let word = wordAt(at);
    while (word << (64 - WORD_BITS) == 0) {
      zeros += WORD_BITS;
      at += WORD_BITS;
      if (at > end) return DAMAGED;
      word = wordAt(at);
    }
    const more = ctz(word);
    zeros += more;
    at += more + 1;
    word = wordAt(at);
    at += rice + bits;
    index += 1 + ((zeros << rice) | (word & mask));
    add<T>(index, word >> rice, values, scale, sums);
    if (isFloat<T>()) values += 8;
    i++;
  }
  return index < <u64>length ? at : DAMAGED;
}

/**
 * Adds one more sender's value to a parameter of the chunk: the next of `values` times the scale if exact, or else the one that the
 * low bits of `picked` say, which has been scaled.
 */
function add<T>(index: u64, picked: u64, values: usize, scale: f64, sums: usize): void {
  const sum = sums + ((<usize>(index & (CHUNK - 1))) << 3);
  const value = isFloat<T>()
    ? scale * load<f64>(values)
    : load<f64>(values + ((<usize>picked & (sizeof<T>() * 2 - 1)) << 3));
  store<f64>(sum, load<f64>(sum) + value);
}
