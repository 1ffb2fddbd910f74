/**
 * What Muon does to elements; its products are those of `matmul.ts`. Tiles are BLOCK elements of one matrix, and the last ones go
 * through the same vector arithmetic.
 */
import { clipFactor } from "./elementwise";
import { address, loadTail, storeTail, word } from "./math";
import { BLOCK } from "./opcodes";

/** m = μ·m + (1−μ)·g; grads = (1−μ)·g + μ·m, with g the clipped gradient. */
export function muonMomentumTile(ins: usize, tile: i32): void {
  const at = (<usize>tile * BLOCK) << 2;
  let grads = address(ins, 2) + at;
  let m = address(ins, 3) + at;
  const hyper = address(ins, 5);
  const factor = f32x4.splat(clipFactor(load<f32>(hyper, 12), load<f32>(address(ins, 4))));
  const mu = f32x4.splat(load<f32>(hyper, 4));
  const other = f32x4.splat(<f32>1 - load<f32>(hyper, 4));
  for (let left = min(BLOCK, word(ins, 6) - tile * BLOCK); left > 0; left -= 4) {
    const whole = left >= 4;
    const g = f32x4.mul(f32x4.mul(whole ? v128.load(grads) : loadTail(grads, left, 0), factor), other);
    const m1 = f32x4.add(f32x4.mul(mu, whole ? v128.load(m) : loadTail(m, left, 0)), g);
    const x = f32x4.add(g, f32x4.mul(mu, m1));
    if (whole) {
      v128.store(grads, x);
      v128.store(m, m1);
    } else {
      storeTail(grads, x, left);
      storeTail(m, m1, left);
    }
    grads += 16;
    m += 16;
  }
}

/** x = x / (norm + 1e-7). */
export function muonScaleTile(ins: usize, tile: i32): void {
  const factor = f32x4.splat(<f32>1 / (load<f32>(address(ins, 3)) + <f32>1e-7));
  let x = address(ins, 2) + ((<usize>tile * BLOCK) << 2);
  for (let left = min(BLOCK, word(ins, 4) - tile * BLOCK); left > 0; left -= 4) {
    if (left >= 4) v128.store(x, f32x4.mul(v128.load(x), factor));
    else storeTail(x, f32x4.mul(loadTail(x, left, 0), factor), left);
    x += 16;
  }
}

/** mixed = a·I + b·gram + c·mixed, both square. */
export function muonMixTile(ins: usize, tile: i32): void {
  const side = word(ins, 4);
  const from = tile * BLOCK;
  const end = min(from + BLOCK, side * side);
  const a = reinterpret<f32>(word(ins, 5));
  const b = f32x4.splat(reinterpret<f32>(word(ins, 6)));
  const c = f32x4.splat(reinterpret<f32>(word(ins, 7)));
  let gram = address(ins, 2) + ((<usize>from) << 2);
  let mixed = address(ins, 3) + ((<usize>from) << 2);
  for (let left = end - from; left > 0; left -= 4) {
    const whole = left >= 4;
    const first = f32x4.mul(b, whole ? v128.load(gram) : loadTail(gram, left, 0));
    const sum = f32x4.add(first, f32x4.mul(c, whole ? v128.load(mixed) : loadTail(mixed, left, 0)));
    if (whole) v128.store(mixed, sum);
    else storeTail(mixed, sum, left);
    gram += 16;
    mixed += 16;
  }
  const step = side + 1;
  for (let at = ((from + step - 1) / step) * step; at < end; at += step) {
    const diagonal = address(ins, 3) + ((<usize>at) << 2);
    store<f32>(diagonal, load<f32>(diagonal) + a);
  }
}

/** params = params − lr·(stretch·x + wd·params). */
export function muonStepTile(ins: usize, tile: i32): void {
  const at = (<usize>tile * BLOCK) << 2;
  let params = address(ins, 2) + at;
  let x = address(ins, 3) + at;
  const hyper = address(ins, 4);
  const rate = f32x4.splat(load<f32>(hyper));
  const shrink = f32x4.splat(load<f32>(hyper, 8));
  const stretch = f32x4.splat(reinterpret<f32>(word(ins, 6)));
  for (let left = min(BLOCK, word(ins, 5) - tile * BLOCK); left > 0; left -= 4) {
    const whole = left >= 4;
    const p = whole ? v128.load(params) : loadTail(params, left, 0);
    const step = f32x4.mul(stretch, whole ? v128.load(x) : loadTail(x, left, 0));
    const p1 = f32x4.sub(p, f32x4.mul(rate, f32x4.add(step, f32x4.mul(shrink, p))));
    if (whole) v128.store(params, p1);
    else storeTail(params, p1, left);
    params += 16;
    x += 16;
  }
}
