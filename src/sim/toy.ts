/**
 * A toy objective in place of a language model: the parameters [P] are to become a hidden target, and the loss is one plus
 * half the mean squared distance. It costs microseconds, and yet loss measurements tell honest updates from lies, as they do
 * on text. Training takes virtual time.
 */
import type { Clock } from "../base/clock.ts";
import { sleep } from "../base/clock.ts";
import { createRng, type Rng } from "../base/rng.ts";
import type { Work } from "../contributor/work.ts";
import type { Losses } from "../protocol/messages.ts";
import type { MeasureFacts } from "../trust/measure.ts";
import { applyUpdate } from "../update/delta.ts";
import type { SparseUpdate } from "../update/unpack.ts";

/** Share of the remaining way that one step goes. */
const STEP = 0.03;
export const STEP_TOKENS = 64;

export interface Toy {
  readonly initial: Float32Array<ArrayBuffer>;
  loss(params: Float32Array): number;
  /** One noisy step towards the target, in place. */
  step(params: Float32Array, rng: Rng): void;
  measure(base: Float32Array, update: SparseUpdate, facts: Pick<MeasureFacts, "privateData" | "among">): Losses;
}

export function createToy(parameters: number, seed: number): Toy {
  const rng = createRng("toy", seed);
  const target = Float32Array.from({ length: parameters }, () => 2 * rng.float() - 1);
  const initial = Float32Array.from({ length: parameters }, () => 4 * rng.float() - 2);
  const loss = (params: Float32Array): number => {
    let sum = 0;
    for (let i = 0; i < parameters; i += 1) {
      const away = (params[i] as number) - (target[i] as number);
      sum += away * away;
    }
    return 1 + sum / (2 * parameters);
  };
  return {
    initial,
    loss,
    step: (params, noise) => {
      for (let i = 0; i < parameters; i += 1) {
        const gradient = (params[i] as number) - (target[i] as number) + 0.1 * (noise.float() - 0.5);
        params[i] = (params[i] as number) - STEP * gradient;
      }
    },
    measure: (base, update, { privateData, among }) => {
      const before = loss(base);
      return {
        assignedBefore: privateData ? null : before,
        assignedAfter: privateData ? null : loss(applyUpdate(base, update, among)),
        randomBefore: before,
        randomAfter: loss(applyUpdate(base, update)),
      };
    },
  };
}

export interface ToyWorkOptions {
  readonly toy: Toy;
  readonly clock: Clock;
  /** Virtual time of one step. */
  readonly stepMs: number;
  /** Turns what training made into what is handed on: honest machines hand on what they made. */
  readonly twist: (base: Float32Array, after: Float32Array<ArrayBuffer>, rng: Rng) => Float32Array<ArrayBuffer>;
}

export function createToyWork({ toy, clock, stepMs, twist }: ToyWorkOptions): Work {
  let steps = 0;
  return {
    train: async (assignment, base, { deadlineMs, signal, onStep, firstStep = 0 }) => {
      const rng = createRng("toy step", assignment.seed, assignment.round, firstStep);
      const after = new Float32Array(base);
      const losses: number[] = [];
      while (losses.length < assignment.stepsMax && !signal.aborted) {
        losses.push(toy.loss(after));
        await sleep(clock, stepMs);
        toy.step(after, rng);
        steps += 1;
        onStep({ step: losses.length, tokens: STEP_TOKENS, loss: losses.at(-1) ?? 0 });
        if (clock.nowMs() >= deadlineMs) {
          break;
        }
      }
      return { after: twist(base, after, rng), losses, steps: losses.length, tokens: losses.length * STEP_TOKENS };
    },
    validate: async (assignment, base, update) => {
      await sleep(clock, stepMs);
      return toy.measure(base, update, assignment);
    },
    moments: async () =>
      steps === 0 ? null : { m: new Float32Array(4).fill(steps), v: new Float32Array(4), t: steps },
    restore: async ({ t }) => {
      steps = t;
    },
    [Symbol.dispose]: () => {},
  };
}
