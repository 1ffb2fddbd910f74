import { describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import type { InnerConfig, ModelConfig } from "../protocol/charter.ts";
import type { Engine, Plan } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { createTwin } from "../tensor/twin.ts";
import { createEvaluator } from "./evaluator.ts";
import { createGenerator, sample } from "./generator.ts";
import { initialParameters, parameterLayout } from "./layout.ts";
import { logitsProgram, lossProgram, trainProgram } from "./llama.ts";
import { memoryOf } from "./memory.ts";
import { createSchedule, createTrainer, type TokenBatch, type TrainerOptions } from "./trainer.ts";

const MODEL: ModelConfig = {
  vocabulary: 12,
  channels: 16,
  layers: 1,
  heads: 2,
  kvHeads: 1,
  hidden: 24,
  time: 8,
  tied: true,
  ropeBase: 1000,
  normEps: 1e-5,
  seed: 3,
};
const INNER: InnerConfig = {
  batch: 4,
  learningRate: 0.02,
  warmupSteps: 5,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.01,
  clip: 1,
  matrixRate: 0,
  matrixMomentum: 0.9,
};

/** Sequences that count up modulo the vocabulary, from a random beginning: the next token is always plus one. */
function countingBatch(seed: number): TokenBatch {
  const rng = createRng("counting", seed);
  const starts = Array.from({ length: INNER.batch }, () => rng.below(MODEL.vocabulary));
  const rows = starts.flatMap((start) => Array.from({ length: MODEL.time }, (_, t) => start + t));
  return {
    tokens: Uint32Array.from(rows, (row) => row % MODEL.vocabulary),
    targets: Uint32Array.from(rows, (row) => (row + 1) % MODEL.vocabulary),
  };
}

async function trained(steps: number, { thrift = {}, model = MODEL, inner = INNER }: Partial<TrainerOptions> = {}) {
  const engine = createTwin();
  const trainer = await createTrainer(engine, { model, inner, thrift });
  trainer.load(initialParameters(model));
  const losses: number[] = [];
  for (let i = 0; i < steps; i += 1) {
    losses.push((await trainer.step(countingBatch(i))).loss);
  }
  return { engine, trainer, losses };
}

describe("createTrainer()", () => {
  test("learns to count, and the evaluator and the generator on its engine see it", async () => {
    const { engine, trainer, losses } = await trained(120);
    expect(losses[0]).toBeCloseTo(Math.log(12), 1);
    expect(losses.at(-1)).toBeLessThan(0.1);
    using evaluator = await createEvaluator(engine, { model: MODEL, batch: INNER.batch });
    expect(await evaluator.loss(countingBatch(-1))).toBeLessThan(0.1);
    using generator = await createGenerator(engine, { model: MODEL });
    const seen: number[] = [];
    const options = { count: 14, temperature: 0, rng: createRng(0), onByte: (byte: number) => seen.push(byte) };
    const written = await generator.generate(Uint8Array.of(9, 10, 11), options);
    expect([...written]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1]);
    expect(seen).toEqual([...written]);
    expect(trainer.tokensPerStep).toBe(32);
  });

  test("learns faster where Muon trains the layers' matrices, at a rate of its own that warms up, and has the same moments", async () => {
    const inner = { ...INNER, matrixRate: 0.1 };
    const [plain, muon] = [await trained(30), await trained(30, { inner })];
    expect(muon.losses.at(-1)).toBeLessThan(0.8 * (plain.losses.at(-1) as number));
    const schedule = createSchedule({ ...inner, warmupSteps: 4 });
    schedule.next(0.5);
    expect([...schedule.muon()]).toEqual([0.5 * 0.1 * 0.25, 0.9, 0.01, 1].map((value) => Math.fround(value)));
    const { v } = await muon.trainer.moments();
    const { entries } = parameterLayout(MODEL);
    const isMatrix = (name: string): boolean => /^layers\.\d+\.(attention|feed)\.[^n]/.test(name);
    for (const { name, offset } of entries) {
      expect([name, v[offset] === 0]).toEqual([name, isMatrix(name)]);
    }
  });

  test("gives the same parameters for the same steps, and goes on from restored moments", async () => {
    const whole = await trained(6);
    const first = await trained(4);
    const moments = await first.trainer.moments();
    expect(moments.t).toBe(4);
    const second = await createTrainer(createTwin(), { model: MODEL, inner: INNER });
    second.load(await first.trainer.parameters());
    second.restoreMoments(moments);
    await second.step(countingBatch(4));
    await second.step(countingBatch(5));
    expect(await second.parameters()).toEqual(await whole.trainer.parameters());
    expect(await second.moments()).toEqual(await whole.trainer.moments());
  });

  test("leaves parameters and moments to the next trainer on its engine, whose step counter begins anew", async () => {
    const { engine, trainer } = await trained(3);
    const [params, { m, v }] = [await trainer.parameters(), await trainer.moments()];
    trainer[Symbol.dispose]();
    using next = await createTrainer(engine, { model: MODEL, inner: INNER });
    expect(await next.parameters()).toEqual(params);
    expect(await next.moments()).toEqual({ m, v, t: 0 });
  });

  test("leaves the padding between parameters zero", async () => {
    const { trainer } = await trained(3);
    const params = await trainer.parameters();
    let end = 0;
    for (const { offset, shape } of parameterLayout(MODEL).entries) {
      expect(params.subarray(end, offset).every((w) => w === 0)).toBe(true);
      end = offset + shape.reduce((product, length) => product * length, 1);
    }
    expect(params.subarray(end).every((w) => w === 0)).toBe(true);
  });

  test("gives the same bits when activations are computed again", async () => {
    const model = { ...MODEL, layers: 3 };
    const [plain, again] = [await trained(3, { model }), await trained(3, { model, thrift: { recompute: true } })];
    expect(again.losses).toEqual(plain.losses);
    expect(await again.trainer.parameters()).toEqual(await plain.trainer.parameters());
  });

  test("computes activations again where the device refuses to keep them, and only there", async () => {
    const model = { ...MODEL, layers: 3 };
    const plainBytes = memoryOf(trainProgram(model, INNER.batch)).valueBytes;
    const twin = createTwin();
    const compiled: number[] = [];
    const trainOn = (bytesMax: number) => {
      const compile = async (program: Program) => {
        const { valueBytes } = memoryOf(program);
        compiled.push(valueBytes);
        if (valueBytes > bytesMax) {
          throw new HeddleError("model-too-big", "The model does not fit");
        }
        return twin.compile(program);
      };
      return createTrainer({ ...twin, compile }, { model, inner: INNER, thrift: "as needed" });
    };
    using roomy = await trainOn(plainBytes);
    expect(compiled).toEqual([plainBytes]);
    using tight = await trainOn(plainBytes - 1);
    expect(compiled.slice(0, 2)).toEqual([plainBytes, plainBytes]);
    expect(compiled[2]).toBeLessThan(plainBytes / 1.5);
    roomy.load(initialParameters(model));
    const { loss } = await roomy.step(countingBatch(0));
    tight.load(initialParameters(model));
    expect((await tight.step(countingBatch(0))).loss).toBe(loss);
    await expect(trainOn(1)).rejects.toMatchObject({ code: "model-too-big" });
  });

  test("gives the same step in micro-batches as in one batch, but for rounding", async () => {
    const plain = await trained(4);
    for (const accumulate of [2, 4]) {
      const cut = await trained(4, { thrift: { accumulate } });
      cut.losses.forEach((loss, i) => expect(loss).toBeCloseTo(plain.losses[i] as number, 5));
      const [ours, theirs] = [await cut.trainer.parameters(), await plain.trainer.parameters()];
      expect(Math.max(...ours.map((value, i) => Math.abs(value - (theirs[i] as number))))).toBeLessThan(1e-4);
      expect(cut.trainer.tokensPerStep).toBe(plain.trainer.tokensPerStep);
    }
  });

  test("refuses a batch that does not cut into the micro-batches", async () => {
    for (const accumulate of [0, 3, 8, 1.5]) {
      const refusal = { code: "bad-input", message: expect.stringContaining("a batch of 4 does not cut") };
      await expect(trained(0, { thrift: { accumulate } })).rejects.toMatchObject(refusal);
    }
  });

  test("refuses a batch of another size", async () => {
    const { trainer } = await trained(0);
    await expect(trainer.step({ tokens: new Uint32Array(31), targets: new Uint32Array(32) })).rejects.toThrow(
      "need 32",
    );
  });

  test.each([
    ["the twin", createTwin()],
    ["an engine that does not look at what it is given, as a GPU", heedless()],
  ])(
    "refuses tokens and targets outside the vocabulary before they are on %s, and so does the evaluator",
    async (_, engine) => {
      using trainer = await createTrainer(engine, { model: MODEL, inner: INNER });
      using evaluator = await createEvaluator(engine, { model: MODEL, batch: INNER.batch });
      const { tokens, targets } = countingBatch(0);
      const wrong = targets.with(31, 12);
      const outside = "12 is outside the vocabulary of 12";
      await expect(trainer.step({ tokens, targets: wrong })).rejects.toThrow(`Cannot step: target ${outside}`);
      await expect(trainer.step({ tokens: wrong, targets })).rejects.toThrow(`Cannot step: token ${outside}`);
      await expect(evaluator.loss({ tokens, targets: wrong })).rejects.toThrow(`Cannot evaluate: target ${outside}`);
      await expect(evaluator.losses({ tokens: wrong, targets })).rejects.toThrow(`Cannot evaluate: token ${outside}`);
    },
  );
});

