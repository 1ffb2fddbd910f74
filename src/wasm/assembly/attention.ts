/**
 * Causal grouped-query attention, forward and backward, in panels of LANES queries or keys: the scores of one panel, as
 * [keys][LANES queries] or [queries][LANES keys], are exactly a packed right operand (`gemm.ts`), so what a product leaves
 * is what the next one reads, softmax runs down columns with a query in every lane, and hardly a masked score is computed.
 * No more than two panels of scores exist per thread. Backward takes two passes that each recompute the probabilities from
 * the log-sum-exp that forward kept (Dao, "FlashAttention-2", 2023): one gives dq, one gives dk and dv, and neither waits
 * for another tile. q, k, v and dout come packed (`packHeadsTile`). Exponentials are to base 2: q is multiplied by
 * scale·log₂e while it is packed.
 */
import { word, address, exp2Negative4, loadUpTo4, logarithm, storeTail, LOG2_E, LN2 } from "./math";
import { LANES, PANELS_PER_TILE } from "./opcodes";
import { kernel, packLeft, packLeftTransposed, packRightTransposed } from "./gemm";
import { dot } from "./rows";

const PANEL_ROW: usize = (<usize>LANES) << 2;

/** Bytes of one head packed with its rows in groups of 4: [⌈time/4⌉][width][4]. */
function rowsBytes(time: i32, width: i32): usize {
  return (<usize>((time + 3) >> 2) * <usize>width) << 4;
}

/** Bytes of one head packed with its columns in groups of 4: [⌈width/4⌉][time][4]. */
function columnsBytes(time: i32, width: i32): usize {
  return (<usize>((width + 3) >> 2) * <usize>time) << 4;
}

/** Multiplies `count` (a multiple of 4) floats in place. */
function scaleAll(p: usize, count: i32, factor: v128): void {
  for (; count > 0; count -= 4) {
    v128.store(p, f32x4.mul(v128.load(p), factor));
    p += 16;
  }
}

/** Packs one head of one sequence as left operands: by rows (times a factor), by columns, or both. */
export function packHeadsTile(ins: usize, tile: i32): void {
  const time = word(ins, 5);
  const heads = word(ins, 6);
  const width = word(ins, 7);
  const rowBytes = (<usize>heads * <usize>width) << 2;
  const src = address(ins, 2) + <usize>(tile / heads) * <usize>time * rowBytes + ((<usize>(tile % heads) * width) << 2);
  if (address(ins, 3)) {
    const dst = address(ins, 3) + <usize>tile * rowsBytes(time, width);
    packLeft(src, rowBytes, time, width, dst);
    const factor = load<f32>(ins, 32);
    if (factor != 1) scaleAll(dst, <i32>(rowsBytes(time, width) >> 2), f32x4.splat(factor));
  }
  if (address(ins, 4)) {
    packLeftTransposed(src, rowBytes, width, time, address(ins, 4) + <usize>tile * columnsBytes(time, width));
  }
}

/** panel[rows,LANES] = left[rows,depth] · right[depth,LANES]; `left` is packed by rows. */
function scoresOf(left: usize, right: usize, rows: i32, depth: i32, panel: usize): void {
  for (let row = 0; row < rows; row += 4) {
    kernel(left, right, depth, panel, PANEL_ROW, 0, 0);
    left += (<usize>depth) << 4;
    panel += 4 * PANEL_ROW;
  }
}

/**
 * sums[width,LANES] (+)= columns[width,rows] · panel[rows,LANES]; `columns` is packed by columns, from a row on, in a matrix
 * of `time` rows.
 */
function gather(columns: usize, time: i32, panel: usize, rows: i32, width: i32, sums: usize, more: bool): void {
  for (let i = 0; i < width; i += 4) {
    kernel(columns, panel, rows, sums, PANEL_ROW, more ? sums : 0, PANEL_ROW);
    columns += (<usize>time) << 4;
    sums += 4 * PANEL_ROW;
  }
}

