/**
 * Training over any engine: one compiled Program, replayed once a step, with the optimisers' hyper-parameters written before each
 * (linear warm-up, then the caller's share of the rate; bias corrections by the trainer's own step counter). What to train
 * on and for how long is the contributor's business. Whoever shares the engine shares "params": see `createTrainer`.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import type { InnerConfig, ModelConfig } from "../protocol/charter.ts";
import type { Engine, Plan } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { sortTokens } from "../tensor/record.ts";
import { parameterLayout } from "./layout.ts";
import { microBatchName, trainProgram, type TrainOptions } from "./llama.ts";

export interface TokenBatch {
  /** [N], N = batch·time rows: sequence after sequence. */
  readonly tokens: Uint32Array;
  /** [N]: the token that follows each. */
  readonly targets: Uint32Array;
}

/** The optimisers' memory: first and second moments [P] (Muon has no second) and the number of steps taken. */
export interface Moments {
  readonly m: Float32Array<ArrayBuffer>;
  readonly v: Float32Array<ArrayBuffer>;
  readonly t: number;
}

export interface StepResult {
  /** Mean loss before the step, in nats per token. */
  readonly loss: number;
  /** Global norm of the gradients before clipping. */
  readonly norm: number;
}

export interface Trainer {
  /** Parameters P, padding included. */
  readonly size: number;
  readonly tokensPerStep: number;
  /** Overwrites the parameters [P]; moments and step counter go on. */
  load(params: Float32Array): void;
  /**
   * One step, at `rateShare` of the learning rate (`protocol/decay.ts`). Rejects with HeddleError "device-lost" and never trains on
   * silently.
   */
  step(batch: TokenBatch, rateShare?: number): Promise<StepResult>;
  parameters(): Promise<Float32Array<ArrayBuffer>>;
  moments(): Promise<Moments>;
  restoreMoments(moments: Moments): void;
  /** Frees the Plan; the engine and its states stay. */
  [Symbol.dispose](): void;
}

export interface TrainerOptions {
  readonly model: ModelConfig;
  readonly inner: InnerConfig;
  /**
   * Ways to train in less memory. Recomputation changes no bit, micro-batches the last ones. "as needed": recomputes when
   * the device refuses the plain Program.
   */
  readonly thrift?: Thrift | "as needed";
}

export type Thrift = Pick<TrainOptions, "accumulate" | "recompute">;

/**
 * Compiles the training Program on `engine`. The states "params", "grads", "m" and "v" belong to the engine and outlive the
 * trainer: an evaluator or generator on the same engine reads what the trainer trains, and the next trainer goes on with the
 * parameters and moments of the one before, its step counter at 0. On a new engine they are zero until loaded. Throws HeddleError
 * "model-too-big" when the device cannot hold it.
 */
export async function createTrainer(engine: Engine, { model, inner, thrift = {} }: TrainerOptions): Promise<Trainer> {
  const { size } = parameterLayout(model);
  const plan = await compileStep(engine, { model, inner, thrift });
  const rows = inner.batch * model.time;
  const accumulate = thrift === "as needed" ? 1 : (thrift.accumulate ?? 1);
  const losses = Array.from({ length: accumulate }, (_, i) => microBatchName("loss", i));
  const schedule = createSchedule(inner);
  return {
    size,
    tokensPerStep: rows,
    load: (params) => engine.writeState("params", params),
    step: async ({ tokens, targets }, rateShare = 1) => {
      checkBatch("step", { tokens, targets }, { rows, vocabulary: model.vocabulary });
      for (let i = 0; i < accumulate; i += 1) {
        const [begin, end] = [(i * rows) / accumulate, ((i + 1) * rows) / accumulate];
        const own = tokens.subarray(begin, end);
        const inputs = { tokens: own, targets: targets.subarray(begin, end), ...sortTokens(own, model.vocabulary) };
        for (const [name, values] of Object.entries(inputs)) {
          plan.write(microBatchName(name, i), values);
        }
      }
      plan.write("hyper", schedule.next(rateShare));
      if (inner.matrixRate > 0) {
        plan.write("muon", schedule.muon());
      }
      const outputs = await plan.run([...losses, "norm"]);
      const valueOf = (name: string): number => present(outputs[name]?.[0], `output "${name}"`);
      // Each is the mean over its own rows, and there are as many in each.
      return { loss: losses.reduce((sum, name) => sum + valueOf(name), 0) / accumulate, norm: valueOf("norm") };
    },
    parameters: () => engine.readState("params"),
    moments: async () => {
      const t = schedule.steps();
      const [m, v] = await Promise.all([engine.readState("m"), engine.readState("v")]);
      return { m, v, t };
    },
    restoreMoments: ({ m, v, t }) => {
      engine.writeState("m", m);
      engine.writeState("v", v);
      schedule.restore(t);
    },
    [Symbol.dispose]: () => plan[Symbol.dispose](),
  };
}

