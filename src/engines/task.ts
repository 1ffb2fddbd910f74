/**
 * The training task that the benchmarks and the public page share, so that their figures are about the same work: a Llama
 * of the shape that peers are measured with (4 layers, 128 channels, 128 tokens, batches of 8; 1,024 tokens a step).
 */
import type { InnerConfig, ModelConfig } from "../protocol/charter.ts";

export const STEP_MODEL: ModelConfig = {
  vocabulary: 256,
  channels: 128,
  layers: 4,
  heads: 4,
  kvHeads: 4,
  hidden: 344,
  time: 128,
  tied: true,
  ropeBase: 10_000,
  normEps: 1e-5,
  seed: 1,
};

export const STEP_INNER: InnerConfig = {
  batch: 8,
  learningRate: 3e-4,
  warmupSteps: 10,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.1,
  clip: 1,
  matrixRate: 0,
  matrixMomentum: 0.9,
};
