/**
 * Ops over elements: addition, SwiGLU, AdamW, and the global norm. A tile is BLOCK elements; the last ones go through the
 * same vector arithmetic by way of `loadTail`, so that an element's bits do not depend on where it stands.
 */
import { word, address, loadTail, storeTail, sigmoid4, sumLanes } from "./math";
import { BLOCK } from "./opcodes";

/** out = a + b. */
export function addTile(ins: usize, tile: i32): void {
  const from = <usize>tile * BLOCK;
  const count = min(BLOCK, word(ins, 5) - tile * BLOCK);
  let a = address(ins, 2) + (from << 2);
  let b = address(ins, 3) + (from << 2);
  let out = address(ins, 4) + (from << 2);
  let left = count;
  for (; left >= 4; left -= 4) {
    v128.store(out, f32x4.add(v128.load(a), v128.load(b)));
    a += 16;
    b += 16;
    out += 16;
  }
  if (left > 0) storeTail(out, f32x4.add(loadTail(a, left, 0), loadTail(b, left, 0)), left);
}

/** gate · sigmoid(gate) · up. */
function swiglu4(gate: v128, up: v128): v128 {
  return f32x4.mul(f32x4.mul(gate, sigmoid4(gate)), up);
}

export function swigluTile(ins: usize, tile: i32): void {
  const from = <usize>tile * BLOCK;
  let left = min(BLOCK, word(ins, 5) - tile * BLOCK);
  let gate = address(ins, 2) + (from << 2);
  let up = address(ins, 3) + (from << 2);
  let out = address(ins, 4) + (from << 2);
  for (; left >= 4; left -= 4) {
    v128.store(out, swiglu4(v128.load(gate), v128.load(up)));
    gate += 16;
    up += 16;
    out += 16;
  }
  if (left > 0) storeTail(out, swiglu4(loadTail(gate, left, 0), loadTail(up, left, 0)), left);
}

/** dup = dout · silu(gate); dgate = dout · up · s · (1 + gate · (1 − s)) with s = sigmoid(gate). */
export function swigluBackwardTile(ins: usize, tile: i32): void {
  const from = <usize>tile * BLOCK;
  let left = min(BLOCK, word(ins, 7) - tile * BLOCK);
  let gate = address(ins, 2) + (from << 2);
  let up = address(ins, 3) + (from << 2);
  let dout = address(ins, 4) + (from << 2);
  let dgate = address(ins, 5) + (from << 2);
  let dup = address(ins, 6) + (from << 2);
  const one = f32x4.splat(1);
  for (; left > 0; left -= 4) {
    const whole = left >= 4;
    const g = whole ? v128.load(gate) : loadTail(gate, left, 0);
    const u = whole ? v128.load(up) : loadTail(up, left, 0);
    const d = whole ? v128.load(dout) : loadTail(dout, left, 0);
    const s = sigmoid4(g);
    const slope = f32x4.mul(s, f32x4.add(one, f32x4.mul(g, f32x4.sub(one, s))));
    const x = f32x4.mul(f32x4.mul(d, u), slope);
    const y = f32x4.mul(d, f32x4.mul(g, s));
    if (whole) {
      v128.store(dgate, x);
      v128.store(dup, y);
    } else {
      storeTail(dgate, x, left);
      storeTail(dup, y, left);
    }
    gate += 16;
    up += 16;
    dout += 16;
    dgate += 16;
    dup += 16;
  }
}

/** The sum of squares of one block of BLOCK elements, in f64. */
export function normBlockTile(ins: usize, tile: i32): void {
  let x = address(ins, 2) + ((<usize>tile * BLOCK) << 2);
  let left = min(BLOCK, word(ins, 4) - tile * BLOCK);
  let low = f64x2.splat(0);
  let high = f64x2.splat(0);
  for (; left > 0; left -= 4) {
    const v = left >= 4 ? v128.load(x) : loadTail(x, left, 0);
    const a = f64x2.promote_low_f32x4(v);
    const b = f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3));
    low = f64x2.add(low, f64x2.mul(a, a));
    high = f64x2.add(high, f64x2.mul(b, b));
    x += 16;
  }
  const sum = f64x2.add(low, high);
  store<f64>(address(ins, 3) + ((<usize>tile) << 3), f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1));
}

