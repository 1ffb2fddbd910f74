/**
 * The model: a Llama-family decoder (Touvron et al., arXiv 2302.13971: pre-norm with RMSNorm, rotary positions, grouped-query
 * attention, SwiGLU) recorded as Programs over the flat parameters of `layout.ts`. Three Programs are all that is run:
 * a training step, a loss, and logits for generation. The optimiser's schedule and the batches are `trainer.ts`'s.
 */
import type { ModelConfig } from "../protocol/charter.ts";
import { grad } from "../tensor/grad.ts";
import { tensorNamed, type Program, type TensorId } from "../tensor/program.ts";
import { record, type Recorder } from "../tensor/record.ts";
import { headDimOf, parameterLayout } from "./layout.ts";

/**
 * One training step on N = batch·time rows: forward, gradients, their norm, AdamW in place.
 * Inputs: tokens, targets, order [N] and offsets [V+1] u32 (`sortTokens`), hyper [8] (see adamw in `program.ts`).
 * States: params, grads, m, v [P]. Outputs: loss [1] in nats per token, norm [1] of the gradients before clipping.
 */
export function trainProgram(config: ModelConfig, batch: number): Program {
  const program = grad(lossProgram(config, batch), { loss: "loss" });
  const r = record("train", program);
  const { size, decayCount } = parameterLayout(config);
  const [params, grads] = [tensorNamed(program, "params").id, tensorNamed(program, "grads").id];
  const [m, v] = [r.state("m", [size]), r.state("v", [size])];
  const hyper = r.input("hyper", [8]);
  r.push({ type: "adamw", params, grads, m, v, norm: r.norm(grads), hyper, decayCount });
  return r.finish(["loss", "norm"]);
}

/** Forward only. Inputs: tokens, targets [N] u32. Outputs: losses [N] and their mean loss [1], in nats. */
export function lossProgram(config: ModelConfig, batch: number): Program {
  const r = record("loss");
  const logits = forward(r, config, { batch, time: config.time });
  r.crossEntropy(logits, r.input("targets", [batch * config.time], "u32"));
  return r.finish(["losses", "loss"]);
}

/** Forward of one sequence of `config.time` tokens. Input: tokens [T] u32. Output: logits [T,V]. */
export function logitsProgram(config: ModelConfig): Program {
  const r = record("logits");
  forward(r, config, { batch: 1, time: config.time });
  return r.finish(["logits"]);
}

interface Rows {
  readonly batch: number;
  readonly time: number;
}

type Weights = (name: string) => TensorId;

/** Records input "tokens" [N] and state "params" [P] and the path from them to the value "logits" [N,V]. */
function forward(r: Recorder, config: ModelConfig, { batch, time }: Rows): TensorId {
  const { entries, size } = parameterLayout(config);
  const tokens = r.input("tokens", [batch * time], "u32");
  const params = r.state("params", [size]);
  const views = new Map(entries.map(({ name, offset, shape }) => [name, r.view(name, params, offset, shape)]));
  const weights: Weights = (name) => views.get(name) as TensorId;

  let x = r.embedding(weights("embedding"), tokens); // [N,C]
  for (let layer = 0; layer < config.layers; layer += 1) {
    x = attend(r, x, config, { batch, time }, (name) => weights(`layers.${layer}.attention.${name}`)); // [N,C]
    x = feed(r, x, config, (name) => weights(`layers.${layer}.feed.${name}`)); // [N,C]
  }
  const normed = r.rmsNorm(x, weights("final.norm"), config.normEps);
  const logits = r.value("logits", [batch * time, config.vocabulary]);
  return r.matmul(normed, weights(config.tied ? "embedding" : "head"), { transB: true, out: logits }); // [N,V]
}

/** x + attention(norm(x)). */
function attend(r: Recorder, x: TensorId, config: ModelConfig, rows: Rows, weights: Weights): TensorId {
  const headDim = headDimOf(config);
  const turn = { time: rows.time, headDim, base: config.ropeBase };
  const normed = r.rmsNorm(x, weights("norm"), config.normEps); // [N,C]
  const q = r.rope(product(r, "queries", normed, weights("q")), turn); // [N,H·D]
  const k = r.rope(product(r, "keys", normed, weights("k")), turn); // [N,K·D]
  const v = product(r, "values", normed, weights("v")); // [N,K·D]
  const { heads, kvHeads } = config;
  const attended = r.attention(q, k, v, { ...rows, heads, kvHeads, headDim }); // [N,H·D]
  return product(r, "residual", attended, weights("o"), x); // [N,C]
}

/** x + down(swiglu(gate(norm(x)), up(norm(x)))). */
function feed(r: Recorder, x: TensorId, config: ModelConfig, weights: Weights): TensorId {
  const normed = r.rmsNorm(x, weights("norm"), config.normEps); // [N,C]
  const gated = r.swiglu(product(r, "gate", normed, weights("gate")), product(r, "up", normed, weights("up"))); // [N,F]
  return product(r, "residual", gated, weights("down"), x); // [N,C]
}

/** out = x · wᵀ (+ add), as a value that is called `name`. */
function product(r: Recorder, name: string, x: TensorId, w: TensorId, add?: TensorId): TensorId {
  const out = r.value(name, [r.shapeOf(x)[0] as number, r.shapeOf(w)[0] as number]);
  return r.matmul(x, w, add === undefined ? { transB: true, out } : { transB: true, out, add });
}
