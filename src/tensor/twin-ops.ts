/**
 * What each op of a Program computes, in plain loops that are written to be read: the reference that every kernel in
 * `shaders/` and `wasm/` is compared with. Sums are carried in double precision and rounded once, when they are stored, so
 * the f32 twin is the correctly rounded neighbour of what a device computes; with f64 storage the same loops serve
 * gradient checks. Formulas and shape letters are those of `program.ts`; memory and order of the ops are `twin.ts`'s.
 */
/* oxlint-disable typescript/no-non-null-assertion -- every index below is inside its tensor; the formulas stay readable */
import { assert } from "../base/assert.ts";
import { packInto } from "./twin-pack.ts";
import { gramSide, MUON_POLYNOMIAL, MUON_TURNS, muonStretch } from "./program.ts";
import type { HeadShape, OpOf, OpType, TensorId } from "./program.ts";

export type Floats = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** How an op reaches its tensors. */
export interface Memory {
  floats(id: TensorId): Floats;
  words(id: TensorId): Uint32Array<ArrayBuffer>;
  shape(id: TensorId): readonly number[];
}

type Run<K extends OpType> = (op: OpOf<K>, memory: Memory) => void;

/** One function for each op: reads and writes the tensors that the op names. */
export const TWIN_OPS: { readonly [K in OpType]: Run<K> } = {
  embedding: (op, { floats, words, shape }) => {
    const [table, tokens, out] = [floats(op.table), words(op.tokens), floats(op.out)];
    const [vocabulary, C] = matrix(shape(op.table)); // [V,C]
    for (let n = 0; n < tokens.length; n += 1) {
      const v = tokens[n]!;
      assert(v < vocabulary, `Cannot embed token ${v}: the vocabulary has ${vocabulary}`);
      for (let c = 0; c < C; c += 1) {
        out[n * C + c] = table[v * C + c]!;
      }
    }
  },

  embeddingBackward: (op, { floats, words, shape }) => {
    const [dout, order, offsets, dtable] = [floats(op.dout), words(op.order), words(op.offsets), floats(op.dtable)];
    const add = op.add === undefined ? undefined : floats(op.add);
    const [vocabulary, C] = matrix(shape(op.dtable)); // [V,C]
    for (let v = 0; v < vocabulary; v += 1) {
      for (let c = 0; c < C; c += 1) {
        let sum = add === undefined ? 0 : add[v * C + c]!;
        for (let i = offsets[v]!; i < offsets[v + 1]!; i += 1) {
          sum += dout[order[i]! * C + c]!;
        }
        dtable[v * C + c] = sum;
      }
    }
  },

  matmul: (op, { floats, shape }) => {
    const [a, b, out] = [floats(op.a), floats(op.b), floats(op.out)];
    const add = op.add === undefined ? undefined : floats(op.add);
    const bias = op.bias === undefined ? undefined : floats(op.bias);
    const [M, N] = matrix(shape(op.out));
    const K = matrix(shape(op.a))[op.transA ? 0 : 1];
    const [aRow, aColumn] = op.transA ? [1, M] : [K, 1];
    const [bRow, bColumn] = op.transB ? [1, K] : [N, 1];
    for (let m = 0; m < M; m += 1) {
      for (let n = 0; n < N; n += 1) {
        let sum = (add === undefined ? 0 : add[m * N + n]!) + (bias === undefined ? 0 : bias[n]!);
        for (let k = 0; k < K; k += 1) {
          sum += a[m * aRow + k * aColumn]! * b[k * bRow + n * bColumn]!;
        }
        out[m * N + n] = sum;
      }
    }
  },

  rmsNorm: (op, { floats, shape }) => {
    const [x, gain, out, rstd] = [floats(op.x), floats(op.gain), floats(op.out), floats(op.rstd)];
    const [N, C] = matrix(shape(op.x));
    for (let n = 0; n < N; n += 1) {
      let squares = 0;
      for (let c = 0; c < C; c += 1) {
        squares += x[n * C + c]! ** 2;
      }
      const r = 1 / Math.sqrt(squares / C + op.eps);
      rstd[n] = r;
      for (let c = 0; c < C; c += 1) {
        out[n * C + c] = x[n * C + c]! * r * gain[c]!;
      }
    }
  },

  rmsNormBackward: (op, { floats, shape }) => {
    const [x, gain, rstd, dout] = [floats(op.x), floats(op.gain), floats(op.rstd), floats(op.dout)];
    const [dx, dgain] = [floats(op.dx), floats(op.dgain)];
    const add = op.add === undefined ? undefined : floats(op.add);
    const [N, C] = matrix(shape(op.x));
    for (let n = 0; n < N; n += 1) {
      const r = rstd[n]!;
      let dot = 0;
      for (let c = 0; c < C; c += 1) {
        dot += gain[c]! * dout[n * C + c]! * x[n * C + c]!;
      }
      const mean = dot / C;
      for (let c = 0; c < C; c += 1) {
        const own = r * (gain[c]! * dout[n * C + c]! - x[n * C + c]! * r * r * mean);
        dx[n * C + c] = own + (add === undefined ? 0 : add[n * C + c]!);
      }
    }
    for (let c = 0; c < C; c += 1) {
      let sum = 0;
      for (let n = 0; n < N; n += 1) {
        sum += dout[n * C + c]! * x[n * C + c]! * rstd[n]!;
      }
      dgain[c] = sum;
    }
  },

  rope: (op, { floats, shape }) => {
    const [x, out] = [floats(op.x), floats(op.out)];
    const [N, C] = matrix(shape(op.x));
    const half = op.headDim / 2;
    for (let n = 0; n < N; n += 1) {
      for (let i = 0; i < half; i += 1) {
        const turn = (n % op.time) * op.base ** (-i / half) * (op.inverse ? -1 : 1);
        const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
        for (let head = n * C; head < (n + 1) * C; head += op.headDim) {
          const [first, second] = [x[head + i]!, x[head + half + i]!];
          out[head + i] = first * cos - second * sin;
          out[head + half + i] = second * cos + first * sin;
        }
      }
    }
  },

  attention: (op, { floats }) => {
    const [q, k, v, out, lse] = [floats(op.q), floats(op.k), floats(op.v), floats(op.out), floats(op.lse)];
    const D = op.headDim;
    const scores = new Float64Array(op.time);
    eachQuery(op, (row, at, keyAt) => {
      let max = -Infinity;
      for (let t = 0; t <= row.t; t += 1) {
        scores[t] = dot(q, at, k, keyAt(t), D) / Math.sqrt(D);
        max = Math.max(max, scores[t]!);
      }
      let sum = 0;
      for (let t = 0; t <= row.t; t += 1) {
        scores[t] = Math.exp(scores[t]! - max);
        sum += scores[t]!;
      }
      lse[row.index] = max + Math.log(sum);
      for (let d = 0; d < D; d += 1) {
        let mixed = 0;
        for (let t = 0; t <= row.t; t += 1) {
          mixed += scores[t]! * v[keyAt(t) + d]!;
        }
        out[at + d] = mixed / sum;
      }
    });
  },

  attentionBackward: (op, { floats }) => {
    const [q, k, v, out, lse] = [floats(op.q), floats(op.k), floats(op.v), floats(op.out), floats(op.lse)];
    const [dout, delta] = [floats(op.dout), floats(op.delta)];
    const [dq, dk, dv] = [floats(op.dq), floats(op.dk), floats(op.dv)];
    const D = op.headDim;
    const scale = 1 / Math.sqrt(D);
    const dkSum = new Float64Array(dk.length);
    const dvSum = new Float64Array(dv.length);
    eachQuery(op, (row, at, keyAt) => {
      delta[row.index] = dot(dout, at, out, at, D);
      const dqSum = new Float64Array(D);
      for (let t = 0; t <= row.t; t += 1) {
        const p = Math.exp(dot(q, at, k, keyAt(t), D) * scale - lse[row.index]!);
        const dscore = p * (dot(dout, at, v, keyAt(t), D) - delta[row.index]!) * scale;
        for (let d = 0; d < D; d += 1) {
          dqSum[d]! += dscore * k[keyAt(t) + d]!;
          dkSum[keyAt(t) + d]! += dscore * q[at + d]!;
          dvSum[keyAt(t) + d]! += p * dout[at + d]!;
        }
      }
      dq.set(dqSum, at);
    });
    dk.set(dkSum);
    dv.set(dvSum);
  },

  swiglu: (op, { floats }) => {
    const [gate, up, out] = [floats(op.gate), floats(op.up), floats(op.out)];
    for (let i = 0; i < out.length; i += 1) {
      out[i] = gate[i]! * sigmoid(gate[i]!) * up[i]!;
    }
  },

  swigluBackward: (op, { floats }) => {
    const [gate, up, dout] = [floats(op.gate), floats(op.up), floats(op.dout)];
    const [dgate, dup] = [floats(op.dgate), floats(op.dup)];
    for (let i = 0; i < dout.length; i += 1) {
      const [x, d] = [gate[i]!, dout[i]!]; // first: dgate or dup may be dout
      const s = sigmoid(x);
      dgate[i] = d * up[i]! * s * (1 + x * (1 - s));
      dup[i] = d * x * s;
    }
  },

  add: (op, { floats }) => {
    const [a, b, out] = [floats(op.a), floats(op.b), floats(op.out)];
    for (let i = 0; i < out.length; i += 1) {
      out[i] = a[i]! + b[i]!;
    }
  },

  sumRows: (op, { floats, shape }) => {
    const [x, out] = [floats(op.x), floats(op.out)];
    const [M, N] = matrix(shape(op.x));
    for (let n = 0; n < N; n += 1) {
      let sum = 0;
      for (let m = 0; m < M; m += 1) {
        sum += x[m * N + n]!;
      }
      out[n] = sum;
    }
  },

  crossEntropy: (op, { floats, words, shape }) => {
    const [logits, targets, losses] = [floats(op.logits), words(op.targets), floats(op.losses)];
    const [N, V] = matrix(shape(op.logits));
    for (let n = 0; n < N; n += 1) {
      const target = targets[n]!;
      assert(target < V, `Cannot score target ${target}: the vocabulary has ${V}`);
      losses[n] = logSumExp(logits, n * V, V) - logits[n * V + target]!;
    }
  },

  crossEntropyBackward: (op, { floats, words, shape }) => {
    const [logits, targets, dlogits] = [floats(op.logits), words(op.targets), floats(op.dlogits)];
    const [N, V] = matrix(shape(op.logits));
    for (let n = 0; n < N; n += 1) {
      const lse = logSumExp(logits, n * V, V);
      for (let v = 0; v < V; v += 1) {
        dlogits[n * V + v] = (Math.exp(logits[n * V + v]! - lse) - (v === targets[n] ? 1 : 0)) / op.count;
      }
    }
  },

  mean: (op, { floats }) => {
    const x = floats(op.x);
    let sum = 0;
    for (let n = 0; n < x.length; n += 1) {
      sum += x[n]!;
    }
    floats(op.out)[0] = sum / x.length;
  },

  norm: (op, { floats }) => {
    const x = floats(op.x);
    let squares = 0;
    for (let i = 0; i < x.length; i += 1) {
      squares += x[i]! * x[i]!;
    }
    floats(op.out)[0] = Math.sqrt(squares);
  },

  adamw: (op, { floats }) => {
    const [params, grads, m, v] = [floats(op.params), floats(op.grads), floats(op.m), floats(op.v)];
    const [norm, hyper] = [floats(op.norm)[0]!, floats(op.hyper)];
    const [rate, beta1, beta2, eps] = [hyper[0]!, hyper[1]!, hyper[2]!, hyper[3]!];
    const [decay, clip, c1, c2] = [hyper[4]!, hyper[5]!, hyper[6]!, hyper[7]!];
    const s = clip > 0 ? Math.min(1, clip / (norm + 1e-6)) : 1;
    for (let i = 0; i < params.length; i += 1) {
      const g = grads[i]! * s;
      m[i] = beta1 * m[i]! + (1 - beta1) * g;
      v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
      const wd = i < op.decayCount ? decay : 0;
      params[i]! -= rate * ((m[i]! * c1) / (Math.sqrt(v[i]! * c2) + eps) + wd * params[i]!);
    }
  },

  muon: (op, { floats }) => {
    const [params, grads, m] = [floats(op.params), floats(op.grads), floats(op.m)];
    const [norm, hyper] = [floats(op.norm)[0]!, floats(op.hyper)];
    const [rate, mu, decay, clip] = [hyper[0]!, hyper[1]!, hyper[2]!, hyper[3]!];
    const s = clip > 0 ? Math.min(1, clip / (norm + 1e-6)) : 1;
    for (const { offset, rows, columns } of op.matrices) {
      const wide = rows <= columns;
      const x = new Float64Array(rows * columns);
      for (let i = 0; i < x.length; i += 1) {
        const g = grads[offset + i]! * s;
        m[offset + i] = mu * m[offset + i]! + (1 - mu) * g;
        x[i] = (1 - mu) * g + mu * m[offset + i]!;
      }
      const even = orthogonalised(wide ? x : turned(x, rows, columns), gramSide({ rows, columns }));
      const update = wide ? even : turned(even, columns, rows);
      const stretch = muonStretch({ rows, columns });
      for (let i = 0; i < x.length; i += 1) {
        params[offset + i]! -= rate * (stretch * update[i]! + decay * params[offset + i]!);
      }
    }
  },

  feedback: (op, { floats }) => {
    const [base, params, scale, residual] = [
      floats(op.base),
      floats(op.params),
      floats(op.scale)[0]!,
      floats(op.residual),
    ];
    for (let i = 0; i < residual.length; i += 1) {
      residual[i] = scale * residual[i]! + (base[i]! - params[i]!);
    }
  },

  pack: (op, { floats, words, shape }) => packInto(words(op.slots), floats(op.residual), op, shape(op.slots)[1]!),
};

