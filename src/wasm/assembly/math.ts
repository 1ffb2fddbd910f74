/**
 * Elementary functions and small vector tools. WebAssembly defines + − × ÷ √ to the bit but has no exp, log, sin or cos,
 * and those of a JavaScript engine differ between browsers: these are ours, so that every machine computes the same bits.
 * Coefficients of exp4: Cephes `expf`. Those of exp2Negative4 interpolate (2^x − 1)/x at the Chebyshev nodes of [−½, ½]. The
 * f64 functions are Taylor series on a reduced argument.
 */

const LN2_HIGH: f64 = 6.9314718036912381649e-1;
const LN2_LOW: f64 = 1.90821492927058770002e-10;
const PI_HALF_HIGH: f64 = 1.57079632673412561417;
const PI_HALF_LOW: f64 = 6.07710050650619224932e-11;

export const LOG2_E: f32 = 1.44269504088896341;
export const LN2: f64 = 0.6931471805599453;

/**
 * Vector constants in memory, four lanes each: V8 builds a constant operand anew at every use, which takes two to three
 * times as long as loading it. The round-off of adding ROUND leaves the nearest integer plus 127 in the low bits of the sum.
 */
const ROUND: f32 = 12583039;
const CONSTANTS: usize = memory.data<f32>(
  // prettier-ignore
  [
    ROUND, ROUND, ROUND, ROUND,
    1, 1, 1, 1,
    0.6931471880262285, 0.6931471880262285, 0.6931471880262285, 0.6931471880262285,
    0.24022650760567846, 0.24022650760567846, 0.24022650760567846, 0.24022650760567846,
    0.05550357114219147, 0.05550357114219147, 0.05550357114219147, 0.05550357114219147,
    0.009618082557302569, 0.009618082557302569, 0.009618082557302569, 0.009618082557302569,
    0.001339086336462805, 0.001339086336462805, 0.001339086336462805, 0.001339086336462805,
    0.00015453162939509034, 0.00015453162939509034, 0.00015453162939509034, 0.00015453162939509034,
    -100, -100, -100, -100,
  ],
  16,
);

const EXP: usize = memory.data<f32>(
  // prettier-ignore
  [
    1.44269504088896341, 1.44269504088896341, 1.44269504088896341, 1.44269504088896341,
    0.693359375, 0.693359375, 0.693359375, 0.693359375,
    2.1219444e-4, 2.1219444e-4, 2.1219444e-4, 2.1219444e-4,
    1.98756915e-4, 1.98756915e-4, 1.98756915e-4, 1.98756915e-4,
    1.3981999507e-3, 1.3981999507e-3, 1.3981999507e-3, 1.3981999507e-3,
    8.3334519073e-3, 8.3334519073e-3, 8.3334519073e-3, 8.3334519073e-3,
    4.1665795894e-2, 4.1665795894e-2, 4.1665795894e-2, 4.1665795894e-2,
    1.6666665459e-1, 1.6666665459e-1, 1.6666665459e-1, 1.6666665459e-1,
    5.0000001201e-1, 5.0000001201e-1, 5.0000001201e-1, 5.0000001201e-1,
    -87, -87, -87, -87,
    88, 88, 88, 88,
    Infinity, Infinity, Infinity, Infinity,
  ],
  16,
);

/** Word `index` of an instruction. */
export function word(instruction: usize, index: i32): i32 {
  return load<i32>(instruction + ((<usize>index) << 2));
}

/** Word `index` of an instruction, as an address. */
export function address(instruction: usize, index: i32): usize {
  return load<usize>(instruction + ((<usize>index) << 2));
}

/**
 * a · b + c. In the exact modules product and sum are rounded; in the fused ones only the sum, where the processor has an
 * instruction for that (`fuses`), else they are the exact ones.
 */
export function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(c, f32x4.mul(a, b));
}

/** Whether `madd` rounds once: (1 + 2⁻¹²)² − (1 + 2⁻¹¹) is 2⁻²⁴, and 0 where the product is rounded. `x` is 1 + 2⁻¹². */
export function fuses(x: f32): bool {
  const a = f32x4.splat(x);
  return f32x4.extract_lane(madd(a, a, f32x4.splat(-(2 * x - 1))), 0) != 0;
}

/** The first `count` (1 to 3) floats at `p`; other lanes hold `fill`. */
export function loadTail(p: usize, count: i32, fill: f32): v128 {
  let v = f32x4.replace_lane(f32x4.splat(fill), 0, load<f32>(p));
  if (count > 1) v = f32x4.replace_lane(v, 1, load<f32>(p, 4));
  if (count > 2) v = f32x4.replace_lane(v, 2, load<f32>(p, 8));
  return v;
}

/** Up to 4 floats at `p`, zeros beyond `count` (which may be 0 or negative). */
export function loadUpTo4(p: usize, count: i32): v128 {
  if (count >= 4) return v128.load(p);
  return count > 0 ? loadTail(p, count, 0) : f32x4.splat(0);
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

/** The largest lane; a lane that is NaN may be passed over. */
export function maxLanes(v: v128): f32 {
  return max(
    max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)),
    max(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)),
  );
}

/** 2^x in each lane for x ≤ 0 (or little above), to about 1 unit in the last place: 0 below −100, NaN for NaN. */
export function exp2Negative4(x: v128): v128 {
  const shifted = f32x4.add(x, v128.load(CONSTANTS));
  const r = f32x4.sub(x, f32x4.sub(shifted, v128.load(CONSTANTS)));
  let p = f32x4.add(f32x4.mul(r, v128.load(CONSTANTS, 112)), v128.load(CONSTANTS, 96));
  p = f32x4.add(f32x4.mul(p, r), v128.load(CONSTANTS, 80));
  p = f32x4.add(f32x4.mul(p, r), v128.load(CONSTANTS, 64));
  p = f32x4.add(f32x4.mul(p, r), v128.load(CONSTANTS, 48));
  p = f32x4.add(f32x4.mul(p, r), v128.load(CONSTANTS, 32));
  p = f32x4.add(f32x4.mul(p, r), v128.load(CONSTANTS, 16));
  return v128.andnot(f32x4.mul(p, i32x4.shl(shifted, 23)), f32x4.lt(x, v128.load(CONSTANTS, 128)));
}

/** e^x in each lane, to about 1 unit in the last place: 0 below −87, ∞ above 88, NaN for NaN. */
export function exp4(x: v128): v128 {
  const shifted = f32x4.add(f32x4.mul(x, v128.load(EXP)), v128.load(CONSTANTS));
  const n = f32x4.sub(shifted, v128.load(CONSTANTS));
  let r = f32x4.sub(x, f32x4.mul(n, v128.load(EXP, 16)));
  r = f32x4.add(r, f32x4.mul(n, v128.load(EXP, 32)));
  let p = f32x4.add(f32x4.mul(r, v128.load(EXP, 48)), v128.load(EXP, 64));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP, 80));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP, 96));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP, 112));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP, 128));
  p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), v128.load(CONSTANTS, 16));
  p = v128.andnot(f32x4.mul(p, i32x4.shl(shifted, 23)), f32x4.lt(x, v128.load(EXP, 144)));
  return v128.bitselect(v128.load(EXP, 176), p, f32x4.gt(x, v128.load(EXP, 160)));
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
