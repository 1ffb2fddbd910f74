/**
 * Work that takes a device's time and moves the parameters at random, for models that are too large to train here: what
 * links cost depends on how many entries are sent and where they lie, not on what they are good for. Nothing is learned, and
 * every measurement says that it was.
 */
import { createRng } from "../src/base/rng.ts";
import type { Work } from "../src/contributor/work.ts";
import type { Losses } from "../src/protocol/messages.ts";

/** A power of two: the values are walked through by an odd stride, so that none comes before all others have. */
const VALUES = 65_536;

export const NOISE_LOSSES: Losses = { assignedBefore: 2, assignedAfter: 1, randomBefore: 2, randomAfter: 1 };

export interface NoiseOptions {
  readonly seed: number;
  /** Of the contributor. */
  readonly number: number;
  readonly tokensPerStep: number;
  /** Takes the time of one step. */
  readonly pace: { work<T>(run: () => Promise<T>): Promise<T> };
}

export function createNoiseWork({ seed, number, tokensPerStep, pace }: NoiseOptions): Work {
  const rng = createRng("noise values", seed, number);
  // The cube of a normal number: few entries are large, as in a real update.
  const values = Float32Array.from({ length: VALUES }, () => 1e-3 * rng.normal() ** 3);
  return {
    train: async ({ stepsMax, round }, from, { signal, onStep, firstStep = 0 }) => {
      const losses: number[] = [];
      while (losses.length < stepsMax && !signal.aborted) {
        await pace.work(async () => void losses.push(1));
        onStep({ step: losses.length, tokens: tokensPerStep, loss: 1 });
      }
      const walk = createRng("noise walk", seed, number, round, firstStep);
      const [stride, offset] = [2 * walk.below(VALUES / 2) + 1, walk.below(VALUES)];
      const after = new Float32Array(from);
      for (let i = 0; i < after.length; i += 1) {
        const at = (Math.imul(i, stride) + offset) & (VALUES - 1);
        after[i] = (after[i] as number) - losses.length * (values[at] as number);
      }
      return { after, losses, steps: losses.length, tokens: losses.length * tokensPerStep };
    },
    validate: () => pace.work(async () => NOISE_LOSSES),
    moments: async () => null,
    restore: async () => undefined,
    [Symbol.dispose]: () => undefined,
  };
}
