/**
 * The model: a Llama-family decoder (Touvron et al., arXiv 2302.13971: pre-norm with RMSNorm, rotary positions, grouped-query
 * attention, SwiGLU) recorded as Programs over the flat parameters of `layout.ts`. Three Programs are all that is run:
 * a training step, a loss, and logits for generation. The optimiser's schedule and the batches are `trainer.ts`'s.
 */
import type { ModelConfig } from "../protocol/charter.ts";
import { HeddleError, present } from "../base/assert.ts";
import { gradFrom } from "../tensor/grad.ts";
import { recordHead } from "../tensor/head.ts";
import { ALIGNMENT, type MatrixPlace, type Program, type TensorId } from "../tensor/program.ts";
import { recompute, type Segment } from "../tensor/recompute.ts";
import { record, type Recorder } from "../tensor/record.ts";
import { headDimOf, parameterLayout, type ParameterEntry } from "./layout.ts";

/** Micro-batches that one step may be cut into: its Program is as many times as long. */
export const ACCUMULATE_MAX = 64;

export interface TrainOptions {
  /**
   * Micro-batches that the batch is cut into, one after the other: their gradients are added up before the one update, in
   * this order, and activations take as many times less memory.
   */
  readonly accumulate?: number;
  /** Keeps only each layer's input and computes the rest again in the backward pass: the same bits, less memory, more time. */
  readonly recompute?: boolean;
  /** The most bytes of logits that live at one time. */
  readonly logitsBytesMax?: number;
  /** Muon trains the layers' matrices, AdamW the rest; else AdamW trains everything. */
  readonly muon?: boolean;
}

/**
 * One training step on a batch of N = batch·time rows: forward, gradients of the mean loss, their norm, AdamW in place.
 * Inputs: tokens, targets, order [N] and offsets [V+1] u32 (`sortTokens`), hyper [8] (see adamw in `program.ts`); with
 * `accumulate` the first four once for each micro-batch: tokens, tokens.2, … of N/accumulate rows (`microBatchName`).
 * With `muon` there is an input muon [4], too. States: params, grads, m, v [P]. Outputs: loss [1] of each micro-batch in nats per token (loss, loss.2, …), norm [1] of
 * the gradients before clipping. Throws HeddleError "bad-input" when the batch cannot be cut so.
 */
export function trainProgram(config: ModelConfig, batch: number, options: TrainOptions = {}): Program {
  const { accumulate = 1, recompute: again = false } = options;
  if (!Number.isInteger(accumulate) || accumulate < 1 || accumulate > ACCUMULATE_MAX || batch % accumulate !== 0) {
    throw new HeddleError(
      "bad-input",
      `Cannot train: a batch of ${batch} does not cut into ${accumulate} micro-batches (at most ${ACCUMULATE_MAX})`,
    );
  }
  const first = record("train");
  const model = declare(first, config);
  const { size, decayCount } = parameterLayout(config);
  const grads = first.state("grads", [size]);
  let program = first.finish([]);
  const segments: Segment[] = [];
  for (let i = 0; i < accumulate; i += 1) {
    const { layers, ...made } = differentiate(program, model, { ...options, batch, i });
    program = made.program;
    // The last layer's values are needed at once: to compute them again would cost time and spare nothing.
    segments.push(...layers.slice(1, -1).map((output, at) => ({ input: layers[at] as TensorId, output })));
  }
  const r = record("train", again ? recompute(program, segments) : program);
  const [m, v] = [r.state("m", [size]), r.state("v", [size])];
  const norm = r.norm(grads);
  const hyper = r.input("hyper", [8]);
  const matrices = options.muon === true ? layerMatrices(config) : [];
  for (const { name, from, to } of others(size, matrices)) {
    const part = (of: TensorId, what: string): TensorId =>
      matrices.length === 0 ? of : r.view(`${name}.${what}`, of, from, [to - from]);
    r.push({
      type: "adamw",
      params: part(model.params, "params"),
      grads: part(grads, "grads"),
      m: part(m, "m"),
      v: part(v, "v"),
      norm,
      hyper,
      decayCount: Math.max(0, Math.min(decayCount, to) - from),
    });
  }
  if (matrices.length > 0) {
    r.muon({ params: model.params, grads, m, norm, hyper: r.input("muon", [4]), matrices });
  }
  return r.finish([...Array.from({ length: accumulate }, (_, i) => microBatchName("loss", i)), "norm"]);
}

/** The matrices of the layers, without embedding and head, in the order in which they lie beside each other. */
function layerMatrices(config: ModelConfig): MatrixPlace[] {
  return parameterLayout(config)
    .entries.filter(({ name, decay }) => decay && name.startsWith("layers."))
    .map(({ offset, shape: [rows = 0, columns = 0] }) => ({ offset, rows, columns }));
}

/** What is left of `size` parameters before and after the `matrices`. */
function others(
  size: number,
  matrices: readonly MatrixPlace[],
): { readonly name: string; readonly from: number; readonly to: number }[] {
  const [first, last] = [matrices[0], matrices.at(-1)];
  if (first === undefined || last === undefined) {
    return [{ name: "all", from: 0, to: size }];
  }
  const to = Math.ceil((last.offset + last.rows * last.columns) / ALIGNMENT) * ALIGNMENT;
  return [
    { name: "before", from: 0, to: first.offset },
    { name: "after", from: to, to: size },
  ];
}

