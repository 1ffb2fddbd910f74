/**
 * Elementary functions and small vector tools. WebAssembly defines + − × ÷ √ to the bit but has no exp, log, sin or cos,
 * and those of a JavaScript engine differ between browsers: these are ours, so that every machine computes the same bits.
 * Coefficients of exp4: Cephes `expf`. The f64 functions are Taylor series on a reduced argument.
 */

const LN2_HIGH: f64 = 6.9314718036912381649e-1;
const LN2_LOW: f64 = 1.90821492927058770002e-10;
const PI_HALF_HIGH: f64 = 1.57079632673412561417;
const PI_HALF_LOW: f64 = 6.07710050650619224932e-11;

/** Word `index` of an instruction. */
export function word(instruction: usize, index: i32): i32 {
  return load<i32>(instruction + ((<usize>index) << 2));
}

/** Word `index` of an instruction, as an address. */
export function address(instruction: usize, index: i32): usize {
  return load<usize>(instruction + ((<usize>index) << 2));
}

/** The first `count` (1 to 3) floats at `p`; other lanes hold `fill`. */
export function loadTail(p: usize, count: i32, fill: f32): v128 {
  let v = f32x4.replace_lane(f32x4.splat(fill), 0, load<f32>(p));
  if (count > 1) v = f32x4.replace_lane(v, 1, load<f32>(p, 4));
  if (count > 2) v = f32x4.replace_lane(v, 2, load<f32>(p, 8));
  return v;
}

/** Stores the first `count` (1 to 3) lanes of `v` at `p`. */
export function storeTail(p: usize, v: v128, count: i32): void {
  store<f32>(p, f32x4.extract_lane(v, 0));
  if (count > 1) store<f32>(p, f32x4.extract_lane(v, 1), 4);
  if (count > 2) store<f32>(p, f32x4.extract_lane(v, 2), 8);
}

/** The sum of the lanes, as (0 + 2) + (1 + 3). */
export function sumLanes(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 2) + (f32x4.extract_lane(v, 1) + f32x4.extract_lane(v, 3));
}

/** The largest lane; NaN when one is. */
export function maxLanes(v: v128): f32 {
  return max(
    max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)),
    max(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)),
  );
}

/** e^x in each lane, to about 1 unit in the last place: 0 below −87, ∞ above 88, NaN for NaN. */
export function exp4(x: v128): v128 {
  const n = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.44269504088896341)));
  let r = f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.add(r, f32x4.mul(n, f32x4.splat(2.1219444e-4)));
  let p = f32x4.add(f32x4.mul(r, f32x4.splat(1.98756915e-4)), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  p = f32x4.mul(p, power);
  p = v128.andnot(p, f32x4.lt(x, f32x4.splat(-87)));
  return v128.bitselect(f32x4.splat(Infinity), p, f32x4.gt(x, f32x4.splat(88)));
}

/** 1 / (1 + e^−x) in each lane. */
export function sigmoid4(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

/** The natural logarithm: −∞ for 0, NaN for NaN and negative numbers; subnormal arguments do not occur. */
export function logarithm(x: f64): f64 {
  if (!(x > 0)) return x == 0 ? -Infinity : NaN;
  if (x == Infinity) return x;
  const bits = reinterpret<u64>(x);
  let exponent = <i32>(bits >> 52) - 1023;
  let m = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent += 1;
  }
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let p: f64 = 0;
  for (let i = 25; i > 0; i -= 2) p = p * z + 1.0 / <f64>i;
  return <f64>exponent * LN2_HIGH + (2 * s * p + <f64>exponent * LN2_LOW);
}

/** e^x for |x| below 700. */
export function exponential(x: f64): f64 {
  const n = nearest(x * 1.4426950408889634);
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let p: f64 = 1;
  for (let i = 14; i > 0; i -= 1) p = 1 + (p * r) / <f64>i;
  return p * reinterpret<f64>((<u64>(<i64>n + 1023)) << 52);
}

/** sin(x + turns·π/2) for 0 ≤ x < 10⁶: turns 0 is the sine, 1 the cosine. */
export function sine(x: f64, turns: i32): f64 {
  const n = nearest(x * 0.6366197723675814);
  const r = x - n * PI_HALF_HIGH - n * PI_HALF_LOW;
  const quarter = (<i32>n + turns) & 3;
  const z = r * r;
  let p: f64 = 1;
  if (quarter & 1) {
    for (let i = 18; i > 0; i -= 2) p = 1 - (p * z) / <f64>(i * (i - 1));
  } else {
    for (let i = 18; i > 0; i -= 2) p = 1 - (p * z) / <f64>(i * (i + 1));
    p *= r;
  }
  return quarter & 2 ? -p : p;
}
