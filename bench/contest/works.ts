/**
 * What is measured: each work with its operands, the amount of computing that a rate is formed with, and the check that an
 * output must pass before anything is timed. Operands come from a seed, expected values from sums in double precision.
 */
import { createRng } from "../../src/base/rng.ts";

export type Work = MatmulWork;

/** c = a·b: a [M,K], b [K,N], both row by row. Output "c" [M,N]. */
export interface MatmulWork {
  readonly type: "matmul";
  readonly name: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

export type Outputs = Readonly<Record<string, Float32Array>>;

/** Largest difference from the expected values over the largest expected value. */
const ERROR_MAX = 1e-5;
/** One element in so many is compared. */
const STRIDE = 997;

const matmul = (name: string, m: number, n: number, k: number): MatmulWork => ({ type: "matmul", name, m, n, k });

export const MATMULS: readonly MatmulWork[] = [
  matmul("matmul 512", 512, 512, 512),
  matmul("matmul 1024", 1024, 1024, 1024),
  matmul("matmul 1024x384x1536", 1024, 1536, 384),
];

/** Numbers between -0.5 and 0.5, the same for everybody. */
export function operand(name: string, count: number): Float32Array<ArrayBuffer> {
  const rng = createRng("bench", name);
  return Float32Array.from({ length: count }, () => rng.float() - 0.5);
}

export function unitOf(work: Work): string {
  switch (work.type) {
    case "matmul":
      return "GFLOP/s";
    default:
      return work.type satisfies never;
  }
}

/** How much of its unit one run of `work` is worth at one second. */
export function amountOf(work: Work): number {
  switch (work.type) {
    case "matmul":
      return (2 * work.m * work.n * work.k) / 1e9;
    default:
      return work.type satisfies never;
  }
}

/** Returns a sentence that says what is wrong with `outputs`, or undefined. */
export function faultOf(work: Work, outputs: Outputs): string | undefined {
  switch (work.type) {
    case "matmul":
      return matmulFault(work, outputs);
    default:
      return work.type satisfies never;
  }
}

function matmulFault({ m, n, k }: MatmulWork, { c }: Outputs): string | undefined {
  if (c?.length !== m * n) {
    return `the output has ${c?.length ?? 0} elements, not ${m * n}`;
  }
  const [a, b] = [operand("a", m * k), operand("b", k * n)];
  const expected = new Map<number, number>();
  for (let at = 0; at < c.length; at += STRIDE) {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let i = 0; i < k; i += 1) {
      sum += (a[row * k + i] as number) * (b[i * n + column] as number);
    }
    expected.set(at, sum);
  }
  return differenceFault("c", c, expected);
}

/** A sentence when `got` is further from `expected` (value by index) than `ERROR_MAX` of the largest expected value. */
function differenceFault(name: string, got: Float32Array, expected: ReadonlyMap<number, number>): string | undefined {
  let [error, size] = [0, 0];
  for (const [at, value] of expected) {
    const difference = Math.abs((got[at] as number) - value);
    // A NaN must not pass as a small difference.
    error = difference <= error ? error : difference;
    size = Math.max(size, Math.abs(value));
  }
  return error <= ERROR_MAX * size
    ? undefined
    : `"${name}" is off by ${(error / size).toExponential(1)} of its largest`;
}