/** Stores up to LANES columns of sums[width,LANES], times two vectors of factors, as rows of `out`. */
function scatter(sums: usize, low: v128, high: v128, out: usize, rowBytes: usize, rows: i32, width: i32): void {
  for (let i = 0; i < width; i += 4) {
    for (let half = 0; half < 2; half++) {
      const factor = half ? high : low;
      const from = sums + ((<usize>half) << 4);
      const a = f32x4.mul(v128.load(from), factor);
      const b = f32x4.mul(v128.load(from, 32), factor);
      const c = f32x4.mul(v128.load(from, 64), factor);
      const d = f32x4.mul(v128.load(from, 96), factor);
      const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
      const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
      const ab2 = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
      const cd2 = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
      const to = out + <usize>(4 * half) * rowBytes;
      const here = rows - 4 * half;
      const columns = width - i;
      if (here > 0) storeUpTo4(to, v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), columns);
      if (here > 1) storeUpTo4(to + rowBytes, v128.shuffle<f32>(ab, cd, 2, 3, 6, 7), columns);
      if (here > 2) storeUpTo4(to + 2 * rowBytes, v128.shuffle<f32>(ab2, cd2, 0, 1, 4, 5), columns);
      if (here > 3) storeUpTo4(to + 3 * rowBytes, v128.shuffle<f32>(ab2, cd2, 2, 3, 6, 7), columns);
    }
    sums += 4 * PANEL_ROW;
    out += 16;
  }
}

function storeUpTo4(p: usize, v: v128, count: i32): void {
  if (count >= 4) v128.store(p, v);
  else storeTail(p, v, count);
}

/** Writes −∞ where the row's number exceeds the lane's: keys in rows and queries in lanes, both from the diagonal on. */
function maskBelow(panel: usize, rows: i32): void {
  for (let row = 0; row < rows; row++) {
    for (let lane = 0; lane < min(row, LANES); lane++) store<f32>(panel + ((<usize>lane) << 2), -Infinity);
    panel += PANEL_ROW;
  }
}

/** Writes −∞ where the lane's number exceeds the row's: queries in rows and keys in lanes. */
function maskAbove(panel: usize, rows: i32): void {
  for (let row = 0; row < min(rows, LANES); row++) {
    for (let lane = row + 1; lane < LANES; lane++) store<f32>(panel + ((<usize>lane) << 2), -Infinity);
    panel += PANEL_ROW;
  }
}

/** One tile: PANELS_PER_TILE panels of queries of one head. A column s of scores becomes 2^(s − max s), its sum divides out. */
export function attentionTile(ins: usize, tile: i32, scratch: usize): void {
  const time = word(ins, 8);
  const heads = word(ins, 9);
  const kvHeads = word(ins, 10);
  const width = word(ins, 11);
  const blocks = word(ins, 13);
  // The longest panels first, so that threads finish together.
  const block = blocks - 1 - (tile % blocks);
  const head = (tile / blocks) % heads;
  const batch = tile / blocks / heads;
  const matrix = <usize>(batch * kvHeads + (head * kvHeads) / heads);
  const keyRows = address(ins, 3) + matrix * rowsBytes(time, width);
  const valueColumns = address(ins, 4) + matrix * columnsBytes(time, width);
  const rowBytes = (<usize>heads * <usize>width) << 2;
  const panel = scratch + address(ins, 14);
  const right = scratch + address(ins, 15);
  const sums = scratch + address(ins, 16);
  const factor = f32x4.splat(load<f32>(ins, 48));
  const end = min(time, (block + 1) * PANELS_PER_TILE * LANES);
  for (let first = block * PANELS_PER_TILE * LANES; first < end; first += LANES) {
    const queries = min(LANES, time - first);
    const keys = first + queries;
    const at = <usize>(batch * time + first) * rowBytes + ((<usize>head * <usize>width) << 2);
    packRightTransposed(address(ins, 2) + at, rowBytes, width, queries, right);
    scaleAll(right, width * LANES, factor);
    scoresOf(keyRows, right, keys, width, panel);
    maskBelow(panel + <usize>first * PANEL_ROW, queries);

    let low = v128.load(panel);
    let high = v128.load(panel, 16);
    const past = panel + <usize>keys * PANEL_ROW;
    for (let p = panel + PANEL_ROW; p < past; p += PANEL_ROW) {
      low = f32x4.pmax(low, v128.load(p));
      high = f32x4.pmax(high, v128.load(p, 16));
    }
    let lowSum = f32x4.splat(0);
    let highSum = f32x4.splat(0);
    for (let p = panel; p < past; p += PANEL_ROW) {
      const a = exp2Negative4(f32x4.sub(v128.load(p), low));
      const b = exp2Negative4(f32x4.sub(v128.load(p, 16), high));
      v128.store(p, a);
      v128.store(p, b, 16);
      lowSum = f32x4.add(lowSum, a);
      highSum = f32x4.add(highSum, b);
    }
    gather(valueColumns, time, panel, keys, width, sums, false);
    const one = f32x4.splat(1);
    scatter(sums, f32x4.div(one, lowSum), f32x4.div(one, highSum), address(ins, 5) + at, rowBytes, queries, width);

    v128.store(right, low);
    v128.store(right, high, 16);
    v128.store(right, lowSum, 32);
    v128.store(right, highSum, 48);
    const lse = address(ins, 6) + ((<usize>((batch * heads + head) * time + first)) << 2);
    for (let i = 0; i < queries; i++) {
      const lane = right + ((<usize>i) << 2);
      const value = <f64>load<f32>(lane) * LN2 + logarithm(<f64>load<f32>(lane, 32));
      store<f32>(lse + ((<usize>i) << 2), <f32>value);
    }
  }
}