/**
 * Throws AssertionError where a batch has not N = `rows` tokens and targets, all within the vocabulary. A GPU would not say so: it trains
 * on another row's logit, or on what was left in a row's place, and the numbers stay finite.
 */
export function checkBatch(
  action: "step" | "evaluate",
  { tokens, targets }: TokenBatch,
  { rows, vocabulary }: { readonly rows: number; readonly vocabulary: number },
): void {
  assert(
    tokens.length === rows && targets.length === rows,
    `Cannot ${action}: got ${tokens.length} tokens and ${targets.length} targets, need ${rows}`,
  );
  const [token, target] = [tokens, targets].map((words) => words.find((word) => word >= vocabulary));
  assert(token === undefined, `Cannot ${action}: token ${token} is outside the vocabulary of ${vocabulary}`);
  assert(target === undefined, `Cannot ${action}: target ${target} is outside the vocabulary of ${vocabulary}`);
}

/** One training step as `inner` has it. */
export function stepProgram(model: ModelConfig, inner: InnerConfig, thrift: Thrift = {}): Program {
  return trainProgram(model, inner.batch, { ...thrift, muon: inner.matrixRate > 0 });
}

/** A Plan of one training step; throws HeddleError "model-too-big" when nothing that `thrift` allows makes it fit. */
async function compileStep(engine: Engine, { model, inner, thrift = {} }: TrainerOptions): Promise<Plan> {
  if (thrift !== "as needed") {
    return engine.compile(stepProgram(model, inner, thrift));
  }
  try {
    return await engine.compile(stepProgram(model, inner));
  } catch (error) {
    if (error instanceof HeddleError && error.code === "model-too-big") {
      return engine.compile(stepProgram(model, inner, { recompute: true }));
    }
    throw error;
  }
}

interface Schedule {
  /** Counts a step and returns its hyper [8], at `rateShare` of the learning rate; the next call overwrites the array. */
  next(rateShare?: number): Float32Array;
  /** Muon's hyper [4] of the same step. */
  muon(): Float32Array;
  steps(): number;
  restore(t: number): void;
}

/**
 * AdamW's hyper [8] for steps 1, 2, … and Muon's [4]: see adamw and muon in `tensor/program.ts`. Powers of β are products, not Math.pow, whose last
 * bit differs between JavaScript engines: a replay elsewhere must see the same numbers.
 */
export function createSchedule(inner: InnerConfig): Schedule {
  const { learningRate, warmupSteps, beta1, beta2, eps, weightDecay, clip, matrixRate, matrixMomentum } = inner;
  const hyper = new Float32Array(8);
  const muon = Float32Array.of(0, matrixMomentum, weightDecay, clip);
  let [t, power1, power2] = [0, 1, 1];
  const advance = (): void => {
    t += 1;
    power1 *= beta1;
    power2 *= beta2;
  };
  return {
    next: (rateShare = 1) => {
      advance();
      const rateOf = (full: number): number => rateShare * (t < warmupSteps ? (full * t) / warmupSteps : full);
      hyper[0] = rateOf(learningRate);
      muon[0] = rateOf(matrixRate);
      hyper.set([beta1, beta2, eps, weightDecay, clip], 1);
      hyper[6] = 1 / (1 - power1);
      hyper[7] = 1 / (1 - power2);
      return hyper;
    },
    muon: () => muon,
    steps: () => t,
    restore: (steps) => {
      assert(Number.isSafeInteger(steps) && steps >= 0, `Cannot restore moments: step ${steps} is not a count`);
      [t, power1, power2] = [0, 1, 1];
      for (let step = 0; step < steps; step += 1) {
        advance();
      }
    },
  };
}
