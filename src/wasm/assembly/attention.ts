/**
 * Causal grouped-query attention, forward and backward, by blocks of QUERY_BLOCK query rows against all keys they may see:
 * the scores of one block live in the thread's scratch memory, never those of a whole sequence. Backward recomputes the
 * probabilities from the log-sum-exp that forward kept (Dao, "FlashAttention-2", 2023). Keys and values come packed, one
 * matrix for each sequence and kv head.
 */
import { word, address, exp4, sumLanes, maxLanes, logarithm } from "./math";
import { QUERY_BLOCK } from "./opcodes";
import { multiply, packLeft, packLeftTransposed, packRight } from "./gemm";

/** Writes −∞ to row elements `from` … `to`. */
function mask(row: usize, from: i32, to: i32): void {
  for (let i = from; i < to; i++) store<f32>(row + ((<usize>i) << 2), -Infinity);
}

/** Bytes of one packed right operand of `rows` × `columns`. */
function panelsBytes(rows: i32, columns: i32): usize {
  return (<usize>rows * <usize>((columns + 7) >> 3)) << 5;
}

/**
 * One block of query rows of one head. Softmax of a row s of scores: p = e^(scale·s − scale·max s), then p / Σ p.
 */
export function attentionTile(ins: usize, tile: i32, scratch: usize): void {
  const time = word(ins, 8);
  const heads = word(ins, 9);
  const kvHeads = word(ins, 10);
  const width = word(ins, 11);
  const scale = f32x4.splat(load<f32>(ins, 48));
  const blocks = word(ins, 13);
  // The longest blocks first, so that threads finish together.
  const block = blocks - 1 - (tile % blocks);
  const head = (tile / blocks) % heads;
  const batch = tile / blocks / heads;
  const first = block * QUERY_BLOCK;
  const rows = min(QUERY_BLOCK, time - first);
  const keys = first + rows;
  const padded = (keys + 7) & ~7;
  const matrix = <usize>(batch * kvHeads + (head * kvHeads) / heads);
  const rowBytes = (<usize>heads * <usize>width) << 2;
  const at = <usize>(batch * time + first) * rowBytes + ((<usize>head * <usize>width) << 2);
  const scores = scratch + address(ins, 14);
  const packed = scratch + address(ins, 15);
  const scoreBytes = (<usize>padded) << 2;

  packLeft(address(ins, 2) + at, rowBytes, rows, width, packed);
  const keyPanels = address(ins, 3) + matrix * panelsBytes(width, time);
  multiply(packed, keyPanels, (<usize>width) << 5, rows, padded, width, scores, scoreBytes, 0, 0, scratch);

  const out = address(ins, 5) + at;
  const lse = address(ins, 6) + ((<usize>((batch * heads + head) * time + first)) << 2);
  for (let r = 0; r < rows; r++) {
    const row = scores + <usize>r * scoreBytes;
    mask(row, first + r + 1, padded);
    let top = v128.load(row);
    for (let i = 4; i < padded; i += 4) top = f32x4.max(top, v128.load(row + ((<usize>i) << 2)));
    const most = f32x4.mul(f32x4.splat(maxLanes(top)), scale);
    let sum = f32x4.splat(0);
    for (let i = 0; i < padded; i += 4) {
      const p = exp4(f32x4.sub(f32x4.mul(v128.load(row + ((<usize>i) << 2)), scale), most));
      v128.store(row + ((<usize>i) << 2), p);
      sum = f32x4.add(sum, p);
    }
    const total = sumLanes(sum);
    store<f32>(lse + ((<usize>r) << 2), <f32>(<f64>f32x4.extract_lane(most, 0) + logarithm(<f64>total)));
    const share = f32x4.splat(<f32>1 / total);
    for (let i = 0; i < padded; i += 4) {
      v128.store(row + ((<usize>i) << 2), f32x4.mul(v128.load(row + ((<usize>i) << 2)), share));
    }
  }
  packLeft(scores, scoreBytes, rows, keys, packed);
  const valuePanels = address(ins, 4) + matrix * panelsBytes(time, width);
  multiply(packed, valuePanels, (<usize>time) << 5, rows, width, keys, out, rowBytes, 0, 0, scratch);
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
      const at = (<usize>n * <usize>heads + <usize>head) * <usize>width;
      const x = address(ins, 2) + (at << 2);
      const y = address(ins, 3) + (at << 2);
      let sum = f32x4.splat(0);
      let i = 0;
      for (; i + 4 <= width; i += 4) {
        sum = f32x4.add(sum, f32x4.mul(v128.load(x + ((<usize>i) << 2)), v128.load(y + ((<usize>i) << 2))));
      }
      let total = sumLanes(sum);
      for (; i < width; i++) total += load<f32>(x + ((<usize>i) << 2)) * load<f32>(y + ((<usize>i) << 2));
      store<f32>(address(ins, 4) + ((<usize>(((n / time) * heads + head) * time + (n % time))) << 2), total);
    }
  }
}