/** delta[(b·H + h)·T + t] = Σ_d dout·out for a block of rows. */
export function attentionDeltaTile(ins: usize, tile: i32): void {
  const rows = word(ins, 5);
  const time = word(ins, 6);
  const heads = word(ins, 7);
  const width = word(ins, 8);
  const begin = tile * word(ins, 9);
  const end = min(rows, begin + word(ins, 9));
  for (let n = begin; n < end; n++) {
    for (let head = 0; head < heads; head++) {
      const at = ((<usize>n * <usize>heads + <usize>head) * <usize>width) << 2;
      const total = dot(address(ins, 2) + at, address(ins, 3) + at, width);
      store<f32>(address(ins, 4) + ((<usize>(((n / time) * heads + head) * time + (n % time))) << 2), total);
    }
  }
}

/** dq of PANELS_PER_TILE panels of queries of one head: S = k·qᵀ, dP = v·doutᵀ, dqᵀ = kᵀ·dS. */
export function attentionQueryTile(ins: usize, tile: i32, scratch: usize): void {
  const time = word(ins, 11);
  const heads = word(ins, 12);
  const kvHeads = word(ins, 13);
  const width = word(ins, 14);
  const blocks = word(ins, 17);
  const block = blocks - 1 - (tile % blocks);
  const head = (tile / blocks) % heads;
  const batch = tile / blocks / heads;
  const matrix = <usize>(batch * kvHeads + (head * kvHeads) / heads);
  const keyRows = address(ins, 3) + matrix * rowsBytes(time, width);
  const keyColumns = address(ins, 4) + matrix * columnsBytes(time, width);
  const valueRows = address(ins, 5) + matrix * rowsBytes(time, width);
  const rowBytes = (<usize>heads * <usize>width) << 2;
  const panel = scratch + address(ins, 18);
  const slopes = scratch + address(ins, 19);
  const right = scratch + address(ins, 20);
  const sums = scratch + address(ins, 21);
  const factor = f32x4.splat(load<f32>(ins, 60));
  const scale = f32x4.splat(load<f32>(ins, 64));
  const toBase2 = f32x4.splat(LOG2_E);
  const end = min(time, (block + 1) * PANELS_PER_TILE * LANES);
  for (let first = block * PANELS_PER_TILE * LANES; first < end; first += LANES) {
    const queries = min(LANES, time - first);
    const keys = first + queries;
    const at = <usize>(batch * time + first) * rowBytes + ((<usize>head * <usize>width) << 2);
    packRightTransposed(address(ins, 2) + at, rowBytes, width, queries, right);
    scaleAll(right, width * LANES, factor);
    scoresOf(keyRows, right, keys, width, panel);
    maskBelow(panel + <usize>first * PANEL_ROW, queries);
    packRightTransposed(address(ins, 6) + at, rowBytes, width, queries, right);
    scoresOf(valueRows, right, keys, width, slopes);

    const stats = (<usize>((batch * heads + head) * time + first)) << 2;
    const lse = address(ins, 7) + stats;
    const delta = address(ins, 8) + stats;
    const low = f32x4.mul(loadUpTo4(lse, queries), toBase2);
    const high = f32x4.mul(loadUpTo4(lse + 16, queries - 4), toBase2);
    const lowDelta = loadUpTo4(delta, queries);
    const highDelta = loadUpTo4(delta + 16, queries - 4);
    for (let i: usize = 0; i < <usize>keys * PANEL_ROW; i += PANEL_ROW) {
      const a = exp2Negative4(f32x4.sub(v128.load(panel + i), low));
      const b = exp2Negative4(f32x4.sub(v128.load(panel + i, 16), high));
      v128.store(slopes + i, f32x4.mul(a, f32x4.sub(v128.load(slopes + i), lowDelta)));
      v128.store(slopes + i, f32x4.mul(b, f32x4.sub(v128.load(slopes + i, 16), highDelta)), 16);
    }
    gather(keyColumns, time, slopes, keys, width, sums, false);
    scatter(sums, scale, scale, address(ins, 9) + at, rowBytes, queries, width);
  }
}

