/**
 * The model of `src/model/llama.ts` written down a second time with jax-js, whose automatic differentiation and kernels share
 * nothing with ours. Two uses: an outside oracle for our loss and gradients (`test/oracle.test.ts`), and a peer's training step.
 */
import { nn, numpy as np } from "@jax-js/jax";
import { parameterLayout } from "../../src/model/layout.ts";
import type { ModelConfig } from "../../src/protocol/charter.ts";
import { elementCount } from "../../src/tensor/program.ts";

/** By the names that `parameterLayout` gives. */
export type Weights = Record<string, np.Array>;

export function jaxWeights(config: ModelConfig, params: Float32Array): Weights {
  return Object.fromEntries(
    parameterLayout(config).entries.map(({ name, shape, offset }) => [
      name,
      np.array(params.slice(offset, offset + elementCount(shape))).reshape([...shape]),
    ]),
  );
}

export function jaxTokens(ids: Uint32Array): np.Array {
  return np.array(Int32Array.from(ids), { dtype: np.int32 });
}

/**
 * Mean loss in nats; tokens and targets [N] int32. Every use of an array but the last takes a `.ref`: jax-js arrays are
 * consumed by what they are given to. `w` is lent.
 */
export function jaxLoss(config: ModelConfig, w: Weights, tokens: np.Array, targets: np.Array): np.Array {
  const take = (name: string): np.Array => {
    const array = w[name];
    if (array === undefined) {
      throw new Error(`No weight "${name}"`);
    }
    return array.ref;
  };
  const rows = tokens.shape[0] as number;
  const oneHot = (ids: np.Array): np.Array => nn.oneHot(ids, config.vocabulary).astype(np.float32);
  let x = np.matmul(oneHot(tokens), take("embedding")); // [N,C]
  for (let layer = 0; layer < config.layers; layer += 1) {
    const name = (part: string): np.Array => take(`layers.${layer}.${part}`);
    const a = jaxNorm(x.ref, name("attention.norm"), config.normEps);
    const q = np.matmul(a.ref, np.transpose(name("attention.q")));
    const k = np.matmul(a.ref, np.transpose(name("attention.k")));
    const v = np.matmul(a, np.transpose(name("attention.v")));
    x = x.add(np.matmul(jaxAttention(config, q, k, v), np.transpose(name("attention.o"))));
    const f = jaxNorm(x.ref, name("feed.norm"), config.normEps);
    const gate = np.matmul(f.ref, np.transpose(name("feed.gate")));
    const up = np.matmul(f, np.transpose(name("feed.up")));
    x = x.add(np.matmul(nn.silu(gate).mul(up), np.transpose(name("feed.down"))));
  }
  x = jaxNorm(x, take("final.norm"), config.normEps);
  const logits = np.matmul(x, np.transpose(take(config.tied ? "embedding" : "head"))); // [N,V]
  return np.sum(nn.logSoftmax(logits, -1).mul(oneHot(targets))).mul(-1 / rows);
}

function jaxNorm(x: np.Array, gain: np.Array, eps: number): np.Array {
  const mean = np.mean(x.ref.mul(x.ref), -1, { keepdims: true });
  return x.div(np.sqrt(mean.add(eps))).mul(gain);
}

/** Key/value heads are repeated for their group of query heads; scores above the diagonal are masked. */
function jaxAttention(config: ModelConfig, q: np.Array, k: np.Array, v: np.Array): np.Array {
  const { time, heads, kvHeads, channels, ropeBase } = config;
  const headDim = channels / heads;
  const batch = (q.shape[0] as number) / time;
  const split = (x: np.Array, count: number): np.Array =>
    np.transpose(x.reshape([batch, time, count, headDim]), [0, 2, 1, 3]); // [B,H,T,D]
  const group = (x: np.Array): np.Array => (heads === kvHeads ? x : np.repeat(x, heads / kvHeads, 1));
  const turned = jaxRope(split(q, heads), ropeBase);
  const keys = group(jaxRope(split(k, kvHeads), ropeBase));
  const mask = np.triu(np.ones([time, time]), 1).mul(-1e9);
  const scores = np
    .matmul(turned, np.transpose(keys, [0, 1, 3, 2]))
    .mul(1 / Math.sqrt(headDim))
    .add(mask);
  const mixed = np.matmul(nn.softmax(scores, -1), group(split(v, kvHeads))); // [B,H,T,D]
  return np.transpose(mixed, [0, 2, 1, 3]).reshape([batch * time, channels]);
}

/** x [B,H,T,D]: (x1, x2) → (x1·cos − x2·sin, x2·cos + x1·sin), x1 and x2 the two halves of D. */
function jaxRope(x: np.Array, base: number): np.Array {
  const [time, headDim] = x.shape.slice(-2) as [number, number];
  const half = headDim / 2;
  const angles = Array.from({ length: time }, (_, t) =>
    Array.from({ length: half }, (_unused, i) => t / base ** ((2 * i) / headDim)),
  );
  const [cos, sin] = [np.cos(np.array(angles)), np.sin(np.array(angles))];
  const [first, second] = np.split(x, 2, -1) as [np.Array, np.Array];
  const left = first.ref.mul(cos.ref).sub(second.ref.mul(sin.ref));
  const right = second.mul(cos).add(first.mul(sin));
  return np.concatenate([left, right], -1);
}
