/**
 * The model of `src/model/llama.ts` and its training step written down with TensorFlow.js, of composed ops: it has no fused
 * attention, rotary positions or norm. Masks and angles are uploaded once.
 */
import * as tf from "@tensorflow/tfjs-core";
import { initialParameters, parameterLayout } from "../../src/model/layout.ts";
import { createSchedule } from "../../src/model/trainer.ts";
import type { ModelConfig } from "../../src/protocol/charter.ts";
import { elementCount } from "../../src/tensor/program.ts";
import type { Ready } from "../contest/contender.ts";
import { batchOf, LOSSES, type StepWork } from "../contest/works.ts";

type Weights = Readonly<Record<string, tf.Tensor>>;

/** What the model needs besides weights and tokens. */
interface Constants {
  /** [T,T]: 0 where a query may look, else a large negative number. */
  readonly mask: tf.Tensor;
  /** [T,D/2] */
  readonly cos: tf.Tensor;
  readonly sin: tf.Tensor;
}

export function causalMask(time: number): tf.Tensor {
  const mask = Float32Array.from({ length: time * time }, (_, i) => (i % time > Math.floor(i / time) ? -1e9 : 0));
  return tf.tensor(mask, [time, time]);
}

/** q, k, v [...,T,D] → softmax(q·kᵀ/√D + mask)·v. */
export function attend(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, mask: tf.Tensor): tf.Tensor {
  const scale = 1 / Math.sqrt(q.shape.at(-1) as number);
  return tf.matMul(tf.softmax(tf.add(tf.mul(tf.matMul(q, k, false, true), scale), mask)), v);
}

export function prepareStep(work: StepWork): Ready {
  const { model, inner } = work;
  const { entries } = parameterLayout(model);
  const params = initialParameters(model);
  const zeros = (): tf.Tensor[] => entries.map(({ shape }) => tf.zeros([...shape]));
  let w = entries.map(({ shape, offset }) => tf.tensor(params.slice(offset, offset + elementCount(shape)), [...shape]));
  let [m, v] = [zeros(), zeros()];
  const constants = constantsOf(model);
  const schedule = createSchedule(inner);
  const batch = batchOf(work);
  const losses: number[] = [];
  const upload = (ids: Uint32Array): tf.Tensor => tf.tensor(Int32Array.from(ids), [ids.length], "int32");
  const run = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i += 1) {
      const hyper = schedule.next();
      const [tokens, targets] = [upload(batch.tokens), upload(batch.targets)];
      const lossOf = (...weights: tf.Tensor[]): tf.Tensor => {
        const named = Object.fromEntries(entries.map(({ name }, at) => [name, weights[at] as tf.Tensor]));
        return lossOfModel(model, named, constants, tokens, targets);
      };
      const made = tf.tidy(() => {
        const { value, grads } = tf.valueAndGrads(lossOf)(w);
        return { loss: value, ...adamw(work, { w, m, v, grads }, hyper) };
      });
      tf.dispose([...w, ...m, ...v, tokens, targets]);
      ({ w, m, v } = made);
      losses.push((await made.loss.data())[0] as number);
      made.loss.dispose();
    }
  };
  return {
    run,
    outputs: async () => {
      await run(LOSSES - losses.length);
      return { losses: Float32Array.from(losses.slice(0, LOSSES)) };
    },
    [Symbol.dispose]: () => tf.dispose([...w, ...m, ...v, constants.mask, constants.cos, constants.sin]),
  };
}

function constantsOf({ time, channels, heads, ropeBase }: ModelConfig): Constants {
  const half = channels / heads / 2;
  const angles = Float32Array.from(
    { length: time * half },
    (_, i) => Math.floor(i / half) / ropeBase ** ((i % half) / half),
  );
  const table = (values: Float32Array): tf.Tensor => tf.tensor(values, [time, half]);
  return { mask: causalMask(time), cos: table(angles.map(Math.cos)), sin: table(angles.map(Math.sin)) };
}