/** An engine whose Plans take any input, and compute nothing. */
function heedless(): Engine {
  const twin = createTwin();
  const compile = async (program: Program): Promise<Plan> => ({
    ...(await twin.compile(program)),
    write: () => undefined,
  });
  return { ...twin, compile };
}

test("createSchedule() warms up, then holds, and corrects the bias of both moments", () => {
  const schedule = createSchedule(INNER);
  const steps = Array.from({ length: 7 }, () => schedule.next().slice());
  expect(steps.map((hyper) => hyper[0])).toEqual([0.004, 0.008, 0.012, 0.016, 0.02, 0.02, 0.02].map(Math.fround));
  expect([...(steps[2] as Float32Array)].slice(1)).toEqual(
    [0.9, 0.95, 1e-8, 0.01, 1, 1 / (1 - 0.9 * 0.9 * 0.9), 1 / (1 - 0.95 * 0.95 * 0.95)].map(Math.fround),
  );
  const restored = createSchedule(INNER);
  restored.restore(6);
  expect(restored.next()).toEqual(steps[6]);
  expect(restored.steps()).toBe(7);
  expect(createSchedule({ ...INNER, warmupSteps: 0 }).next()[0]).toBe(Math.fround(0.02));
  expect(restored.next(0.25)[0]).toBe(Math.fround(0.005));
});