/**
 * dk and dv of PANELS_PER_TILE panels of keys of one kv head, summed over the query heads that read it and over queries in
 * ascending order: S = q·kᵀ, dP = dout·vᵀ, dvᵀ = doutᵀ·P, dkᵀ = qᵀ·dS.
 */
export function attentionKeyTile(ins: usize, tile: i32, scratch: usize): void {
  const time = word(ins, 13);
  const heads = word(ins, 14);
  const kvHeads = word(ins, 15);
  const width = word(ins, 16);
  const blocks = word(ins, 18);
  const block = tile % blocks;
  const kvHead = (tile / blocks) % kvHeads;
  const batch = tile / blocks / kvHeads;
  const group = heads / kvHeads;
  const rowBytes = (<usize>kvHeads * <usize>width) << 2;
  const panel = scratch + address(ins, 19);
  const slopes = scratch + address(ins, 20);
  const keyRight = scratch + address(ins, 21);
  const valueRight = keyRight + <usize>width * PANEL_ROW;
  const dkSums = scratch + address(ins, 22);
  const dvSums = dkSums + <usize>((width + 3) & ~3) * PANEL_ROW;
  const scale = f32x4.splat(load<f32>(ins, 68));
  const one = f32x4.splat(1);
  const end = min(time, (block + 1) * PANELS_PER_TILE * LANES);
  for (let first = block * PANELS_PER_TILE * LANES; first < end; first += LANES) {
    const keys = min(LANES, time - first);
    const queries = time - first;
    const at = <usize>(batch * time + first) * rowBytes + ((<usize>kvHead * <usize>width) << 2);
    packRightTransposed(address(ins, 2) + at, rowBytes, width, keys, keyRight);
    packRightTransposed(address(ins, 3) + at, rowBytes, width, keys, valueRight);
    for (let head = kvHead * group; head < (kvHead + 1) * group; head++) {
      const matrix = <usize>(batch * heads + head);
      const rows = matrix * rowsBytes(time, width) + ((<usize>first * <usize>width) << 2);
      const columns = matrix * columnsBytes(time, width) + ((<usize>first) << 4);
      scoresOf(address(ins, 4) + rows, keyRight, queries, width, panel);
      maskAbove(panel, queries);
      scoresOf(address(ins, 6) + rows, valueRight, queries, width, slopes);
      const stats = (matrix * <usize>time + <usize>first) << 2;
      slopesOf(panel, slopes, address(ins, 8) + stats, address(ins, 9) + stats, queries);
      const more = head > kvHead * group;
      gather(address(ins, 7) + columns, time, panel, queries, width, dvSums, more);
      gather(address(ins, 5) + columns, time, slopes, queries, width, dkSums, more);
    }
    scatter(dkSums, scale, scale, address(ins, 10) + at, rowBytes, keys, width);
    scatter(dvSums, one, one, address(ins, 11) + at, rowBytes, keys, width);
  }
}

/** A panel of scores becomes probabilities, one of dP becomes dS = P·(dP − delta); a query is a row of both. */
function slopesOf(panel: usize, slopes: usize, lse: usize, delta: usize, queries: i32): void {
  const toBase2 = f32x4.splat(LOG2_E);
  for (let i = 0; i < queries; i++) {
    const most = f32x4.mul(v128.load32_splat(lse), toBase2);
    const less = v128.load32_splat(delta);
    const a = exp2Negative4(f32x4.sub(v128.load(panel), most));
    const b = exp2Negative4(f32x4.sub(v128.load(panel, 16), most));
    v128.store(panel, a);
    v128.store(panel, b, 16);
    v128.store(slopes, f32x4.mul(a, f32x4.sub(v128.load(slopes), less)));
    v128.store(slopes, f32x4.mul(b, f32x4.sub(v128.load(slopes, 16), less)), 16);
    panel += PANEL_ROW;
    slopes += PANEL_ROW;
    lse += 4;
    delta += 4;
  }
}
