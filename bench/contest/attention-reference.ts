/**
 * Causal attention and its gradients in double precision, for one head after the other, to check others against. Follows the
 * definition (Vaswani et al., arXiv 1706.03762) row by row; O(T²·D) time, O(T) memory beside the outputs.
 */
import type { AttentionWork } from "./works.ts";

interface Operands {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly dout: Float32Array;
}

/** Expected values by index into [T,H,D] of the first and the last head, for each output of `work`. */
export function expectedAttention(work: AttentionWork, operands: Operands): Record<string, Map<number, number>> {
  const names = work.way === "forward" ? ["out"] : ["dq", "dk", "dv"];
  const outputs = Object.fromEntries(names.map((name) => [name, new Map<number, number>()]));
  for (const head of new Set([0, work.heads - 1])) {
    const values = attendHead(work, operands, head);
    for (const [name, output] of Object.entries(outputs)) {
      const value = values[name as keyof typeof values];
      value.forEach((each, i) => output.set(indexOf(work, head, Math.floor(i / work.headDim), i % work.headDim), each));
    }
  }
  return outputs;
}

function indexOf({ heads, headDim }: AttentionWork, head: number, time: number, d: number): number {
  return (time * heads + head) * headDim + d;
}

/** out, dq, dk, dv [T,D] of one head. */
function attendHead(work: AttentionWork, operands: Operands, head: number) {
  const { time, headDim } = work;
  const rows = (values: Float32Array): Float64Array[] =>
    Array.from({ length: time }, (_, t) => {
      const at = indexOf(work, head, t, 0);
      return Float64Array.from(values.subarray(at, at + headDim));
    });
  const [q, k, v, dout] = [rows(operands.q), rows(operands.k), rows(operands.v), rows(operands.dout)];
  const zeros = () => new Float64Array(time * headDim);
  const [out, dq, dk, dv] = [zeros(), zeros(), zeros(), zeros()];
  const scale = 1 / Math.sqrt(headDim);
  for (let i = 0; i < time; i += 1) {
    const [query, dmixed] = [q[i] as Float64Array, dout[i] as Float64Array];
    const seen = k.slice(0, i + 1);
    const scores = seen.map((key) => scale * dot(query, key));
    const largest = Math.max(...scores);
    const exps = scores.map((score) => Math.exp(score - largest));
    const sum = exps.reduce((all, each) => all + each, 0);
    const weights = exps.map((each) => each / sum);
    const dweights = weights.map((_, j) => dot(dmixed, v[j] as Float64Array));
    const mean = weights.reduce((all, weight, j) => all + weight * (dweights[j] as number), 0);
    weights.forEach((weight, j) => {
      addScaled(out, i * headDim, weight, v[j] as Float64Array);
      addScaled(dv, j * headDim, weight, dmixed);
      const dscore = scale * weight * ((dweights[j] as number) - mean);
      addScaled(dq, i * headDim, dscore, seen[j] as Float64Array);
      addScaled(dk, j * headDim, dscore, query);
    });
  }
  return { out, dq, dk, dv };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let d = 0; d < a.length; d += 1) {
    sum += (a[d] as number) * (b[d] as number);
  }
  return sum;
}

/** into[at + d] += factor · values[d]. */
function addScaled(into: Float64Array, at: number, factor: number, values: Float64Array): void {
  for (let d = 0; d < values.length; d += 1) {
    into[at + d] = (into[at + d] as number) + factor * (values[d] as number);
  }
}
