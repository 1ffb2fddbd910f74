/**
 * The outside oracle: the same small Llama written down a second time with @jax-js/jax (`bench/peers/jax-llama.ts`), whose
 * automatic differentiation and kernels share nothing with ours. Loss and the gradient of every parameter must agree.
 */
import { defaultDevice, init, valueAndGrad } from "@jax-js/jax";
import { beforeAll, describe, expect, test } from "vitest";
import { jaxLoss, jaxTokens, jaxWeights, type Weights } from "../bench/peers/jax-llama.ts";
import { createRng } from "../src/base/rng.ts";
import { initialParameters, parameterLayout } from "../src/model/layout.ts";
import { lossProgram } from "../src/model/llama.ts";
import type { ModelConfig } from "../src/protocol/charter.ts";
import { grad } from "../src/tensor/grad.ts";
import { elementCount } from "../src/tensor/program.ts";
import { sortTokens } from "../src/tensor/record.ts";
import { createTwin } from "../src/tensor/twin.ts";

/** Largest difference of the elements of a gradient over its largest element. Both sides compute in f32; seen: 1.5e-6. */
const TOLERANCE = 1e-5;

const BATCH = 2;
const TIED: ModelConfig = {
  vocabulary: 19,
  channels: 24,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  hidden: 31,
  time: 7,
  tied: true,
  ropeBase: 10_000,
  normEps: 1e-5,
  seed: 7,
};

beforeAll(async () => {
  await init("wasm");
  defaultDevice("wasm");
});

describe("lossProgram() and its grad() agree with jax", () => {
  for (const [claim, config] of [
    ["tied", TIED],
    ["untied, one key head", { ...TIED, tied: false, kvHeads: 1, layers: 1 }],
  ] as const) {
    test(claim, async () => {
      const batch = batchFor(config);
      const params = initialParameters(config).map((w) => (w === 1 ? 0.9 : w * 10));
      const ours = await run(config, params, batch);
      const theirs = await runJax(config, params, batch);
      expect(Math.abs(ours.loss - theirs.loss)).toBeLessThan(1e-5);
      const { entries } = parameterLayout(config);
      expect([...theirs.gradients.keys()].toSorted()).toEqual(entries.map(({ name }) => name).toSorted());
      for (const { name, shape, offset } of entries) {
        const mine = ours.grads.subarray(offset, offset + elementCount(shape));
        expect(distance(mine, theirs.gradients.get(name) ?? new Float32Array()), name).toBeLessThan(TOLERANCE);
      }
    });
  }
});

async function run(config: ModelConfig, params: Float32Array, { tokens, targets }: Batch) {
  using engine = createTwin();
  using plan = await engine.compile(grad(lossProgram(config, BATCH), { loss: "loss" }));
  engine.writeState("params", params);
  const inputs = { tokens, targets, ...sortTokens(tokens, config.vocabulary) };
  for (const [name, values] of Object.entries(inputs)) {
    plan.write(name, values);
  }
  const { loss } = await plan.run(["loss"]);
  return { loss: loss[0] as number, grads: await engine.readState("grads") };
}

async function runJax(config: ModelConfig, params: Float32Array, { tokens, targets }: Batch) {
  const lossOf = (w: Weights) => jaxLoss(config, w, jaxTokens(tokens), jaxTokens(targets));
  const [loss, gradients] = valueAndGrad(lossOf)(jaxWeights(config, params));
  const named = new Map<string, Float32Array>();
  for (const [name, gradient] of Object.entries(gradients)) {
    named.set(name, (await gradient.data()) as Float32Array);
  }
  return { loss: (await loss.data())[0] as number, gradients: named };
}

interface Batch {
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly targets: Uint32Array<ArrayBuffer>;
}

function batchFor({ vocabulary, time }: ModelConfig): Batch {
  const rng = createRng("oracle");
  const draw = () => Uint32Array.from({ length: BATCH * time }, () => rng.below(vocabulary));
  return { tokens: draw(), targets: draw() };
}

/** max |a − b| / max |b|. */
function distance(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  const size = b.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  return a.reduce((max, value, i) => Math.max(max, Math.abs(value - (b[i] as number))), 0) / size;
}
