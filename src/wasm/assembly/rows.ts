/**
 * Ops over rows: embedding, RMSNorm, RoPE, cross-entropy. A tile is a few rows (of the table, for the embedding's gradient;
 * a few columns for the gain's). A sum over a row goes through four lanes and then the lanes in a fixed order; a sum over
 * rows is one addition after another in ascending order.
 */
import { word, address, loadTail, storeTail, sumLanes, maxLanes, exp4, logarithm, exponential, sine } from "./math";
import { GAIN_COLUMNS, SUM_COLUMNS } from "./opcodes";

export function embeddingTile(ins: usize, tile: i32): void {
  const bytes = (<usize>word(ins, 6)) << 2;
  const begin = tile * word(ins, 7);
  const end = min(begin + word(ins, 7), word(ins, 5));
  for (let n = begin; n < end; n++) {
    const token = load<u32>(address(ins, 3) + ((<usize>n) << 2));
    memory.copy(address(ins, 4) + <usize>n * bytes, address(ins, 2) + <usize>token * bytes, bytes);
  }
}

/** y += x over `count` floats. */
function accumulate(y: usize, x: usize, count: i32): void {
  for (; count >= 4; count -= 4) {
    v128.store(y, f32x4.add(v128.load(y), v128.load(x)));
    y += 16;
    x += 16;
  }
  for (; count > 0; count--) {
    store<f32>(y, load<f32>(y) + load<f32>(x));
    y += 4;
    x += 4;
  }
}

export function embeddingBackwardTile(ins: usize, tile: i32): void {
  const columns = word(ins, 8);
  const bytes = (<usize>columns) << 2;
  const begin = tile * word(ins, 9);
  const end = min(begin + word(ins, 9), word(ins, 7));
  const addend = address(ins, 5);
  const offsets = address(ins, 4);
  for (let v = begin; v < end; v++) {
    const row = address(ins, 6) + <usize>v * bytes;
    if (addend) memory.copy(row, addend + <usize>v * bytes, bytes);
    else memory.fill(row, 0, bytes);
    const last = load<u32>(offsets + ((<usize>v) << 2), 4);
    for (let i = load<u32>(offsets + ((<usize>v) << 2)); i < last; i++) {
      const n = load<u32>(address(ins, 3) + ((<usize>i) << 2));
      accumulate(row, address(ins, 2) + <usize>n * bytes, columns);
    }
  }
}

export function sumRowsTile(ins: usize, tile: i32): void {
  const rows = word(ins, 4);
  const bytes = (<usize>word(ins, 5)) << 2;
  const begin = tile * SUM_COLUMNS;
  const count = min(SUM_COLUMNS, word(ins, 5) - begin);
  const out = address(ins, 3) + ((<usize>begin) << 2);
  let x = address(ins, 2) + ((<usize>begin) << 2);
  memory.fill(out, 0, (<usize>count) << 2);
  for (let n = 0; n < rows; n++) {
    accumulate(out, x, count);
    x += bytes;
  }
}

/** Σ x·y over a row, four lanes in turn. */
export function dot(x: usize, y: usize, count: i32): f32 {
  let sum = f32x4.splat(0);
  for (; count >= 4; count -= 4) {
    sum = f32x4.add(sum, f32x4.mul(v128.load(x), v128.load(y)));
    x += 16;
    y += 16;
  }
  if (count > 0) sum = f32x4.add(sum, f32x4.mul(loadTail(x, count, 0), loadTail(y, count, 0)));
  return sumLanes(sum);
}

/** Σ x·y·z over a row, as (x·y)·z. */
function dot3(x: usize, y: usize, z: usize, count: i32): f32 {
  let sum = f32x4.splat(0);
  for (; count >= 4; count -= 4) {
    sum = f32x4.add(sum, f32x4.mul(f32x4.mul(v128.load(x), v128.load(y)), v128.load(z)));
    x += 16;
    y += 16;
    z += 16;
  }
  if (count > 0) {
    const xy = f32x4.mul(loadTail(x, count, 0), loadTail(y, count, 0));
    sum = f32x4.add(sum, f32x4.mul(xy, loadTail(z, count, 0)));
  }
  return sumLanes(sum);
}

export function rmsNormTile(ins: usize, tile: i32): void {
  const columns = word(ins, 7);
  const bytes = (<usize>columns) << 2;
  const eps = load<f32>(ins, 32);
  const begin = tile * word(ins, 9);
  const end = min(begin + word(ins, 9), word(ins, 6));
  for (let n = begin; n < end; n++) {
    let x = address(ins, 2) + <usize>n * bytes;
    let gain = address(ins, 3);
    let out = address(ins, 4) + <usize>n * bytes;
    const rstd = <f32>1 / sqrt(dot(x, x, columns) / <f32>columns + eps);
    store<f32>(address(ins, 5) + ((<usize>n) << 2), rstd);
    const r = f32x4.splat(rstd);
    let left = columns;
    for (; left >= 4; left -= 4) {
      v128.store(out, f32x4.mul(f32x4.mul(v128.load(x), r), v128.load(gain)));
      x += 16;
      gain += 16;
      out += 16;
    }
    if (left > 0) storeTail(out, f32x4.mul(f32x4.mul(loadTail(x, left, 0), r), loadTail(gain, left, 0)), left);
  }
}