/** Zeros `rows` rows of `width` floats. */
function clear(p: usize, rowBytes: usize, rows: i32, width: i32): void {
  for (let r = 0; r < rows; r++) memory.fill(p + <usize>r * rowBytes, 0, (<usize>width) << 2);
}

/**
 * dq of all heads that read one kv head of one sequence, and its dk and dv, summed over those heads and over blocks of
 * query rows in ascending order. Five products for each block: S = q·kᵀ, dP = dout·vᵀ, dv += Pᵀ·dout, dk += dSᵀ·q, dq = dS·k.
 */
export function attentionBackwardTile(ins: usize, tile: i32, scratch: usize): void {
  const time = word(ins, 13);
  const heads = word(ins, 14);
  const kvHeads = word(ins, 15);
  const width = word(ins, 16);
  const scale = f32x4.splat(load<f32>(ins, 68));
  const batch = tile / kvHeads;
  const kvHead = tile % kvHeads;
  const group = heads / kvHeads;
  const rowBytes = (<usize>heads * <usize>width) << 2;
  const kvBytes = (<usize>kvHeads * <usize>width) << 2;
  const kvAt = <usize>(batch * time) * kvBytes + ((<usize>kvHead * <usize>width) << 2);
  const dk = address(ins, 10) + kvAt;
  const dv = address(ins, 11) + kvAt;
  clear(dk, kvBytes, time, width);
  clear(dv, kvBytes, time, width);
  const keyPanelsT = address(ins, 3) + <usize>tile * panelsBytes(width, time);
  const valuePanelsT = address(ins, 4) + <usize>tile * panelsBytes(width, time);
  const keyPanels = address(ins, 5) + <usize>tile * panelsBytes(time, width);
  const p = scratch + address(ins, 18);
  const ds = scratch + address(ins, 19);
  const packed = scratch + address(ins, 20);
  const panels = scratch + address(ins, 21);
  const depthBytes = (<usize>width) << 5;

  for (let head = kvHead * group; head < (kvHead + 1) * group; head++) {
    for (let first = 0; first < time; first += QUERY_BLOCK) {
      const rows = min(QUERY_BLOCK, time - first);
      const keys = first + rows;
      const padded = (keys + 7) & ~7;
      const scoreBytes = (<usize>padded) << 2;
      const at = <usize>(batch * time + first) * rowBytes + ((<usize>head * <usize>width) << 2);
      const q = address(ins, 2) + at;
      const dout = address(ins, 6) + at;
      const stats = (<usize>((batch * heads + head) * time + first)) << 2;

      packLeft(q, rowBytes, rows, width, packed);
      multiply(packed, keyPanelsT, depthBytes, rows, padded, width, p, scoreBytes, 0, 0, scratch);
      packLeft(dout, rowBytes, rows, width, packed);
      multiply(packed, valuePanelsT, depthBytes, rows, padded, width, ds, scoreBytes, 0, 0, scratch);
      for (let r = 0; r < rows; r++) {
        const row = <usize>r * scoreBytes;
        mask(p + row, first + r + 1, padded);
        const lse = f32x4.splat(load<f32>(address(ins, 7) + stats + ((<usize>r) << 2)));
        const delta = f32x4.splat(load<f32>(address(ins, 8) + stats + ((<usize>r) << 2)));
        for (let i = 0; i < padded; i += 4) {
          const here = row + ((<usize>i) << 2);
          const share = exp4(f32x4.sub(f32x4.mul(v128.load(p + here), scale), lse));
          v128.store(p + here, share);
          v128.store(ds + here, f32x4.mul(f32x4.mul(share, f32x4.sub(v128.load(ds + here), delta)), scale));
        }
      }
      packRight(dout, rowBytes, rows, width, panels, rows);
      packLeftTransposed(p, scoreBytes, keys, rows, packed);
      multiply(packed, panels, (<usize>rows) << 5, keys, width, rows, dv, kvBytes, dv, kvBytes, scratch);
      packRight(q, rowBytes, rows, width, panels, rows);
      packLeftTransposed(ds, scoreBytes, keys, rows, packed);
      multiply(packed, panels, (<usize>rows) << 5, keys, width, rows, dk, kvBytes, dk, kvBytes, scratch);
      packLeft(ds, scoreBytes, rows, keys, packed);
      multiply(packed, keyPanels, (<usize>time) << 5, rows, width, keys, address(ins, 9) + at, rowBytes, 0, 0, scratch);
    }
  }
}
