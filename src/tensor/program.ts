/**
 * A Program: a short list of fused ops over named, shaped tensors, in the order in which they run. It is recorded by
 * `record.ts`, differentiated by `grad.ts`, printed by `print.ts`, read by the twin (`twin.ts`) and compiled to Plans by
 * the engines in `gpu/` and `wasm/`. It knows nothing of devices or memory.
 *
 * Shape letters: B batch, T time, N = B·T rows, C channels, H query heads, K key/value heads, D head width, F feed-forward
 * width, V vocabulary, P parameters. Every tensor is dense and row-major; the last dimension is contiguous.
 */
import { present } from "../base/assert.ts";

export type TensorId = number;
export type DType = "f32" | "u32";

/**
 * input: written by the host before a run; an op may change it. state: kept by the engine between runs under its name, shared by all Plans of
 * one engine, zero until written. value: lives during one run only, unless the Program names it as an output.
 */
export type Role = "input" | "state" | "value";

export interface Tensor {
  readonly id: TensorId;
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly role: Role;
  /** A window into another tensor: `offset` counts elements of the base. Views are never nested. */
  readonly view?: { readonly of: TensorId; readonly offset: number };
}

/** Rows are cut into B sequences of `time` rows; each row holds `heads` vectors of `headDim`. */
export interface HeadShape {
  readonly batch: number;
  readonly time: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Elements at whose multiples a part of a tensor may begin that is bound by itself: 256 bytes, WebGPU's. */
export const ALIGNMENT = 64;

/** A matrix among parameters, row-major from element `offset` on. */
export interface MatrixPlace {
  readonly offset: number;
  readonly rows: number;
  readonly columns: number;
}

/** Newton and Schulz's polynomial aX + bX³ + cX⁵ with Muon's coefficients, and how often it is applied. */
export const MUON_POLYNOMIAL = [3.4445, -4.775, 2.0315] as const;
export const MUON_TURNS = 5;

/** What a step is multiplied by, so that it is as long as AdamW's (Liu et al., arXiv 2502.16982). */
export function muonStretch({ rows, columns }: Pick<MatrixPlace, "rows" | "columns">): number {
  return 0.2 * Math.sqrt(Math.max(rows, columns));
}

/** The length of the shorter side of a matrix, that of its Gram matrix. */
export function gramSide({ rows, columns }: Pick<MatrixPlace, "rows" | "columns">): number {
  return Math.min(rows, columns);
}

/** Where each matrix's Gram matrix begins, in elements, and how many there are of all. */
export function gramPlaces(matrices: readonly MatrixPlace[]): { offsets: readonly number[]; count: number } {
  let count = 0;
  const offsets = matrices.map((matrix) => {
    const offset = count;
    count += Math.ceil(gramSide(matrix) ** 2 / ALIGNMENT) * ALIGNMENT;
    return offset;
  });
  return { offsets, count };
}

/**
 * What each op computes. `out` and every name that starts with `d` on the left of "=" is written, everything else read.
 *
 * embedding             out[n,c] = table[tokens[n], c]                                    table [V,C], tokens [N] u32
 * embeddingBackward     dtable[v,c] = (add?[v,c]) + Σ over n with tokens[n] = v of dout[n,c], n ascending. `order` [N] u32
 *                       holds the row numbers sorted by token (stable), `offsets` [V+1] u32 where each token's run begins:
 *                       run v is order[offsets[v] … offsets[v+1]). Host code makes both (`sortTokens`)
 * matmul                out[M,N] = opA(a) · opB(b) (+ add[M,N]) (+ bias[N] in every row); transA: a is [K,M], transB: b is [N,K]
 * rmsNorm               rstd[n] = 1/√(mean_c x[n,c]² + eps); out[n,c] = x[n,c] · rstd[n] · gain[c]
 * rmsNormBackward       dx[n,c] = rstd·(gain·dout − x·rstd²·mean_c(gain·dout·x)) (+ add[n,c]); dgain[c] = Σ_n dout·x·rstd
 * rope                  pairs (i, i + D/2) of every head turn by t·base^(−2i/D), t = row mod time; inverse: by the negative angle
 * attention             causal, grouped-query; scale 1/√D; q [N,H·D], k and v [N,K·D]; query head h reads kv head ⌊h·K/H⌋.
 *                       out [N,H·D]; lse [B·H·T] = log Σ exp of each row's scaled scores, index (b·H + h)·T + t
 * attentionBackward     dq, dk, dv from dout; delta [B·H·T] = Σ_d dout·out is a workspace it writes first
 * swiglu                out = gate · sigmoid(gate) · up                                    all [N,F]
 * swigluBackward        dgate, dup from dout
 * add                   out = a + b
 * sumRows               out[n] = Σ_m x[m,n], m ascending                                 x [M,N], out [N]
 * crossEntropy          losses[n] = logsumexp_v logits[n,v] − logits[n, targets[n]]
 * crossEntropyBackward  dlogits[n,v] = (softmax(logits[n])[v] − [v = targets[n]]) / count, the gradient of a mean of `count`
 *                       losses (whose own gradient is 1); dlogits may be logits
 * mean                  out[0] = mean_n x[n]
 * norm                  out[0] = √Σ x²
 * adamw                 AdamW with decoupled decay and global-norm clipping, in place on params, m, v [P]:
 *                       s = clip > 0 ? min(1, clip / (norm + 1e-6)) : 1; g = grads·s; m = β1·m + (1−β1)·g; v = β2·v + (1−β2)·g²;
 *                       params = params − lr·(m·c1 / (√(v·c2) + eps) + wd·params); wd only for index < decayCount.
 *                       hyper [8] f32: lr, β1, β2, eps, wd, clip, c1 = 1/(1−β1^t), c2 = 1/(1−β2^t)
 *                       Source: Loshchilov and Hutter, arXiv 1711.05101; PyTorch clip_grad_norm_
 * muon                  Muon in place on the `matrices` of params and m [P]: s as in adamw; g = grads·s; m = μ·m + (1−μ)·g; X = (1−μ)·g + μ·m,
 *                       divided by its Frobenius norm + 1e-7; with W the one of X and Xᵀ that is not taller than wide, five times
 *                       A = W·Wᵀ, W = (aI + bA + cA²)·W, (a, b, c) = (3.4445, −4.775, 2.0315), which makes every singular value about 1;
 *                       params = params − lr·(0.2·√max(rows, columns)·X + wd·params). hyper [4] f32: lr, μ, wd, clip
 *                       grads, other [P], gram and mixed [Σ min(rows, columns)², each matrix at a multiple of 64] are workspaces: what they
 *                       hold afterwards is undefined. Sources: Jordan et al., kellerjordan.github.io/posts/muon; the factor 0.2·√max, with
 *                       which steps are as long as AdamW's: Liu et al., arXiv 2502.16982
 * feedback              residual = scale[0]·residual + (base − params), in place; all [P], scale [1]
 * pack                  slots[chunk] = what is sent of chunk 0 … ⌈P/4096⌉ − 1 of residual [P]: the `keep` largest magnitudes, of
 *                       equal ones the lower index, zeros and subnormal numbers never, as signs and 2^(bits−1) levels, `bits`
 *                       1 to 4 (`magnitude.ts`). slots [⌈P/4096⌉, slotWords] u32 (`slots.ts`). Every bit is defined
 */
export type Op =
  | { readonly type: "embedding"; readonly table: TensorId; readonly tokens: TensorId; readonly out: TensorId }
  | {
      readonly type: "embeddingBackward";
      readonly dout: TensorId;
      readonly order: TensorId;
      readonly offsets: TensorId;
      readonly add?: TensorId;
      readonly dtable: TensorId;
    }
  | {
      readonly type: "matmul";
      readonly a: TensorId;
      readonly b: TensorId;
      readonly transA: boolean;
      readonly transB: boolean;
      readonly add?: TensorId;
      readonly bias?: TensorId;
      readonly out: TensorId;
    }
  | {
      readonly type: "rmsNorm";
      readonly x: TensorId;
      readonly gain: TensorId;
      readonly eps: number;
      readonly out: TensorId;
      readonly rstd: TensorId;
    }
  | {
      readonly type: "rmsNormBackward";
      readonly x: TensorId;
      readonly gain: TensorId;
      readonly rstd: TensorId;
      readonly dout: TensorId;
      readonly add?: TensorId;
      readonly dx: TensorId;
      readonly dgain: TensorId;
    }
  | {
      readonly type: "rope";
      readonly x: TensorId;
      readonly time: number;
      readonly headDim: number;
      readonly base: number;
      readonly inverse: boolean;
      readonly out: TensorId;
    }
  | ({
      readonly type: "attention";
      readonly q: TensorId;
      readonly k: TensorId;
      readonly v: TensorId;
      readonly out: TensorId;
      readonly lse: TensorId;
    } & HeadShape)
  | ({
      readonly type: "attentionBackward";
      readonly q: TensorId;
      readonly k: TensorId;
      readonly v: TensorId;
      readonly out: TensorId;
      readonly lse: TensorId;
      readonly dout: TensorId;
      readonly delta: TensorId;
      readonly dq: TensorId;
      readonly dk: TensorId;
      readonly dv: TensorId;
    } & HeadShape)
  | { readonly type: "swiglu"; readonly gate: TensorId; readonly up: TensorId; readonly out: TensorId }
  | {
      readonly type: "swigluBackward";
      readonly gate: TensorId;
      readonly up: TensorId;
      readonly dout: TensorId;
      readonly dgate: TensorId;
      readonly dup: TensorId;
    }
  | { readonly type: "add"; readonly a: TensorId; readonly b: TensorId; readonly out: TensorId }
  | { readonly type: "sumRows"; readonly x: TensorId; readonly out: TensorId }
  | {
      readonly type: "crossEntropy";
      readonly logits: TensorId;
      readonly targets: TensorId;
      readonly losses: TensorId;
    }
  | {
      readonly type: "crossEntropyBackward";
      readonly logits: TensorId;
      readonly targets: TensorId;
      readonly count: number;
      readonly dlogits: TensorId;
    }
  | { readonly type: "mean"; readonly x: TensorId; readonly out: TensorId }
  | { readonly type: "norm"; readonly x: TensorId; readonly out: TensorId }
  | {
      readonly type: "adamw";
      readonly params: TensorId;
      readonly grads: TensorId;
      readonly m: TensorId;
      readonly v: TensorId;
      readonly norm: TensorId;
      readonly hyper: TensorId;
      readonly decayCount: number;
    }
  | {
      readonly type: "muon";
      readonly params: TensorId;
      readonly grads: TensorId;
      readonly m: TensorId;
      readonly norm: TensorId;
      readonly hyper: TensorId;
      readonly matrices: readonly MatrixPlace[];
      readonly other: TensorId;
      readonly gram: TensorId;
      readonly mixed: TensorId;
    }
  | {
      readonly type: "feedback";
      readonly base: TensorId;
      readonly params: TensorId;
      readonly scale: TensorId;
      readonly residual: TensorId;
    }
  | {
      readonly type: "pack";
      readonly residual: TensorId;
      readonly keep: number;
      readonly bits: number;
      readonly slots: TensorId;
    };

export type OpType = Op["type"];
export type OpOf<K extends OpType> = Extract<Op, { type: K }>;

export interface Program {
  readonly name: string;
  /** Indexed by id. */
  readonly tensors: readonly Tensor[];
  readonly ops: readonly Op[];
  /** Names of tensors that the host may read after a run: values, states, and inputs that an op has changed. */
  readonly outputs: readonly string[];
}

/** Field names of each op that hold tensors it writes; every other number that names a tensor is read. */
export const WRITES: { readonly [K in OpType]: readonly (keyof OpOf<K>)[] } = {
  embedding: ["out"],
  embeddingBackward: ["dtable"],
  matmul: ["out"],
  rmsNorm: ["out", "rstd"],
  rmsNormBackward: ["dx", "dgain"],
  rope: ["out"],
  attention: ["out", "lse"],
  attentionBackward: ["delta", "dq", "dk", "dv"],
  swiglu: ["out"],
  swigluBackward: ["dgate", "dup"],
  add: ["out"],
  sumRows: ["out"],
  crossEntropy: ["losses"],
  crossEntropyBackward: ["dlogits"],
  mean: ["out"],
  norm: ["out"],
  adamw: ["params", "m", "v"],
  muon: ["params", "m", "grads", "other", "gram", "mixed"],
  feedback: ["residual"],
  pack: ["slots"],
};

/** Field names of each op that hold tensors it reads (optional ones may be absent). */
export const READS: { readonly [K in OpType]: readonly (keyof OpOf<K>)[] } = {
  embedding: ["table", "tokens"],
  embeddingBackward: ["dout", "order", "offsets", "add"],
  matmul: ["a", "b", "add", "bias"],
  rmsNorm: ["x", "gain"],
  rmsNormBackward: ["x", "gain", "rstd", "dout", "add"],
  rope: ["x"],
  attention: ["q", "k", "v"],
  attentionBackward: ["q", "k", "v", "out", "lse", "dout"],
  swiglu: ["gate", "up"],
  swigluBackward: ["gate", "up", "dout"],
  add: ["a", "b"],
  sumRows: ["x"],
  crossEntropy: ["logits", "targets"],
  crossEntropyBackward: ["logits", "targets"],
  mean: ["x"],
  norm: ["x"],
  adamw: ["params", "grads", "m", "v", "norm", "hyper"],
  muon: ["params", "grads", "m", "norm", "hyper"],
  feedback: ["residual", "base", "params", "scale"],
  pack: ["residual"],
};

/** The tensor called `name`. Throws when the Program has none. */
export function tensorNamed(program: Program, name: string): Tensor {
  const tensor = program.tensors.find((candidate) => candidate.name === name);
  return present(tensor, `tensor "${name}" of program "${program.name}"`);
}

/** The tensor that `id` is a window into, or `id` itself. */
export function baseOf({ tensors }: Program, id: TensorId): TensorId {
  return tensors[id]?.view?.of ?? id;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** Ids of the tensors that `op` reads, in the order of `READS`. */
export function readsOf(op: Op): TensorId[] {
  return idsOf(op, READS[op.type] as readonly string[]);
}

/** Ids of the tensors that `op` writes, in the order of `WRITES`. */
export function writesOf(op: Op): TensorId[] {
  return idsOf(op, WRITES[op.type] as readonly string[]);
}

/** `op` with its tensors replaced by those that stand for them in `names`. */
export function renamed(op: Op, names: ReadonlyMap<TensorId, TensorId>): Op {
  const fields = new Set<unknown>([
    ...(READS[op.type] as readonly string[]),
    ...(WRITES[op.type] as readonly string[]),
  ]);
  return Object.fromEntries(
    Object.entries(op).map(([field, value]) => [
      field,
      fields.has(field) ? (names.get(value as TensorId) ?? value) : (value as unknown),
    ]),
  ) as unknown as Op;
}

function idsOf(op: Op, fields: readonly string[]): TensorId[] {
  const record = op as unknown as Readonly<Record<string, TensorId | undefined>>;
  return fields.map((field) => record[field]).filter((id) => id !== undefined);
}
