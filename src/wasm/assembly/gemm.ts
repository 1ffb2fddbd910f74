/**
 * The inner loops of every product: packing into panels and a 4 × 8 register kernel (fused, 6 × 8 too), after Goto and van de Geijn,
 * "Anatomy of high-performance matrix multiplication" (2008). Left operands are packed as [⌈m/4⌉][k][4], right operands
 * as [⌈n/8⌉][k][8], zeros beyond the edge. Each element of a product is the sum over k in ascending order, one product and
 * one addition (or both in one: `madd`) at a time, starting from its addend: how the output is cut into tiles and k into blocks
 * changes no bit.
 */

import { loadUpTo4, madd } from "./math";

const ZERO: v128 = f32x4.splat(0);

/** Transposes up to 4 rows of `k` floats into groups of 4 floats, `step` bytes apart: dst[k][row]; rows beyond `rows` are 0. */
function transposeRows(src: usize, rowBytes: usize, rows: i32, k: i32, dst: usize, step: usize): void {
  let done = 0;
  if (rows >= 4) {
    for (; done + 4 <= k; done += 4) {
      const a = v128.load(src);
      const b = v128.load(src + rowBytes);
      const c = v128.load(src + 2 * rowBytes);
      const d = v128.load(src + 3 * rowBytes);
      const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
      const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
      const ab2 = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
      const cd2 = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
      v128.store(dst, v128.shuffle<f32>(ab, cd, 0, 1, 4, 5));
      v128.store(dst + step, v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
      v128.store(dst + 2 * step, v128.shuffle<f32>(ab2, cd2, 0, 1, 4, 5));
      v128.store(dst + 3 * step, v128.shuffle<f32>(ab2, cd2, 2, 3, 6, 7));
      src += 16;
      dst += 4 * step;
    }
  }
  for (; done < k; done++) {
    v128.store(dst, ZERO);
    for (let row = 0; row < rows && row < 4; row++) {
      store<f32>(dst + ((<usize>row) << 2), load<f32>(src + <usize>row * rowBytes));
    }
    src += 4;
    dst += step;
  }
}

/** Packs a left operand whose rows lie in rows of memory: src [m,k] → dst [⌈m/4⌉][k][4]. */
export function packLeft(src: usize, rowBytes: usize, m: i32, k: i32, dst: usize): void {
  for (let row = 0; row < m; row += 4) {
    transposeRows(src + <usize>row * rowBytes, rowBytes, m - row, k, dst, 16);
    dst += (<usize>k) << 4;
  }
}

/** Packs a left operand whose rows lie in columns of memory: src [k,m] → dst [⌈m/4⌉][k][4]. */
export function packLeftTransposed(src: usize, rowBytes: usize, m: i32, k: i32, dst: usize): void {
  const panelBytes = (<usize>k) << 4;
  for (let i = 0; i < k; i++) {
    let from = src + <usize>i * rowBytes;
    let to = dst + ((<usize>i) << 4);
    for (let column = 0; column < m; column += 4) {
      v128.store(to, loadUpTo4(from, m - column));
      from += 16;
      to += panelBytes;
    }
  }
}

/** Packs a right operand: src [k,n] → dst [⌈n/8⌉][k][8]. `dstRows` is the k of the destination's panels. */
export function packRight(src: usize, rowBytes: usize, k: i32, n: i32, dst: usize, dstRows: i32): void {
  const panelBytes = (<usize>dstRows) << 5;
  for (let i = 0; i < k; i++) {
    let from = src + <usize>i * rowBytes;
    let to = dst + ((<usize>i) << 5);
    for (let column = 0; column < n; column += 8) {
      v128.store(to, loadUpTo4(from, n - column));
      v128.store(to, loadUpTo4(from + 16, n - column - 4), 16);
      from += 32;
      to += panelBytes;
    }
  }
}

/** Packs a right operand that lies transposed in memory: src [n,k] → dst [⌈n/8⌉][k][8]. */
export function packRightTransposed(src: usize, rowBytes: usize, k: i32, n: i32, dst: usize): void {
  for (let column = 0; column < n; column += 8) {
    transposeRows(src + <usize>column * rowBytes, rowBytes, n - column, k, dst, 32);
    transposeRows(src + <usize>(column + 4) * rowBytes, rowBytes, n - column - 4, k, dst + 16, 32);
    dst += (<usize>k) << 5;
  }
}

/** For `tile`: 4 rows, or 4 of one panel and 2 of another. */
type Four = i32;
type Six = v128;

/**
 * c[4,8] = init[4,8] (zeros when `init` is 0) + a[k,4]ᵀ · b[k,8]; with `Six` rows also c2[2,8] = init2[2,8] + a2[k,2]ᵀ · b, where a2
 * has the panels' step of 4, too. Eight accumulators, two vectors of b and one of a leave registers free in every compiler. Twelve fill
 * them where a fused product needs none of its own; eight are exactly as many as two units with a latency of four keep busy.
 */
function tile<Rows>(
  a: usize,
  a2: usize,
  b: usize,
  k: i32,
  c: usize,
  c2: usize,
  cBytes: usize,
  init: usize,
  init2: usize,
  initBytes: usize,
): void {
  let c00 = ZERO;
  let c01 = ZERO;
  let c10 = ZERO;
  let c11 = ZERO;
  let c20 = ZERO;
  let c21 = ZERO;
  let c30 = ZERO;
  let c31 = ZERO;
  let c40 = ZERO;
  let c41 = ZERO;
  let c50 = ZERO;
  let c51 = ZERO;
  if (init) {
    c00 = v128.load(init);
    c01 = v128.load(init, 16);
    c10 = v128.load(init + initBytes);
    c11 = v128.load(init + initBytes, 16);
    c20 = v128.load(init + 2 * initBytes);
    c21 = v128.load(init + 2 * initBytes, 16);
    c30 = v128.load(init + 3 * initBytes);
    c31 = v128.load(init + 3 * initBytes, 16);
    if (isVector<Rows>()) {
      c40 = v128.load(init2);
      c41 = v128.load(init2, 16);
      c50 = v128.load(init2 + initBytes);
      c51 = v128.load(init2 + initBytes, 16);
    }
  }
  // Unrolled, it is 5 to 25 % slower in V8, which loads ahead for the next round and runs out of registers.
  for (; k > 0; k--) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let x = v128.load32_splat(a);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(a, 4);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(a, 8);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(a, 12);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    if (isVector<Rows>()) {
      x = v128.load32_splat(a2);
      c40 = madd(x, b0, c40);
      c41 = madd(x, b1, c41);
      x = v128.load32_splat(a2, 4);
      c50 = madd(x, b0, c50);
      c51 = madd(x, b1, c51);
      a2 += 16;
    }
    a += 16;
    b += 32;
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  v128.store(c + cBytes, c10);
  v128.store(c + cBytes, c11, 16);
  v128.store(c + 2 * cBytes, c20);
  v128.store(c + 2 * cBytes, c21, 16);
  v128.store(c + 3 * cBytes, c30);
  v128.store(c + 3 * cBytes, c31, 16);
  if (isVector<Rows>()) {
    v128.store(c2, c40);
    v128.store(c2, c41, 16);
    v128.store(c2 + cBytes, c50);
    v128.store(c2 + cBytes, c51, 16);
  }
}

/** c[4,8] = init[4,8] (zeros when `init` is 0) + a[k,4]ᵀ · b[k,8]. */
export function kernel(a: usize, b: usize, k: i32, c: usize, cBytes: usize, init: usize, initBytes: usize): void {
  tile<Four>(a, 0, b, k, c, 0, cBytes, init, 0, initBytes);
}

/** The kernel on a tile of `rows` × `columns` that sticks out over an edge, by way of the 128 bytes at `edge`. */
function edgeKernel(
  a: usize,
  b: usize,
  k: i32,
  c: usize,
  cBytes: usize,
  init: usize,
  initBytes: usize,
  rows: i32,
  columns: i32,
  edge: usize,
): void {
  memory.fill(edge, 0, 128);
  if (init) {
    for (let row = 0; row < rows; row++) {
      memory.copy(edge + ((<usize>row) << 5), init + <usize>row * initBytes, (<usize>columns) << 2);
    }
  }
  kernel(a, b, k, edge, 32, edge, 32);
  for (let row = 0; row < rows; row++) {
    memory.copy(c + <usize>row * cBytes, edge + ((<usize>row) << 5), (<usize>columns) << 2);
  }
}

/**
 * c [m,n] = init [m,n] (zeros when `init` is 0; may be c itself) + a · b, with a packed [⌈m/4⌉][k][4] and b in panels of 8
 * columns that begin `panelBytes` apart. `edge` points to EDGE_BYTES of this thread's scratch memory.
 */
export function multiply(
  a: usize,
  b: usize,
  panelBytes: usize,
  m: i32,
  n: i32,
  k: i32,
  c: usize,
  cBytes: usize,
  init: usize,
  initBytes: usize,
  edge: usize,
): void {
  for (let j = 0; j < n; j += 8) {
    const columns = min(8, n - j);
    let left = a;
    let to = c + ((<usize>j) << 2);
    let from = init ? init + ((<usize>j) << 2) : 0;
    let i = 0;
    if (ASC_FEATURE_RELAXED_SIMD && columns == 8) {
      // Three panels of 4 rows are two tiles of 6, which share the panel in the middle.
      for (; i + 12 <= m; i += 12) {
        const middle = left + ((<usize>k) << 4);
        const last = middle + ((<usize>k) << 4);
        const middleTo = to + 4 * cBytes;
        const middleFrom = from ? from + 4 * initBytes : 0;
        tile<Six>(left, middle, b, k, to, middleTo, cBytes, from, middleFrom, initBytes);
        const lastTo = to + 8 * cBytes;
        const lastFrom = from ? from + 8 * initBytes : 0;
        const restFrom = from ? from + 6 * initBytes : 0;
        tile<Six>(last, middle + 8, b, k, lastTo, to + 6 * cBytes, cBytes, lastFrom, restFrom, initBytes);
        left = last + ((<usize>k) << 4);
        to += 12 * cBytes;
        if (init) from += 12 * initBytes;
      }
    }
    for (; i < m; i += 4) {
      const rows = min(4, m - i);
      if (rows == 4 && columns == 8) {
        kernel(left, b, k, to, cBytes, from, initBytes);
      } else {
        edgeKernel(left, b, k, to, cBytes, from, initBytes, rows, columns, edge);
      }
      left += (<usize>k) << 4;
      to += 4 * cBytes;
      if (init) from += 4 * initBytes;
    }
    b += panelBytes;
  }
}