/** Mean loss in nats; tokens and targets [N] int32. */
function lossOfModel(
  config: ModelConfig,
  w: Weights,
  constants: Constants,
  tokens: tf.Tensor,
  targets: tf.Tensor,
): tf.Tensor {
  const weight = (name: string): tf.Tensor => w[name] as tf.Tensor;
  const oneHot = (ids: tf.Tensor): tf.Tensor => tf.oneHot(ids, config.vocabulary);
  const linear = (x: tf.Tensor, name: string): tf.Tensor => tf.matMul(x, weight(name), false, true);
  let x = tf.matMul(oneHot(tokens), weight("embedding")); // [N,C]
  for (let layer = 0; layer < config.layers; layer += 1) {
    const at = `layers.${layer}`;
    const a = norm(x, weight(`${at}.attention.norm`), config.normEps);
    const [q, k, v] = ["q", "k", "v"].map((part) => linear(a, `${at}.attention.${part}`)) as Triple;
    x = tf.add(x, linear(attention(config, constants, [q, k, v]), `${at}.attention.o`));
    const f = norm(x, weight(`${at}.feed.norm`), config.normEps);
    const gate = linear(f, `${at}.feed.gate`);
    const gated = tf.mul(tf.mul(gate, tf.sigmoid(gate)), linear(f, `${at}.feed.up`));
    x = tf.add(x, linear(gated, `${at}.feed.down`));
  }
  const logits = linear(norm(x, weight("final.norm"), config.normEps), config.tied ? "embedding" : "head"); // [N,V]
  return tf.neg(tf.mean(tf.sum(tf.mul(tf.logSoftmax(logits), oneHot(targets)), -1)));
}

type Triple = [tf.Tensor, tf.Tensor, tf.Tensor];

function norm(x: tf.Tensor, gain: tf.Tensor, eps: number): tf.Tensor {
  return tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), eps))), gain);
}

/** q, k, v [N,C] → [N,C]; as many key heads as query heads. */
function attention({ time, heads, channels }: ModelConfig, { mask, cos, sin }: Constants, rows: Triple): tf.Tensor {
  const headDim = channels / heads;
  const batch = (rows[0].shape[0] as number) / time;
  const [q, k, v] = rows.map((x) => tf.transpose(tf.reshape(x, [batch, time, heads, headDim]), [0, 2, 1, 3])) as Triple;
  const turn = (x: tf.Tensor): tf.Tensor => {
    const [first, second] = tf.split(x, 2, -1) as [tf.Tensor, tf.Tensor];
    const left = tf.sub(tf.mul(first, cos), tf.mul(second, sin));
    return tf.concat([left, tf.add(tf.mul(second, cos), tf.mul(first, sin))], -1);
  };
  const mixed = attend(turn(q), turn(k), v, mask); // [B,H,T,D]
  return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [batch * time, channels]);
}

interface State {
  readonly w: readonly tf.Tensor[];
  readonly m: readonly tf.Tensor[];
  readonly v: readonly tf.Tensor[];
  readonly grads: readonly tf.Tensor[];
}

/** Our `adamw` after clipping by the global norm; its own Adam neither decays nor clips. */
function adamw({ model, inner }: StepWork, { w, m, v, grads }: State, hyper: Float32Array) {
  const { beta1, beta2, eps, weightDecay, clip } = inner;
  const [rate, c1, c2] = [hyper[0], hyper[6], hyper[7]] as [number, number, number];
  const size = tf.sqrt(grads.map((each) => tf.sum(tf.square(each))).reduce((a, b) => tf.add(a, b)));
  const scale = tf.minimum(tf.div(clip, tf.add(size, 1e-6)), 1);
  const next: { w: tf.Tensor[]; m: tf.Tensor[]; v: tf.Tensor[] } = { w: [], m: [], v: [] };
  for (const [at, { decay }] of parameterLayout(model).entries.entries()) {
    const weight = w[at] as tf.Tensor;
    const g = tf.mul(grads[at] as tf.Tensor, scale);
    const first = tf.add(tf.mul(m[at] as tf.Tensor, beta1), tf.mul(g, 1 - beta1));
    const second = tf.add(tf.mul(v[at] as tf.Tensor, beta2), tf.mul(tf.square(g), 1 - beta2));
    const move = tf.div(tf.mul(first, c1), tf.add(tf.sqrt(tf.mul(second, c2)), eps));
    const decayed = decay ? tf.add(move, tf.mul(weight, weightDecay)) : move;
    next.w.push(tf.sub(weight, tf.mul(decayed, rate)));
    next.m.push(first);
    next.v.push(second);
  }
  return next;
}
