/**
 * The merge of packed updates, a module of its own: for each chunk of 4,096 parameters the payloads' entries are decoded and
 * averaged one payload after the other, while the chunk's means and weights are in the processor's cache. The layout of a
 * packed update is in `src/update/format.ts`; `src/update/merge.ts` plans the memory and calls this. The module keeps no state:
 * a payload's cursor lies where the caller says.
 *
 * Payloads were checked when they came. Of damaged ones it is asked only that nothing is written outside the chunk, and nothing
 * read outside the payloads and READ_AHEAD bytes behind them; most are noticed.
 */

const CHUNK: i32 = 4096;
const HEADER_BYTES: usize = 20;
const RICE_BITS: u64 = 4;
const EXPONENT_MAX: i32 = 254;
const VALUE_MAX: f64 = 3.4028234663852886e38;
/** Bits that a load at any bit position gives at least. */
const WORD_BITS: u64 = 57;
/** No position. */
const DAMAGED: u64 = u64.MAX_VALUE;

/** Payloads whose next bytes are loaded together, and about how many of each; change speed only. */
const TOUCHED: i32 = 16;
const TOUCHED_BYTES: usize = 256;

/** The four values that the entries of a chunk pick from, f64. */
const VALUES: usize = memory.data(4 * 8, 16);
/** Takes what is computed for nothing. */
const SINK: usize = memory.data(8, 8);

// A cursor: the next bit, counted from address 0, and the first that is not of the bit section; the next exact value; weight
// and scale; entries that are left; keep and bits per value, as the header says.
const AT: usize = 0;
const END: usize = 8;
const EXACT: usize = 16;
const WEIGHT: usize = 24;
const SCALE: usize = 32;
const LEFT: usize = 40;
const KEEP: usize = 44;
const BITS: usize = 48;

export const CURSOR_BYTES: i32 = 64;
/** Bytes behind the last payload that are read and not used. */
export const READ_AHEAD: i32 = 320;

/** The first address that the module does not use itself. */
export function heapBegin(): usize {
  return __heap_base;
}

/** Makes a cursor for a payload, whose values count times `scale`, with `weight`. False if it is damaged. */
export function open(cursor: usize, payload: usize, bytes: u32, parameters: u32, weight: f64, scale: f64): bool {
  if (bytes < <u32>HEADER_BYTES) return false;
  const bits = <i32>load<u8>(payload, 5);
  const keep = <i32>load<u16>(payload, 6);
  const entries = load<u32>(payload, 12);
  if (
    load<u32>(payload, 16) != bytes ||
    load<u32>(payload, 8) != parameters ||
    keep > CHUNK ||
    (bits != 2 && bits != 64)
  )
    return false;
  const tail: u64 = bits == 64 ? <u64>entries * 8 : 0;
  if (<u64>bytes < HEADER_BYTES + tail) return false;
  const end = <u64>payload + bytes - tail;
  store<u64>(cursor, (<u64>payload + HEADER_BYTES) * 8, AT);
  store<u64>(cursor, end * 8, END);
  store<u32>(cursor, <u32>end, EXACT);
  store<f64>(cursor, weight, WEIGHT);
  store<f64>(cursor, scale, SCALE);
  store<u32>(cursor, entries, LEFT);
  store<i32>(cursor, keep, KEEP);
  store<i32>(cursor, bits, BITS);
  return true;
}

/**
 * Merges the `count` payloads of the cursors, which lie one behind the other in the order of their merging, into the means and
 * weights of all chunks (f64, whole chunks). Each chunk's weights lie `stride` bytes behind those of the chunk before: 0 where
 * nothing is merged into them later. `begins` clears both first. Returns −1, or the number of the cursor that is damaged.
 */
