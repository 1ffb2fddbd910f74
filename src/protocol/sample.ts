/**
 * The charter of the sample run that `npm start` begins: a Llama-family model of half a million parameters over bytes, small
 * enough that a laptop without a GPU finishes a round in seconds. Sizes here are configuration; nothing else knows them.
 */
import type { Charter, Dataset, InnerConfig, ModelConfig } from "./charter.ts";

export const SAMPLE_MODEL: ModelConfig = {
  vocabulary: 256,
  channels: 128,
  layers: 3,
  heads: 4,
  kvHeads: 2,
  hidden: 352,
  time: 128,
  tied: true,
  ropeBase: 10_000,
  normEps: 1e-5,
  seed: 1,
};

export const SAMPLE_INNER: InnerConfig = {
  batch: 8,
  learningRate: 2e-3,
  warmupSteps: 20,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.1,
  clip: 1,
  matrixRate: 0.01,
  matrixMomentum: 0.9,
};

/** The sample charter over the given data, whose first category must be fully open. */
export function sampleCharter(train: readonly Dataset[], evaluation: Dataset): Charter {
  return {
    name: "Sample run",
    purpose: "A small language model learns English prose from books in the public domain",
    model: SAMPLE_MODEL,
    inner: SAMPLE_INNER,
    uplink: { keep: 256, bits: 1, beta: 1, together: 2048, carry: true },
    newcomers: { contributions: 0, keep: 4096 },
    downlink: { keep: 1024, bits: 2, beta: 1 },
    outer: { learningRate: 1, momentum: 0, clipToMedian: 1, normPower: 0, radial: true, radialRounds: 60, endShare: 1 },
    // The run has no end that is known beforehand, so its learning rate does not fall.
    round: {
      trainMs: 12_000,
      stepsMax: 100,
      aheadMax: 0,
      aheadShare: 1,
      graceMs: 8_000,
      quorum: 0.75,
      patience: 1,
      judgeMs: 15_000,
      decayRounds: 0,
      decayTo: 1,
      lateShare: 0.5,
    },
    trust: { normMax: 10, improvementMin: 1e-4, improvementShare: 0.1, harmMax: 0.05, auditShare: 0.25, sequences: 8 },
    train,
    evaluation,
    seed: 1,
  };
}