test("createEvaluator() measures the mean of the rows' losses on loaded parameters", async () => {
  using evaluator = await createEvaluator(createTwin(), { model: MODEL, batch: INNER.batch });
  const batch = countingBatch(1);
  expect(await evaluator.loss(batch)).toBeCloseTo(Math.log(12), 6);
  evaluator.load(initialParameters(MODEL));
  const losses = await evaluator.losses(batch);
  expect(losses.length).toBe(evaluator.tokensPerBatch);
  expect(await evaluator.loss(batch)).toBeCloseTo(losses.reduce((sum, loss) => sum + loss, 0) / losses.length, 6);
});

describe("createGenerator()", () => {
  test("samples by the seed, within the vocabulary, from an empty prompt and from one longer than the window", async () => {
    using generator = await createGenerator(createTwin(), { model: MODEL });
    generator.load(initialParameters(MODEL));
    const write = (prompt: Uint8Array, seed: number) =>
      generator.generate(prompt, { count: 20, temperature: 1, rng: createRng(seed) });
    const [once, again, other] = [
      await write(new Uint8Array(), 1),
      await write(new Uint8Array(), 1),
      await write(new Uint8Array(), 2),
    ];
    expect(again).toEqual(once);
    expect(other).not.toEqual(once);
    const long = Uint8Array.from({ length: 30 }, (_, i) => i % 12);
    expect(await write(long, 4)).toEqual(await write(long.subarray(-MODEL.time), 4));
    expect(once.every((byte) => byte < 12)).toBe(true);
    await expect(write(Uint8Array.of(12), 1)).rejects.toThrow("outside the vocabulary");
  });

  test("stops when its signal is aborted", async () => {
    using generator = await createGenerator(createTwin(), { model: MODEL });
    const signal = { aborted: false };
    const onByte = (): void => {
      signal.aborted = true;
    };
    const options = { count: 20, temperature: 1, rng: createRng(1), onByte, signal };
    expect((await generator.generate(new Uint8Array(), options)).length).toBe(1);
  });
});

test("sample() draws in proportion to the softmax, sharper when cold", () => {
  const logits = Float32Array.from([0.1, 0.6, 0.3], Math.log);
  const share = (temperature: number): number[] => {
    const rng = createRng("sample");
    const counts = [0, 0, 0];
    for (let i = 0; i < 20_000; i += 1) {
      const drawn = sample(logits, { temperature, rng });
      counts[drawn] = (counts[drawn] ?? 0) + 1 / 20_000;
    }
    return counts;
  };
  share(1).forEach((p, i) => expect(p).toBeCloseTo([0.1, 0.6, 0.3][i] as number, 1));
  expect(share(0.1)[1]).toBeGreaterThan(0.99);
  expect(share(0)).toEqual([0, expect.closeTo(1), 0]);
});

test("memoryOf() counts states exactly and values by their lifetimes", () => {
  const { size } = parameterLayout(MODEL);
  const [forward, train] = [memoryOf(lossProgram(MODEL, 4)), memoryOf(trainProgram(MODEL, 4))];
  expect(forward.stateBytes).toBe(size * 4);
  expect(train.stateBytes).toBe(size * 16);
  expect(train.largestBytes).toBe(size * 4);
  expect(forward.valueBytes).toBeLessThan(train.valueBytes);
  // One token, one layer: tokens in, then at most a row of x and three of [1,F] live at a time.
  const smallest = memoryOf(logitsProgram({ ...MODEL, time: 1 }));
  expect(smallest.valueBytes).toBe(4 * (1 + 16 + 3 * 24));
});