/** √ of the sum of the blocks, in their order. */
export function normTotalTile(ins: usize): void {
  let sum: f64 = 0;
  const count = word(ins, 3);
  for (let i = 0; i < count; i++) sum += load<f64>(address(ins, 2) + ((<usize>i) << 3));
  store<f32>(address(ins, 4), <f32>sqrt(sum));
}

/** AdamW on elements that all decay by `decay` (0 for none). */
function adamw(params: usize, grads: usize, m: usize, v: usize, count: i32, hyper: usize, clip: f32, decay: f32): void {
  const rate = f32x4.splat(load<f32>(hyper));
  const beta1 = f32x4.splat(load<f32>(hyper, 4));
  const beta2 = f32x4.splat(load<f32>(hyper, 8));
  const other1 = f32x4.splat(<f32>1 - load<f32>(hyper, 4));
  const other2 = f32x4.splat(<f32>1 - load<f32>(hyper, 8));
  const eps = f32x4.splat(load<f32>(hyper, 12));
  const correct1 = f32x4.splat(load<f32>(hyper, 24));
  const correct2 = f32x4.splat(load<f32>(hyper, 28));
  const factor = f32x4.splat(clip);
  const shrink = f32x4.splat(decay);
  for (let left = count; left > 0; left -= 4) {
    const whole = left >= 4;
    const g = f32x4.mul(whole ? v128.load(grads) : loadTail(grads, left, 0), factor);
    const p = whole ? v128.load(params) : loadTail(params, left, 0);
    const m0 = whole ? v128.load(m) : loadTail(m, left, 0);
    const v0 = whole ? v128.load(v) : loadTail(v, left, 0);
    const m1 = f32x4.add(f32x4.mul(beta1, m0), f32x4.mul(other1, g));
    const v1 = f32x4.add(f32x4.mul(beta2, v0), f32x4.mul(other2, f32x4.mul(g, g)));
    const step = f32x4.div(f32x4.mul(m1, correct1), f32x4.add(f32x4.sqrt(f32x4.mul(v1, correct2)), eps));
    const p1 = f32x4.sub(p, f32x4.mul(rate, f32x4.add(step, f32x4.mul(shrink, p))));
    if (whole) {
      v128.store(params, p1);
      v128.store(m, m1);
      v128.store(v, v1);
    } else {
      storeTail(params, p1, left);
      storeTail(m, m1, left);
      storeTail(v, v1, left);
    }
    params += 16;
    grads += 16;
    m += 16;
    v += 16;
  }
}

/** What gradients of this norm are multiplied by. */
export function clipFactor(limit: f32, norm: f32): f32 {
  return limit > 0 ? min<f32>(1, limit / (norm + <f32>1e-6)) : <f32>1;
}

export function adamwTile(ins: usize, tile: i32): void {
  const begin = tile * BLOCK;
  const end = min(begin + BLOCK, word(ins, 8));
  const hyper = address(ins, 7);
  const clip = clipFactor(load<f32>(hyper, 20), load<f32>(address(ins, 6)));
  const decaying = max(begin, min(end, word(ins, 9)));
  let at = (<usize>begin) << 2;
  const params = address(ins, 2);
  const grads = address(ins, 3);
  const m = address(ins, 4);
  const v = address(ins, 5);
  adamw(params + at, grads + at, m + at, v + at, decaying - begin, hyper, clip, load<f32>(hyper, 16));
  at = (<usize>decaying) << 2;
  adamw(params + at, grads + at, m + at, v + at, end - decaying, hyper, clip, 0);
}
