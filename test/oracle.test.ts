/**
 * The outside oracle: the same small Llama written down a second time with @jax-js/jax, whose automatic differentiation
 * and kernels share nothing with ours. Loss and the gradient of every parameter must agree.
 */
import { numpy as np, defaultDevice, init, nn, valueAndGrad } from "@jax-js/jax";
import { beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../src/base/rng.ts";
import { initialParameters, parameterLayout } from "../src/model/layout.ts";
import { lossProgram } from "../src/model/llama.ts";
import type { ModelConfig } from "../src/protocol/charter.ts";
import { grad } from "../src/tensor/grad.ts";
import { elementCount } from "../src/tensor/program.ts";
import { sortTokens } from "../src/tensor/record.ts";
import { createTwin } from "../src/tensor/twin.ts";

/** Largest difference of the elements of a gradient over its largest element. Both sides compute in f32; seen: 1.5e-6. */
const TOLERANCE = 1e-5;

const BATCH = 2;
const TIED: ModelConfig = {
  vocabulary: 19,
  channels: 24,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  hidden: 31,
  time: 7,
  tied: true,
  ropeBase: 10_000,
  normEps: 1e-5,
  seed: 7,
};

type Weights = Record<string, np.Array>;

beforeAll(async () => {
  await init("wasm");
  defaultDevice("wasm");
});

describe("lossProgram() and its grad() agree with jax", () => {
  for (const [claim, config] of [
    ["tied", TIED],
    ["untied, one key head", { ...TIED, tied: false, kvHeads: 1, layers: 1 }],
  ] as const) {
    test(claim, async () => {
      const batch = batchFor(config);
      const params = initialParameters(config).map((w) => (w === 1 ? 0.9 : w * 10));
      const ours = await run(config, params, batch);
      const theirs = await runJax(config, params, batch);
      expect(Math.abs(ours.loss - theirs.loss)).toBeLessThan(1e-5);
      const { entries } = parameterLayout(config);
      expect([...theirs.gradients.keys()].toSorted()).toEqual(entries.map(({ name }) => name).toSorted());
      for (const { name, shape, offset } of entries) {
        const mine = ours.grads.subarray(offset, offset + elementCount(shape));
        expect(distance(mine, theirs.gradients.get(name) ?? new Float32Array()), name).toBeLessThan(TOLERANCE);
      }
    });
  }
});

async function run(config: ModelConfig, params: Float32Array, { tokens, targets }: Batch) {
  using engine = createTwin();
  using plan = await engine.compile(grad(lossProgram(config, BATCH), { loss: "loss" }));
  engine.writeState("params", params);
  const inputs = { tokens, targets, ...sortTokens(tokens, config.vocabulary) };
  for (const [name, values] of Object.entries(inputs)) {
    plan.write(name, values);
  }
  const { loss } = await plan.run(["loss"]);
  return { loss: loss[0] as number, grads: await engine.readState("grads") };
}

async function runJax(config: ModelConfig, params: Float32Array, { tokens, targets }: Batch) {
  const weights: Weights = {};
  for (const { name, shape, offset } of parameterLayout(config).entries) {
    weights[name] = np.array(params.slice(offset, offset + elementCount(shape))).reshape([...shape]);
  }
  const [loss, gradients] = valueAndGrad((w: Weights) => jaxLoss(config, w, { tokens, targets }))(weights);
  const named = new Map<string, Float32Array>();
  for (const [name, gradient] of Object.entries(gradients)) {
    named.set(name, (await gradient.data()) as Float32Array);
  }
  return { loss: (await loss.data())[0] as number, gradients: named };
}

/** Every use of an array but the last takes a `.ref`: jax-js arrays are consumed by what they are given to. */
function jaxLoss(config: ModelConfig, w: Weights, { tokens, targets }: Batch): np.Array {
  const take = (name: string): np.Array => {
    const array = w[name];
    if (array === undefined) {
      throw new Error(`No weight "${name}"`);
    }
    return array.ref;
  };
  const rows = tokens.length;
  const oneHot = (ids: Uint32Array): np.Array =>
    nn.oneHot(np.array([...ids], { dtype: np.int32 }), config.vocabulary).astype(np.float32);
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
  const split = (x: np.Array, count: number): np.Array =>
    np.transpose(x.reshape([BATCH, time, count, headDim]), [0, 2, 1, 3]); // [B,H,T,D]
  const group = (x: np.Array): np.Array => np.repeat(split(x, kvHeads), heads / kvHeads, 1);
  const turned = jaxRope(split(q, heads), ropeBase);
  const keys = np.repeat(jaxRope(split(k, kvHeads), ropeBase), heads / kvHeads, 1);
  const mask = np.triu(np.ones([time, time]), 1).mul(-1e9);
  const scores = np
    .matmul(turned, np.transpose(keys, [0, 1, 3, 2]))
    .mul(1 / Math.sqrt(headDim))
    .add(mask);
  const mixed = np.matmul(nn.softmax(scores, -1), group(v)); // [B,H,T,D]
  return np.transpose(mixed, [0, 2, 1, 3]).reshape([BATCH * time, channels]);
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

interface Batch {
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly targets: Uint32Array<ArrayBuffer>;
}

function batchFor({ vocabulary, time }: ModelConfig): Batch {
  const rng = createRng("oracle");
  const draw = () => Uint32Array.from({ length: BATCH * time }, () => rng.below(vocabulary));
  return { tokens: draw(), targets: draw() };
}

/** max |a − b| / max |b|. */
function distance(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  const size = b.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  return a.reduce((max, value, i) => Math.max(max, Math.abs(value - (b[i] as number))), 0) / size;
}