export function merge(
  cursors: usize,
  count: i32,
  parameters: u32,
  mean: usize,
  weights: usize,
  stride: usize,
  begins: bool,
): i32 {
  for (let start: u32 = 0; start < parameters; start += CHUNK) {
    const length = <i32>min<u32>(CHUNK, parameters - start);
    if (begins) {
      memory.fill(mean, 0, CHUNK * 8);
      memory.fill(weights, 0, CHUNK * 8);
    }
    for (let i = 0; i < count; i++) {
      const cursor = cursors + <usize>i * CURSOR_BYTES;
      if (i % TOUCHED == 0) touch(cursor, min(TOUCHED, count - i));
      if (!mergeChunk(cursor, length, mean, weights)) return i;
    }
    mean += CHUNK * 8;
    weights += stride;
  }
  for (let i = 0; i < count; i++) {
    const cursor = cursors + <usize>i * CURSOR_BYTES;
    if (((load<u64>(cursor, AT) + 7) & ~7) != load<u64>(cursor, END) || load<u32>(cursor, LEFT) != 0) return i;
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

/** The next chunk of one payload, of `length` parameters. False if it is damaged. */
function mergeChunk(cursor: usize, length: i32, mean: usize, weights: usize): bool {
  const keep = load<i32>(cursor, KEEP);
  const exact = load<i32>(cursor, BITS) == 64;
  let at = load<u64>(cursor, AT);
  const word = wordAt(at);
  let count = min(keep, length);
  let used: u64 = 1;
  if ((word & 1) == 0) {
    const width = 32 - clz(keep);
    count = <i32>(word >> 1) & ((1 << width) - 1);
    used += width;
    if (count > length) return false;
  }
  const left = load<u32>(cursor, LEFT);
  if (<u32>count > left) return false;
  if (count > 0) {
    let rice: u64 = 0;
    if (count < length) {
      rice = (word >> used) & 15;
      used += RICE_BITS;
    }
    let values: usize;
    let valueBits: u64 = 0;
    if (exact) {
      values = <usize>load<u32>(cursor, EXACT);
      if (!areSound(values, count)) return false;
      store<u32>(cursor, <u32>values + ((<u32>count) << 3), EXACT);
    } else {
      const low = <i32>(word >> used) & 255;
      const high = <i32>(word >> (used + 8)) & 255;
      used += 16;
      if (low == 0 || low > high || high > EXPONENT_MAX) return false;
      valueBits = low == high ? 1 : 2;
      values = VALUES;
      const small = <f64>reinterpret<f32>(low << 23);
      const large = <f64>reinterpret<f32>(high << 23);
      store<f64>(VALUES, small, 0);
      store<f64>(VALUES, -small, 8);
      store<f64>(VALUES, large, 16);
      store<f64>(VALUES, -large, 24);
    }
    store<u32>(cursor, left - count, LEFT);
    at =
      count < length
        ? mergeSome(cursor, at + used, rice, valueBits, count, length, values, mean, weights)
        : mergeAll(cursor, at + used, valueBits, count, values, mean, weights);
  } else {
    at += used;
  }
  if (at > load<u64>(cursor, END)) return false;
  store<u64>(cursor, at, AT);
  return true;
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
 * Merges `count` entries, each a gap with Rice parameter `rice` and the `valueBits` bits that pick one of the values; without
 * such bits the values are one for each entry. Four entries are taken from one load where their bits fit in it, which is the
 * rule, and averaged before the next are decoded, so that the processor does both at once. Returns the position behind them,
 * DAMAGED if they do not fit.
 */
function mergeSome(
  cursor: usize,
  at: u64,
  rice: u64,
  valueBits: u64,
  count: i32,
  length: i32,
  values: usize,
  mean: usize,
  weights: usize,
): u64 {
  const end = load<u64>(cursor, END);
  const scale = load<f64>(cursor, SCALE);
  const weight = load<f64>(cursor, WEIGHT);
  const advance: usize = valueBits == 0 ? 8 : 0;
  const mask: u64 = (1 << rice) - 1;
  const codes: u64 = (1 << valueBits) - 1;
  const step = rice + valueBits + 1;
  let index: u64 = u64.MAX_VALUE;
  let i = 0;
  while (i < count) {
    if (at > end) return DAMAGED;
    if (i + 4 <= count) {
      let word = wordAt(at);
      const zeros0 = ctz(word);
      const rest0 = word >> (zeros0 + 1);
      word >>= zeros0 + step;
      const zeros1 = ctz(word);
      const rest1 = word >> (zeros1 + 1);
      word >>= zeros1 + step;
      const zeros2 = ctz(word);
      const rest2 = word >> (zeros2 + 1);
      word >>= zeros2 + step;
      const zeros3 = ctz(word);
      const rest3 = word >> (zeros3 + 1);
      const used = zeros0 + zeros1 + zeros2 + zeros3 + 4 * step;
      if (used <= WORD_BITS) {
        at += used;
        index += 1 + ((zeros0 << rice) | (rest0 & mask));
        average(index, values + ((<usize>((rest0 >> rice) & codes)) << 3), scale, weight, mean, weights);
        values += advance;
        index += 1 + ((zeros1 << rice) | (rest1 & mask));
        average(index, values + ((<usize>((rest1 >> rice) & codes)) << 3), scale, weight, mean, weights);
        values += advance;
        index += 1 + ((zeros2 << rice) | (rest2 & mask));
        average(index, values + ((<usize>((rest2 >> rice) & codes)) << 3), scale, weight, mean, weights);
        values += advance;
        index += 1 + ((zeros3 << rice) | (rest3 & mask));
        average(index, values + ((<usize>((rest3 >> rice) & codes)) << 3), scale, weight, mean, weights);
        values += advance;
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
    at += rice + valueBits;
    index += 1 + ((zeros << rice) | (word & mask));
    average(index, values + ((<usize>((word >> rice) & codes)) << 3), scale, weight, mean, weights);
    values += advance;
    i++;
  }
  return index < <u64>length ? at : DAMAGED;
}

/** The same where all parameters are sent, so that there are no gaps. */
function mergeAll(cursor: usize, at: u64, valueBits: u64, count: i32, values: usize, mean: usize, weights: usize): u64 {
  if (at + <u64>count * valueBits > load<u64>(cursor, END)) return DAMAGED;
  const scale = load<f64>(cursor, SCALE);
  const weight = load<f64>(cursor, WEIGHT);
  const advance: usize = valueBits == 0 ? 8 : 0;
  const codes: u64 = (1 << valueBits) - 1;
  for (let i = 0; i < count; i++) {
    average(i, values + ((<usize>(wordAt(at) & codes)) << 3), scale, weight, mean, weights);
    at += valueBits;
    values += advance;
  }
  return at;
}

/** One more sender of a parameter of the chunk: where it is the first, the mean is its value. */
function average(index: u64, value: usize, scale: f64, weight: f64, mean: usize, weights: usize): void {
  const offset = (<usize>(index & (CHUNK - 1))) << 3;
  const before = load<f64>(mean + offset);
  const total = load<f64>(weights + offset) + weight;
  store<f64>(weights + offset, total);
  store<f64>(mean + offset, before + (scale * load<f64>(value) - before) * (weight / total));
}
