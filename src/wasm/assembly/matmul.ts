/** Tiles of the packing instruction and of matmul; all transposed forms become one by packing. */
import { word, address } from "./math";
import { DEPTH_BLOCK, EDGE_BYTES } from "./opcodes";
import { multiply, packLeft, packLeftTransposed, packRight, packRightTransposed } from "./gemm";

/** Packs a few panels. */
export function packTile(ins: usize, tile: i32): void {
  const k = word(ins, 4);
  const n = word(ins, 5);
  const rowBytes = address(ins, 6);
  const tilePanels = word(ins, 8);
  const panel = tile * tilePanels;
  const columns = min(n - panel * 8, tilePanels * 8);
  const src = address(ins, 2);
  const dst = address(ins, 3) + <usize>panel * ((<usize>k) << 5);
  if (word(ins, 7)) {
    packRightTransposed(src + <usize>(panel * 8) * rowBytes, rowBytes, k, columns, dst);
  } else {
    packRight(src + ((<usize>panel) << 5), rowBytes, k, columns, dst, k);
  }
}

/** out [rows,columns] = add + bias, with both matrices' rows `bytes` apart; out may be add. */
function addBias(add: usize, bias: usize, out: usize, bytes: usize, rows: i32, columns: i32): void {
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = (<usize>column) << 2;
      store<f32>(out + at, load<f32>(add + at) + load<f32>(bias + at));
    }
    add += bytes;
    out += bytes;
  }
}

/**
 * One tile of out = opA(a) · b (+ add) (+ bias), in blocks of DEPTH_BLOCK along k so that a packed block of a stays in
 * cache. Sums begin with the bias as they do with an addend: its row is that of every row, 0 bytes apart.
 */
export function matmulTile(ins: usize, tile: i32, scratch: usize): void {
  const a = address(ins, 2);
  const m = word(ins, 6);
  const n = word(ins, 7);
  const k = word(ins, 8);
  const aBytes = address(ins, 9);
  const across = word(ins, 13);
  const row = (tile / across) * word(ins, 11);
  const column = (tile % across) * word(ins, 12);
  const rows = min(word(ins, 11), m - row);
  const columns = min(word(ins, 12), n - column);
  const outBytes = (<usize>n) << 2;
  const at = <usize>row * outBytes + ((<usize>column) << 2);
  const out = address(ins, 4) + at;
  const panelBytes = (<usize>k) << 5;
  const packed = scratch + EDGE_BYTES;
  const add = address(ins, 5) ? address(ins, 5) + at : 0;
  const bias = address(ins, 14) ? address(ins, 14) + ((<usize>column) << 2) : 0;
  let init = add ? add : bias;
  let initBytes = add ? outBytes : 0;
  if (add && bias) {
    addBias(add, bias, out, outBytes, rows, columns);
    init = out;
  }
  for (let depth = 0; depth < k; depth += DEPTH_BLOCK) {
    const deep = min(DEPTH_BLOCK, k - depth);
    if (word(ins, 10)) {
      packLeftTransposed(a + <usize>depth * aBytes + ((<usize>row) << 2), aBytes, rows, deep, packed);
    } else {
      packLeft(a + <usize>row * aBytes + ((<usize>depth) << 2), aBytes, rows, deep, packed);
    }
    const panels = address(ins, 3) + <usize>(column >> 3) * panelBytes + ((<usize>depth) << 5);
    multiply(packed, panels, panelBytes, rows, columns, deep, out, outBytes, init, initBytes, scratch);
    init = out;
    initBytes = outBytes;
  }
}
