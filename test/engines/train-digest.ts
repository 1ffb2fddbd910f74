/**
 * A short training run whose result is one digest, for engines that promise the same bits everywhere: 20 steps of a small
 * Llama at sizes that fit no tile. It runs unchanged in Node, Deno and browsers. Initial weights are multiples and sums
 * only: `initialParameters` may differ in the last bit between JavaScript engines.
 */
import { concatBytes, digestOf, floatBytes, type Digest } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { parameterLayout } from "../../src/model/layout.ts";
import { createTrainer } from "../../src/model/trainer.ts";
import type { InnerConfig, ModelConfig } from "../../src/protocol/charter.ts";
import type { Engine } from "../../src/tensor/engine.ts";

/**
 * Made by `bit-identity.test.ts` on 2026-11-22 with AssemblyScript 0.28.20 (Node 26.10.0, x86-64). It may change with the
 * kernels, on purpose; if a compiler or runtime upgrade changes it, recorded contributions can no longer be replayed.
 */
export const GOLDEN = "8cc8fd08f42ca8b0e89f54ca6567bd046993fbcacf9bb0e62927cc5293917991";

/** The same, made on 2026-11-29, of the fused engine on a machine that fuses. */
export const GOLDEN_FUSED = "4bb0c8d18a0479a01e400ff93643d7a012251ce92c4fbfc22558e31887deda73";

const STEPS = 20;
const MODEL: ModelConfig = {
  vocabulary: 61,
  channels: 60,
  layers: 2,
  heads: 6,
  kvHeads: 2,
  hidden: 101,
  time: 67,
  tied: false,
  ropeBase: 10_000,
  normEps: 1e-5,
  seed: 7,
};
const INNER: InnerConfig = {
  batch: 3,
  learningRate: 0.01,
  warmupSteps: 4,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.1,
  clip: 1,
  matrixRate: 0,
  matrixMomentum: 0.9,
};

export interface TrainDigest {
  /** Of the parameters and moments after the last step, and of every step's loss and norm. */
  readonly digest: Digest;
  readonly losses: readonly number[];
}

export async function trainDigest(engine: Engine): Promise<TrainDigest> {
  using trainer = await createTrainer(engine, { model: MODEL, inner: INNER });
  trainer.load(uniformWeights(MODEL));
  const rows = INNER.batch * MODEL.time;
  const rng = createRng("train digest");
  const [losses, norms] = [new Float32Array(STEPS), new Float32Array(STEPS)];
  for (let step = 0; step < STEPS; step += 1) {
    const tokens = Uint32Array.from({ length: rows }, () => rng.below(MODEL.vocabulary));
    const targets = tokens.map((token) => (token * 7 + 3) % MODEL.vocabulary);
    const { loss, norm } = await trainer.step({ tokens, targets });
    losses[step] = loss;
    norms[step] = norm;
  }
  const { m, v } = await trainer.moments();
  const parts = [await trainer.parameters(), m, v, losses, norms];
  return { digest: digestOf(concatBytes(parts.map(floatBytes))), losses: [...losses] };
}

/** Uniform weights of about the usual size, from multiples and sums only; gains 1. */
export function uniformWeights(model: ModelConfig): Float32Array<ArrayBuffer> {
  const { entries, size } = parameterLayout(model);
  const params = new Float32Array(size);
  const rng = createRng("train digest", "weights");
  for (const { offset, shape, decay } of entries) {
    const count = shape.reduce((product, length) => product * length, 1);
    for (let i = offset; i < offset + count; i += 1) {
      params[i] = decay ? (rng.float() - 0.5) / 8 : 1;
    }
  }
  return params;
}
