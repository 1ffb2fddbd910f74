/**
 * What is measured: each work with its operands, the amount of computing that a rate is formed with, and the check that an
 * output must pass before anything is timed. Operands come from a seed; expected values are sums in double precision, and
 * for a training step the first losses on the WASM engine, which is the same bits everywhere.
 */
import { createRng } from "../../src/base/rng.ts";
import { STEP_INNER, STEP_MODEL } from "../../src/engines/task.ts";
import type { InnerConfig, ModelConfig } from "../../src/protocol/charter.ts";
import { expectedAttention } from "./attention-reference.ts";

export type Work = MatmulWork | AttentionWork | StepWork;

/** c = a·b: a [M,K], b [K,N], both row by row; with transA a is [K,M], with transB b is [N,K]. Output "c" [M,N]. */
export interface MatmulWork {
  readonly type: "matmul";
  readonly name: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transA?: boolean;
  readonly transB?: boolean;
}

/**
 * Causal attention of one sequence, scaled by 1/√D: q, k, v, dout [T,H,D]. Output "out" [T,H,D]; with the way back "dq", "dk"
 * and "dv" [T,H,D] instead, which include a forward.
 */
export interface AttentionWork {
  readonly type: "attention";
  readonly name: string;
  readonly way: "forward" | "forward and backward";
  readonly time: number;
  readonly heads: number;
  readonly headDim: number;
}

/**
 * A whole training step: forward, backward, clipping, AdamW, the loss on the host. Every step sees the same batch. Output
 * "losses": those of the first `LOSSES` steps from the initial parameters.
 */
export interface StepWork {
  readonly type: "step";
  readonly name: string;
  readonly model: ModelConfig;
  readonly inner: InnerConfig;
  /** What the losses must be. */
  readonly losses: readonly number[];
}

export type Outputs = Readonly<Record<string, Float32Array>>;

/** Largest difference from the expected values over the largest expected value. */
const ERROR_MAX = 1e-5;
/** Largest difference of a loss, in nats. */
const LOSS_ERROR_MAX = 5e-4;
export const LOSSES = 3;
/** One element of a product in so many is compared. */
const STRIDE = 997;

const oblong = { type: "matmul", m: 1024, n: 1536, k: 384 } as const;

/** Training needs all three forms: the layers' outputs are a·bᵀ, the gradients of their inputs a·b, of their weights aᵀ·b. */
export const MATMULS: readonly MatmulWork[] = [
  { type: "matmul", name: "matmul 512", m: 512, n: 512, k: 512 },
  { type: "matmul", name: "matmul 1024", m: 1024, n: 1024, k: 1024 },
  { ...oblong, name: "matmul 1024x384x1536" },
  { ...oblong, name: "matmul 1024x384x1536 a·bᵀ", transB: true },
  { ...oblong, name: "matmul 1024x384x1536 aᵀ·b", transA: true },
];

const TIMES = [256, 512, 1024];

export const ATTENTIONS: readonly AttentionWork[] = (["forward", "forward and backward"] as const).flatMap((way) =>
  TIMES.map((time) => ({ type: "attention", name: `attention ${way} ${time}`, way, time, heads: 6, headDim: 64 })),
);

export const STEPS: readonly StepWork[] = [
  { type: "step", name: "step small", model: STEP_MODEL, inner: STEP_INNER, losses: [] },
  {
    type: "step",
    name: "step large",
    model: { ...STEP_MODEL, vocabulary: 1024, channels: 256, layers: 6, hidden: 688, time: 256 },
    inner: { ...STEP_INNER, batch: 4 },
    losses: [],
  },
];

/** Numbers between -0.5 and 0.5, the same for everybody. */
export function operand(name: string, count: number): Float32Array<ArrayBuffer> {
  const rng = createRng("bench", name);
  return Float32Array.from({ length: count }, () => rng.float() - 0.5);
}

/** Queries and keys are large enough that some keys matter more than others. */
export function attentionOperands({ time, heads, headDim }: AttentionWork) {
  const count = time * heads * headDim;
  const scaled = (name: string) => operand(name, count).map((value) => 4 * value);
  return { q: scaled("q"), k: scaled("k"), v: operand("v", count), dout: operand("dout", count) };
}

/** The batch of every step: tokens and targets [N]. The target follows from the token, so that there is something to learn. */
export function batchOf({ model, inner }: StepWork) {
  const rng = createRng("bench", "train");
  const tokens = Uint32Array.from({ length: inner.batch * model.time }, () => rng.below(64));
  return { tokens, targets: tokens.map((token) => (token + 1) % 64) };
}

export function unitOf(work: Work): string {
  return work.type === "step" ? "tokens/s" : "GFLOP/s";
}

/** How much of its unit one run of `work` is worth at one second. Attention counts the full square, as if nothing was masked. */
export function amountOf(work: Work): number {
  switch (work.type) {
    case "matmul":
      return (2 * work.m * work.n * work.k) / 1e9;
    case "attention":
      return ((work.way === "forward" ? 1 : 3.5) * 4 * work.heads * work.time ** 2 * work.headDim) / 1e9;
    case "step":
      return work.inner.batch * work.model.time;
    default:
      return work satisfies never;
  }
}

/** Returns a sentence that says what is wrong with `outputs`, or undefined. */
export function faultOf(work: Work, outputs: Outputs): string | undefined {
  switch (work.type) {
    case "matmul":
      return differenceFault("c", outputs["c"], expectedProduct(work));
    case "attention": {
      const expected = expectedAttention(work, attentionOperands(work));
      return Object.entries(expected)
        .map(([name, values]) => differenceFault(name, outputs[name], values))
        .find((fault) => fault !== undefined);
    }
    case "step":
      return lossFault(work, outputs);
    default:
      return work satisfies never;
  }
}

function expectedProduct({ m, n, k, transA = false, transB = false }: MatmulWork): Map<number, number> {
  const [a, b] = [operand("a", m * k), operand("b", k * n)];
  const expected = new Map<number, number>();
  for (let at = 0; at < m * n; at += STRIDE) {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let i = 0; i < k; i += 1) {
      const x = a[transA ? i * m + row : row * k + i] as number;
      sum += x * (b[transB ? column * k + i : i * n + column] as number);
    }
    expected.set(at, sum);
  }
  return expected;
}

/** A sentence when `got` is further from `expected` (value by index) than `ERROR_MAX` of the largest expected value. */
function differenceFault(
  name: string,
  got: Float32Array | undefined,
  expected: ReadonlyMap<number, number>,
): string | undefined {
  if (got === undefined) {
    return `there is no output "${name}"`;
  }
  let [error, size] = [0, 0];
  for (const [at, value] of expected) {
    const difference = Math.abs((got[at] ?? Number.NaN) - value);
    // A NaN must not pass as a small difference.
    error = difference <= error ? error : difference;
    size = Math.max(size, Math.abs(value));
  }
  return error <= ERROR_MAX * size
    ? undefined
    : `"${name}" is off by ${(error / size).toExponential(1)} of its largest`;
}

function lossFault({ losses }: StepWork, outputs: Outputs): string | undefined {
  const got = [...(outputs["losses"] ?? [])];
  const right =
    losses.length === LOSSES && losses.every((loss, i) => Math.abs((got[i] ?? Number.NaN) - loss) <= LOSS_ERROR_MAX);
  const text = (values: readonly number[]): string => values.map((value) => value.toFixed(4)).join(", ");
  return right ? undefined : `the first losses are ${text(got)}, not ${text(losses)}`;
}