/** The transpose of `x` [rows,columns]. */
function turned(x: Float64Array<ArrayBuffer>, rows: number, columns: number): Float64Array<ArrayBuffer> {
  return Float64Array.from(x, (_, at) => x[(at % rows) * columns + Math.floor(at / rows)]!);
}

/** Five turns of Newton and Schulz's iteration from `x`, whose `rows` are as many as its columns at most, over its norm. */
function orthogonalised(x: Float64Array<ArrayBuffer>, rows: number): Float64Array<ArrayBuffer> {
  const columns = x.length / rows;
  const [a, b, c] = MUON_POLYNOMIAL;
  const size = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0)) + 1e-7;
  let from = x.map((value) => value / size);
  for (let turn = 0; turn < MUON_TURNS; turn += 1) {
    const gram = product(from, turned(from, rows, columns), rows);
    const square = product(gram, gram, rows);
    const mixed = gram.map((value, at) => b * value + c * square[at]! + (at % (rows + 1) === 0 ? a : 0));
    from = product(mixed, from, rows);
  }
  return from;
}

/** `left` [rows,k] · `right` [k,n]. */
function product(
  left: Float64Array<ArrayBuffer>,
  right: Float64Array<ArrayBuffer>,
  rows: number,
): Float64Array<ArrayBuffer> {
  const k = left.length / rows;
  const n = right.length / k;
  const out = new Float64Array(rows * n);
  for (let i = 0; i < rows; i += 1) {
    for (let l = 0; l < k; l += 1) {
      for (let j = 0; j < n; j += 1) {
        out[i * n + j]! += left[i * k + l]! * right[l * n + j]!;
      }
    }
  }
  return out;
}