/** The name of micro-batch `i`'s own tensor: "tokens", "tokens.2", "tokens.3", … */
export function microBatchName(name: string, i: number): string {
  return i === 0 ? name : `${name}.${i + 1}`;
}

/** Goes on from `program` with the losses of micro-batch `i` and the gradients, which are added to those of earlier ones. */
function differentiate(
  program: Program,
  model: Model,
  { batch, i, accumulate = 1, logitsBytesMax }: TrainOptions & { readonly batch: number; readonly i: number },
): { program: Program; layers: readonly TensorId[] } {
  const { config, weights } = model;
  const rows = { batch: batch / accumulate, time: config.time };
  const r = record("train", program);
  const { x, layers } = forward(r, model, { ...rows, tokens: microBatchName("tokens", i) });
  const targets = r.input(microBatchName("targets", i), [rows.batch * rows.time], "u32");
  const known = new Map(program.tensors.map(({ name, id }) => [name, id]));
  const name = headName(config);
  const [weight, before] = [weights(name), known.get(`d${name}`)];
  const whole = parameterLayout(config).entries.find((entry) => entry.name === name) as ParameterEntry;
  const grads = known.get("grads") as TensorId;
  const out = config.tied
    ? r.value(`d${name}.part`, whole.shape)
    : (before ?? r.view(`d${name}`, grads, whole.offset, whole.shape));
  const { losses, dx } = recordHead(
    r,
    { x, weight, targets },
    {
      count: batch * rows.time,
      dweight: before === undefined ? { out } : { out, add: before },
      ...(logitsBytesMax === undefined ? {} : { logitsBytesMax }),
    },
  );
  r.mean(losses, r.value(microBatchName("loss", i), [1]));
  const seeds = new Map<TensorId, TensorId>();
  for (const entry of parameterLayout(config).entries) {
    const gradient = known.get(`d${entry.name}`);
    if (gradient !== undefined) {
      seeds.set(weights(entry.name), gradient);
    }
  }
  seeds.set(x, present(dx, "the gradient of the head's input"));
  if (config.tied) {
    seeds.set(weight, out);
  }
  return { program: gradFrom(r.finish([]), seeds), layers };
}

/** Forward only. Inputs: tokens, targets [N] u32. Outputs: losses [N] and their mean loss [1], in nats. */
export function lossProgram(
  config: ModelConfig,
  batch: number,
  options: Pick<TrainOptions, "logitsBytesMax"> = {},
): Program {
  const r = record("loss");
  const model = declare(r, config);
  const { x } = forward(r, model, { batch, time: config.time, tokens: "tokens" });
  const targets = r.input("targets", [batch * config.time], "u32");
  const { losses } = recordHead(r, { x, weight: model.weights(headName(config)), targets }, options);
  r.mean(losses, r.value("loss", [1]));
  return r.finish(["losses", "loss"]);
}

/** Forward of one sequence of `config.time` tokens. Input: tokens [T] u32. Output: logits [T,V]. */
export function logitsProgram(config: ModelConfig): Program {
  const r = record("logits");
  const model = declare(r, config);
  const { x } = forward(r, model, { batch: 1, time: config.time, tokens: "tokens" });
  product(r, "logits", x, model.weights(headName(config))); // [T,V]
  return r.finish(["logits"]);
}

type Weights = (name: string) => TensorId;

interface Model {
  readonly config: ModelConfig;
  readonly params: TensorId;
  readonly weights: Weights;
}

interface Rows {
  readonly batch: number;
  readonly time: number;
}

/** Records state "params" [P] and its views. */
function declare(r: Recorder, config: ModelConfig): Model {
  const { entries, size } = parameterLayout(config);
  const params = r.state("params", [size]);
  const views = new Map(entries.map(({ name, offset, shape }) => [name, r.view(name, params, offset, shape)]));
  return { config, params, weights: (name) => present(views.get(name), `parameter "${name}"`) };
}

/** The parameter that turns the last layer's values into logits. */
function headName({ tied }: ModelConfig): string {
  return tied ? "embedding" : "head";
}

/**
 * Records the input [N] called `tokens` and the path from it to what the head reads: `x` [N,C]. `layers` are the inputs of
 * the layers and the output of the last.
 */
function forward(
  r: Recorder,
  { config, weights }: Model,
  { batch, time, tokens }: Rows & { readonly tokens: string },
): { x: TensorId; layers: readonly TensorId[] } {
  let x = r.embedding(weights("embedding"), r.input(tokens, [batch * time], "u32")); // [N,C]
  const layers = [x];
  for (let layer = 0; layer < config.layers; layer += 1) {
    x = attend(r, x, config, { batch, time }, (name) => weights(`layers.${layer}.attention.${name}`)); // [N,C]
    x = feed(r, x, config, (name) => weights(`layers.${layer}.feed.${name}`)); // [N,C]
    layers.push(x);
  }
  return { x: r.rmsNorm(x, weights("final.norm"), config.normEps), layers };
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