export function rmsNormDxTile(ins: usize, tile: i32): void {
  const columns = word(ins, 9);
  const bytes = (<usize>columns) << 2;
  const begin = tile * word(ins, 10);
  const end = min(begin + word(ins, 10), word(ins, 8));
  for (let n = begin; n < end; n++) {
    let x = address(ins, 2) + <usize>n * bytes;
    let gain = address(ins, 3);
    let dout = address(ins, 5) + <usize>n * bytes;
    let addend = address(ins, 6) ? address(ins, 6) + <usize>n * bytes : 0;
    let dx = address(ins, 7) + <usize>n * bytes;
    const rstd = load<f32>(address(ins, 4) + ((<usize>n) << 2));
    const mean = dot3(gain, dout, x, columns) / <f32>columns;
    const r = f32x4.splat(rstd);
    const pull = f32x4.splat(rstd * rstd * mean);
    for (let left = columns; left > 0; left -= 4) {
      const whole = left >= 4;
      const xs = whole ? v128.load(x) : loadTail(x, left, 0);
      const gs = whole ? v128.load(gain) : loadTail(gain, left, 0);
      const ds = whole ? v128.load(dout) : loadTail(dout, left, 0);
      let result = f32x4.mul(r, f32x4.sub(f32x4.mul(gs, ds), f32x4.mul(xs, pull)));
      if (addend) {
        result = f32x4.add(result, whole ? v128.load(addend) : loadTail(addend, left, 0));
        addend += 16;
      }
      if (whole) v128.store(dx, result);
      else storeTail(dx, result, left);
      x += 16;
      gain += 16;
      dout += 16;
      dx += 16;
    }
  }
}

export function rmsNormDgainTile(ins: usize, tile: i32): void {
  const rows = word(ins, 6);
  const columns = word(ins, 7);
  const bytes = (<usize>columns) << 2;
  const begin = tile * GAIN_COLUMNS;
  const end = min(begin + GAIN_COLUMNS, columns);
  const rstd = address(ins, 3);
  const dgain = address(ins, 5);
  if (end - begin == GAIN_COLUMNS) {
    let x = address(ins, 2) + ((<usize>begin) << 2);
    let dout = address(ins, 4) + ((<usize>begin) << 2);
    let s0 = f32x4.splat(0);
    let s1 = f32x4.splat(0);
    let s2 = f32x4.splat(0);
    let s3 = f32x4.splat(0);
    for (let n = 0; n < rows; n++) {
      const r = v128.load32_splat(rstd + ((<usize>n) << 2));
      s0 = f32x4.add(s0, f32x4.mul(f32x4.mul(v128.load(dout), v128.load(x)), r));
      s1 = f32x4.add(s1, f32x4.mul(f32x4.mul(v128.load(dout, 16), v128.load(x, 16)), r));
      s2 = f32x4.add(s2, f32x4.mul(f32x4.mul(v128.load(dout, 32), v128.load(x, 32)), r));
      s3 = f32x4.add(s3, f32x4.mul(f32x4.mul(v128.load(dout, 48), v128.load(x, 48)), r));
      x += bytes;
      dout += bytes;
    }
    const to = dgain + ((<usize>begin) << 2);
    v128.store(to, s0);
    v128.store(to, s1, 16);
    v128.store(to, s2, 32);
    v128.store(to, s3, 48);
    return;
  }
  for (let c = begin; c < end; c++) {
    let sum: f32 = 0;
    for (let n = 0; n < rows; n++) {
      const at = <usize>n * bytes + ((<usize>c) << 2);
      sum += load<f32>(address(ins, 4) + at) * load<f32>(address(ins, 2) + at) * load<f32>(rstd + ((<usize>n) << 2));
    }
    store<f32>(dgain + ((<usize>c) << 2), sum);
  }
}

/** Fills `table` with the cosines [time][width/2] and then the sines [time][width/2] of t·base^(−2i/width). */
export function ropeTable(table: usize, time: i32, width: i32, base: f64): void {
  const half = width / 2;
  const sines = table + ((<usize>time * <usize>half) << 2);
  const slope = logarithm(base);
  for (let i = 0; i < half; i++) {
    const frequency = exponential((slope * <f64>(-2 * i)) / <f64>width);
    for (let t = 0; t < time; t++) {
      const at = (<usize>t * <usize>half + <usize>i) << 2;
      const angle = <f64>t * frequency;
      store<f32>(table + at, <f32>sine(angle, 1));
      store<f32>(sines + at, <f32>sine(angle, 0));
    }
  }
}

