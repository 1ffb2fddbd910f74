/** jax-js (https://github.com/ekzhang/jax-js) as a contender. Works are traced once by `jit`, as its documentation asks for. */
import { blockUntilReady, defaultDevice, grad, init, jit, nn, numpy as np, valueAndGrad } from "@jax-js/jax";
import type { Contender, Ready, Surroundings } from "../contest/contender.ts";
import { attentionOperands, batchOf, LOSSES, operand, type StepWork, type Work } from "../contest/works.ts";
import { initialParameters, parameterLayout } from "../../src/model/layout.ts";
import { createSchedule } from "../../src/model/trainer.ts";
import { jaxLoss, jaxTokens, jaxWeights, type Weights } from "./jax-llama.ts";

export async function open({ backend }: Surroundings): Promise<Contender[]> {
  if (backend.type === "wasm") {
    // It starts one thread for every processor that the runtime admits to.
    Object.defineProperty(navigator, "hardwareConcurrency", { value: backend.threads });
  }
  const found = await init(backend.type);
  if (!found.includes(backend.type)) {
    throw new Error(`jax-js offers no ${backend.type} here`);
  }
  defaultDevice(backend.type);
  return [{ name: "jax-js", prepare: async (work) => prepare(work) }];
}

/** Inputs are lent with `.ref`, because arrays are consumed by what they are given to. */
function prepare(work: Work): Ready {
  switch (work.type) {
    case "matmul": {
      const { m, n, k, transA = false, transB = false } = work;
      const a = np.array(operand("a", m * k)).reshape(transA ? [k, m] : [m, k]);
      const b = np.array(operand("b", k * n)).reshape(transB ? [n, k] : [k, n]);
      const turned = (x: np.Array, turn: boolean): np.Array => (turn ? np.transpose(x) : x);
      const product = jit((x: np.Array, y: np.Array) => np.matmul(turned(x, transA), turned(y, transB)));
      return ready({ inputs: [a, b], call: () => ({ c: product(a.ref, b.ref) }) });
    }
    case "attention": {
      const { q, k, v, dout } = attentionOperands(work);
      const inputs = [q, k, v, dout].map((each) => np.array(each).reshape([1, work.time, work.heads, work.headDim]));
      const [Q, K, V, dOut] = inputs as [np.Array, np.Array, np.Array, np.Array];
      const attend = (x: np.Array, y: np.Array, z: np.Array): np.Array =>
        nn.dotProductAttention(x, y, z, { isCausal: true });
      if (work.way === "forward") {
        const forward = jit(attend);
        return ready({ inputs, call: () => ({ out: forward(Q.ref, K.ref, V.ref) }) });
      }
      const sum = (x: np.Array, y: np.Array, z: np.Array, d: np.Array): np.Array => np.sum(attend(x, y, z).mul(d));
      const backward = jit((x: np.Array, y: np.Array, z: np.Array, d: np.Array) => {
        const [dq, dk, dv] = grad(sum, { argnums: [0, 1, 2] })(x, y, z, d) as [np.Array, np.Array, np.Array];
        return { dq, dk, dv };
      });
      return ready({ inputs, call: () => backward(Q.ref, K.ref, V.ref, dOut.ref) });
    }
    case "step":
      return prepareStep(work);
    default:
      return work satisfies never;
  }
}

type Arrays = Record<string, np.Array>;

function ready({ inputs, call }: { readonly inputs: readonly np.Array[]; readonly call: () => Arrays }): Ready {
  let last: Arrays = {};
  return {
    run: async (times) => {
      // Arrays are lazy: one that is disposed of before it is ready may never be computed.
      const made = Array.from({ length: times }, call);
      await blockUntilReady(made.flatMap((arrays) => Object.values(arrays)));
      dispose(last);
      last = made.pop() ?? {};
      made.forEach(dispose);
    },
    outputs: async () => {
      const outputs: Record<string, Float32Array> = {};
      for (const [name, array] of Object.entries(last)) {
        outputs[name] = (await array.ref.data()) as Float32Array;
      }
      return outputs;
    },
    [Symbol.dispose]: () => {
      dispose(last);
      inputs.forEach((array) => array.dispose());
    },
  };
}

function prepareStep(work: StepWork): Ready {
  const { model, inner } = work;
  const { tokens, targets } = batchOf(work);
  const schedule = createSchedule(inner);
  const step = jit(trainStep(work));
  const zeros = (): Weights => jaxWeights(model, new Float32Array(parameterLayout(model).size));
  let state = { w: jaxWeights(model, initialParameters(model)), m: zeros(), v: zeros() };
  const losses: number[] = [];
  const run = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i += 1) {
      const hyper = schedule.next();
      const rates = np.array(Float32Array.from([hyper[0] as number, hyper[6] as number, hyper[7] as number]));
      const { w, m, v } = state;
      const [loss, ...next] = step(w, m, v, rates, jaxTokens(tokens), jaxTokens(targets));
      state = { w: next[0] as Weights, m: next[1] as Weights, v: next[2] as Weights };
      losses.push((await (loss as np.Array).data())[0] as number);
    }
  };
  return {
    run,
    outputs: async () => {
      await run(LOSSES - losses.length);
      return { losses: Float32Array.from(losses.slice(0, LOSSES)) };
    },
    [Symbol.dispose]: () => Object.values(state).forEach(dispose),
  };
}

/** (w, m, v, [learning rate, c1, c2], tokens, targets) → [loss, w, m, v]: our `adamw` after clipping by the global norm. */
function trainStep({ model, inner }: StepWork) {
  const { beta1, beta2, eps, weightDecay, clip } = inner;
  const decays = new Set(parameterLayout(model).entries.flatMap(({ name, decay }) => (decay ? [name] : [])));
  return (w: Weights, m: Weights, v: Weights, rates: np.Array, tokens: np.Array, targets: np.Array) => {
    const lossOf = (weights: Weights, ids: np.Array, next: np.Array): np.Array => jaxLoss(model, weights, ids, next);
    const lent: Weights = Object.fromEntries(Object.entries(w).map(([name, array]) => [name, array.ref]));
    const [loss, grads] = valueAndGrad(lossOf)(lent, tokens, targets) as unknown as [np.Array, Weights];
    const squares = Object.values(grads).map((each) => np.sum(np.square(each.ref)));
    const norm = np.sqrt(squares.reduce((sum, square) => sum.add(square)));
    const scale = np.minimum(np.array(1), np.array(clip).div(norm.add(1e-6)));
    const [rate, c1, c2] = [0, 1, 2].map((i) => rates.ref.slice(i)) as [np.Array, np.Array, np.Array];
    const next: { w: Weights; m: Weights; v: Weights } = { w: {}, m: {}, v: {} };
    for (const [name, weight] of Object.entries(w)) {
      const g = (grads[name] as np.Array).mul(scale.ref);
      const first = (m[name] as np.Array).mul(beta1).add(g.ref.mul(1 - beta1));
      const second = (v[name] as np.Array).mul(beta2).add(np.square(g).mul(1 - beta2));
      const move = first.ref.mul(c1.ref).div(np.sqrt(second.ref.mul(c2.ref)).add(eps));
      const decayed = decays.has(name) ? move.add(weight.ref.mul(weightDecay)) : move;
      next.w[name] = weight.sub(decayed.mul(rate.ref));
      next.m[name] = first;
      next.v[name] = second;
    }
    return [loss, next.w, next.m, next.v];
  };
}

function dispose(arrays: Arrays): void {
  Object.values(arrays).forEach((array) => array.dispose());
}
