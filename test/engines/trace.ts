/**
 * Some hundred steps of training from one seed, and what came of them: the losses, to be compared between platforms within
 * a band, and a digest of every bit, for engines that promise the same ones everywhere. The text is made up, so that the
 * run needs no file: each token follows from the one before it three times out of four.
 */
import { concatBytes, digestOf, floatBytes, type Digest } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { createTrainer } from "../../src/model/trainer.ts";
import type { InnerConfig, ModelConfig } from "../../src/protocol/charter.ts";
import { SAMPLE_INNER, SAMPLE_MODEL } from "../../src/protocol/sample.ts";
import type { Engine } from "../../src/tensor/engine.ts";
import { uniformWeights } from "./train-digest.ts";

interface Run {
  readonly steps: number;
  readonly model: ModelConfig;
  readonly inner: InnerConfig;
}

export interface Trace {
  /** Of every step, in nats per token. */
  readonly losses: readonly number[];
  /** Of the parameters and moments after the last step, and of every step's loss and norm. */
  readonly digest: Digest;
}

export type TraceName = "brief" | "small" | "sample";

const SMALL: Omit<Run, "steps"> = {
  model: { ...SAMPLE_MODEL, channels: 32, layers: 2, hidden: 88, time: 32 },
  inner: { ...SAMPLE_INNER, batch: 4 },
};

/** sample: the sample run itself, minutes on a processor. small: the same kind of model in seconds; brief: its beginning. */
export const TRACES: Readonly<Record<TraceName, Run>> = {
  sample: { model: SAMPLE_MODEL, inner: SAMPLE_INNER, steps: 200 },
  small: { ...SMALL, steps: 200 },
  brief: { ...SMALL, steps: 40 },
};

/**
 * How far any loss may be from that of WASM, in nats. Measured on 2026-11-22 with "small": 9.5e-7 on all five WebGPU stacks, two
 * units in the last place. A hundred times that leaves room for other orders of summing, and none for a wrong gradient:
 * distances between real GPUs of other makers have been seen to reach 1e-3 (reference: torchlette's regression bands).
 */
export const DRIFT_MAX = 1e-4;

/**
 * The same where values are kept as f16, whose roundings are 8,000 times as large. Measured on 2026-11-28 with "brief": 1.5e-5
 * on lavapipe, 1.4e-5 on llvmpipe.
 */
export const HALF_DRIFT_MAX = 1e-3;

/** Largest distance between two runs' losses; NaN if one has a loss that the other lacks. */
export function drift(a: readonly number[], b: readonly number[]): number {
  const distances = a.map((loss, step) => Math.abs(loss - (b[step] ?? Number.NaN)));
  return a.length === b.length && a.length > 0 ? Math.max(...distances) : Number.NaN;
}

/** Trains `run`'s model on an engine that nothing else uses. */
export async function trace(engine: Engine, { model, inner, steps }: Run): Promise<Trace> {
  using trainer = await createTrainer(engine, { model, inner });
  trainer.load(uniformWeights(model));
  const [losses, norms] = [new Float32Array(steps), new Float32Array(steps)];
  const rng = createRng("trace");
  let token = 0;
  for (let step = 0; step < steps; step += 1) {
    const tokens = new Uint32Array(trainer.tokensPerStep + 1);
    for (let i = 0; i < tokens.length; i += 1) {
      tokens[i] = token;
      token = rng.below(4) === 0 ? rng.below(model.vocabulary) : (token * 5 + 11) % model.vocabulary;
    }
    const { loss, norm } = await trainer.step({ tokens: tokens.subarray(0, -1), targets: tokens.subarray(1) });
    losses[step] = loss;
    norms[step] = norm;
  }
  const { m, v } = await trainer.moments();
  const parts = [await trainer.parameters(), m, v, losses, norms];
  return { losses: [...losses], digest: digestOf(concatBytes(parts.map(floatBytes))) };
}