export function ropeTile(ins: usize, tile: i32): void {
  const time = word(ins, 6);
  const heads = word(ins, 8);
  const half = word(ins, 7) / 2;
  const halfBytes = (<usize>half) << 2;
  const sign: f32 = word(ins, 9) ? -1 : 1;
  const turn = f32x4.splat(sign);
  const begin = tile * word(ins, 10);
  const end = min(begin + word(ins, 10), word(ins, 5));
  const sines = <usize>time * halfBytes;
  for (let n = begin; n < end; n++) {
    const table = address(ins, 4) + <usize>(n % time) * halfBytes;
    for (let head = 0; head < heads; head++) {
      const at = (<usize>n * <usize>heads + <usize>head) * 2 * halfBytes;
      let x = address(ins, 2) + at;
      let out = address(ins, 3) + at;
      let angle = table;
      let left = half;
      for (; left >= 4; left -= 4) {
        const c = v128.load(angle);
        const s = f32x4.mul(v128.load(angle + sines), turn);
        const a = v128.load(x);
        const b = v128.load(x + halfBytes);
        v128.store(out, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
        v128.store(out + halfBytes, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
        x += 16;
        out += 16;
        angle += 16;
      }
      for (; left > 0; left--) {
        const c = load<f32>(angle);
        const s = load<f32>(angle + sines) * sign;
        const a = load<f32>(x);
        const b = load<f32>(x + halfBytes);
        store<f32>(out, a * c - b * s);
        store<f32>(out + halfBytes, b * c + a * s);
        x += 4;
        out += 4;
        angle += 4;
      }
    }
  }
}

/** The largest element of a row. */
function rowMax(x: usize, count: i32): f32 {
  let top = f32x4.splat(-Infinity);
  for (; count >= 4; count -= 4) {
    top = f32x4.pmax(top, v128.load(x));
    x += 16;
  }
  if (count > 0) top = f32x4.pmax(top, loadTail(x, count, -Infinity));
  return maxLanes(top);
}

/** Σ e^(x − most) over a row; the terms are also stored at `out` when it is not 0. */
function rowExp(x: usize, count: i32, most: f32, out: usize): f32 {
  const top = f32x4.splat(most);
  let sum = f32x4.splat(0);
  for (; count > 0; count -= 4) {
    const whole = count >= 4;
    const e = exp4(f32x4.sub(whole ? v128.load(x) : loadTail(x, count, -Infinity), top));
    sum = f32x4.add(sum, e);
    if (out) {
      if (whole) v128.store(out, e);
      else storeTail(out, e, count);
      out += 16;
    }
    x += 16;
  }
  return sumLanes(sum);
}

export function crossEntropyTile(ins: usize, tile: i32): void {
  const columns = word(ins, 6);
  const bytes = (<usize>columns) << 2;
  const begin = tile * word(ins, 7);
  const end = min(begin + word(ins, 7), word(ins, 5));
  for (let n = begin; n < end; n++) {
    const row = address(ins, 2) + <usize>n * bytes;
    const target = load<u32>(address(ins, 3) + ((<usize>n) << 2));
    const most = rowMax(row, columns);
    const sum = rowExp(row, columns, most, 0);
    const hit = load<f32>(row + ((<usize>target) << 2));
    store<f32>(address(ins, 4) + ((<usize>n) << 2), <f32>(<f64>most - <f64>hit + logarithm(<f64>sum)));
  }
}

/** The mean, summed in f64 in order. */
export function meanTile(ins: usize): void {
  const count = word(ins, 4);
  let sum: f64 = 0;
  for (let n = 0; n < count; n++) sum += <f64>load<f32>(address(ins, 2) + ((<usize>n) << 2));
  store<f32>(address(ins, 3), <f32>(sum / <f64>count));
}

export function crossEntropyBackwardTile(ins: usize, tile: i32): void {
  const rows = word(ins, 5);
  const columns = word(ins, 6);
  const bytes = (<usize>columns) << 2;
  const begin = tile * word(ins, 7);
  const end = min(begin + word(ins, 7), rows);
  for (let n = begin; n < end; n++) {
    const out = address(ins, 4) + <usize>n * bytes;
    const row = address(ins, 2) + <usize>n * bytes;
    const sum = rowExp(row, columns, rowMax(row, columns), out);
    const share = <f32>1 / sum;
    const weight = <f32>1 / <f32>word(ins, 8);
    const target = <i32>load<u32>(address(ins, 3) + ((<usize>n) << 2));
    const factor = f32x4.splat(share * weight);
    // softmax / N everywhere; the target's own element is written apart, (softmax − 1) / N, for its precision.
    const hit = load<f32>(out + ((<usize>target) << 2));
    let to = out;
    let left = columns;
    for (; left >= 4; left -= 4) {
      v128.store(to, f32x4.mul(v128.load(to), factor));
      to += 16;
    }
    if (left > 0) storeTail(to, f32x4.mul(loadTail(to, left, 0), factor), left);
    store<f32>(out + ((<usize>target) << 2), (hit * share - 1) * weight);
  }
}