/**
 * Calls `visit` for every query row of every head: its time and its index in lse, where its vector starts in q and out,
 * and where the vector of an earlier time `t` starts in k and v.
 */
function eachQuery(
  { batch, time, heads, kvHeads, headDim }: HeadShape,
  visit: (row: { t: number; index: number }, at: number, keyAt: (t: number) => number) => void,
): void {
  for (let b = 0; b < batch; b += 1) {
    for (let h = 0; h < heads; h += 1) {
      const kvHead = Math.floor((h * kvHeads) / heads);
      const keyAt = (t: number): number => ((b * time + t) * kvHeads + kvHead) * headDim;
      for (let t = 0; t < time; t += 1) {
        visit({ t, index: (b * heads + h) * time + t }, ((b * time + t) * heads + h) * headDim, keyAt);
      }
    }
  }
}

function dot(a: Floats, aAt: number, b: Floats, bAt: number, length: number): number {
  let sum = 0;
  for (let i = 0; i < length; i += 1) {
    sum += a[aAt + i]! * b[bAt + i]!;
  }
  return sum;
}

function logSumExp(x: Floats, at: number, length: number): number {
  let max = -Infinity;
  for (let i = at; i < at + length; i += 1) {
    max = Math.max(max, x[i]!);
  }
  let sum = 0;
  for (let i = at; i < at + length; i += 1) {
    sum += Math.exp(x[i]! - max);
  }
  return max + Math.log(sum);
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

function matrix(shape: readonly number[]): readonly [number, number] {
  assert(shape.length === 2, `Cannot run op: shape [${shape}] must have two dimensions`);
  return [shape[0]!, shape[1]!];
}
