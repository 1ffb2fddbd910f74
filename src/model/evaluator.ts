/**
 * The loss of given parameters on given tokens, over any engine: what validators measure and the page plots.
 */
import type { ModelConfig } from "../protocol/charter.ts";
import type { Engine } from "../tensor/engine.ts";
import { lossProgram } from "./llama.ts";
import { checkBatch, type TokenBatch } from "./trainer.ts";

export interface Evaluator {
  /** N = batch·time tokens in each batch. */
  readonly tokensPerBatch: number;
  /** Overwrites the engine's parameters [P], which a trainer on the same engine trains. */
  load(params: Float32Array): void;
  /** Mean loss in nats per token. */
  loss(batch: TokenBatch): Promise<number>;
  /** The loss of each row [N], in nats: sequence b is rows b·time … (b+1)·time. */
  losses(batch: TokenBatch): Promise<Float32Array<ArrayBuffer>>;
  [Symbol.dispose](): void;
}

export interface EvaluatorOptions {
  readonly model: ModelConfig;
  /** Sequences measured at a time. */
  readonly batch: number;
}

/** Compiles the forward Program on `engine`. Throws HeddleError "model-too-big" when the device cannot hold it. */
export async function createEvaluator(engine: Engine, { model, batch }: EvaluatorOptions): Promise<Evaluator> {
  const plan = await engine.compile(lossProgram(model, batch));
  const rows = batch * model.time;
  const write = (given: TokenBatch): void => {
    checkBatch("evaluate", given, { rows, vocabulary: model.vocabulary });
    plan.write("tokens", given.tokens);
    plan.write("targets", given.targets);
  };
  return {
    tokensPerBatch: rows,
    load: (params) => engine.writeState("params", params),
    loss: async (given) => {
      write(given);
      const { loss } = await plan.run(["loss"]);
      return loss[0] as number;
    },
    losses: async (given) => {
      write(given);
      return (await plan.run(["losses"])).losses;
    },
    [Symbol.dispose]: () => plan[Symbol.dispose](),
  };
}
