/**
 * Seeded random numbers: xoshiro128** (Blackman and Vigna, 2018) seeded by splitmix32 over an FNV-1a hash of any mix of
 * strings and numbers. Not for secrets. The same seed gives the same numbers on every machine: only integer arithmetic
 * and exact divisions are used up to `float()`; `normal()` uses Math.log and Math.cos, whose last bit may differ between
 * engines, so nothing that must be equal between machines may be drawn from it (initial weights travel as bytes).
 */

export interface Rng {
  /** The next 32 random bits, as an unsigned integer. */
  uint32(): number;
  /** Uniform in [0, 1), a multiple of 2^-32. */
  float(): number;
  /** A uniform integer in [0, n). */
  below(n: number): number;
  /** A normal deviate with mean 0 and variance 1. */
  normal(): number;
}

export type Seed = string | number;

export function createRng(...seeds: readonly Seed[]): Rng {
  let mix = hash(seeds.join("\u0000"));
  const next = (): number => {
    mix = (mix + 0x9e3779b9) | 0;
    let z = mix ^ (mix >>> 16);
    z = Math.imul(z, 0x21f0aaad);
    z ^= z >>> 15;
    z = Math.imul(z, 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  let [a, b, c, d] = [next(), next(), next(), next()];
  const uint32 = (): number => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotate(d, 11);
    return result;
  };
  return rngOf(uint32);
}

/** The other draws from a source of 32 random bits. */
export function rngOf(uint32: () => number): Rng {
  const float = (): number => uint32() / 0x1_0000_0000;
  return {
    uint32,
    float,
    below: (n) => Math.floor(float() * n),
    normal: () => Math.sqrt(-2 * Math.log(1 - float())) * Math.cos(2 * Math.PI * float()),
  };
}

/** A random permutation of 0 … n − 1 (Fisher–Yates). */
export function permutation(n: number, rng: Rng): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i -= 1) {
    const j = rng.below(i + 1);
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return order;
}

function rotate(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

/** FNV-1a over UTF-16 code units, 32 bit. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) {
    h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  }
  return h | 0;
}
