import { describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import type { ModelConfig } from "../protocol/charter.ts";
import { disagreements } from "../tensor/differences.ts";
import { grad } from "../tensor/grad.ts";
import { printProgram } from "../tensor/print.ts";
import { ALIGNMENT } from "../tensor/program.ts";
import { sortTokens } from "../tensor/record.ts";
import { evaluate } from "../tensor/twin.ts";
import { headDimOf, initialParameters, parameterLayout } from "./layout.ts";
import { logitsProgram, lossProgram, trainProgram, type TrainOptions } from "./llama.ts";
import { memoryOf } from "./memory.ts";

const TINY: ModelConfig = {
  vocabulary: 11,
  channels: 8,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  hidden: 7,
  time: 5,
  tied: true,
  ropeBase: 100,
  normEps: 1e-5,
  seed: 1,
};

function batchFor({ vocabulary, time }: ModelConfig, batch: number) {
  const rng = createRng("llama.test");
  const draw = () => Uint32Array.from({ length: batch * time }, () => rng.below(vocabulary));
  const [tokens, targets] = [draw(), draw()];
  return { tokens, targets, ...sortTokens(tokens, vocabulary) };
}

/** Larger than the initial ones, so that no gradient is lost among rounding. */
function parametersFor(config: ModelConfig): Float64Array {
  return Float64Array.from(initialParameters(config), (w) => (w === 1 ? 0.8 : w * 20));
}

describe("grad() of the tiny model agrees with central differences to 1e-6", () => {
  for (const [claim, config] of [
    ["tied, two heads to a key", TINY],
    ["untied", { ...TINY, tied: false }],
    ["one key head, one layer, one token", { ...TINY, kvHeads: 1, layers: 1, time: 1 }],
    ["as many key heads as heads", { ...TINY, kvHeads: 4, layers: 1 }],
  ] as const) {
    test(claim, () => {
      const program = grad(lossProgram(config, 2), { loss: "loss" });
      expect(disagreements(program, { params: parametersFor(config), ...batchFor(config, 2) })).toEqual([]);
    });
  }
});

test("trainProgram() has the gradients of the loss, with the head's own walk and with values computed again", () => {
  for (const config of [TINY, { ...TINY, tied: false }]) {
    const program = trainProgram({ ...config, layers: 2 }, 2, { recompute: true });
    const given = { params: parametersFor(config), hyper: new Float64Array(8).fill(0.5), ...batchFor(config, 2) };
    expect(disagreements(program, given)).toEqual([]);
  }
});

test("lossProgram() starts near the entropy of a uniform guess", () => {
  const config = { ...TINY, vocabulary: 256, time: 16 };
  const loss = evaluate(lossProgram(config, 3), { params: initialParameters(config), ...forwardBatch(config, 3) });
  expect(loss.get("loss")?.[0]).toBeCloseTo(Math.log(256), 1);
});

test("lossProgram() looks only at earlier tokens", () => {
  const given = { params: parametersFor(TINY), ...forwardBatch(TINY, 2) };
  const changed = given.tokens.map((token, n) => (n === 3 ? (token + 1) % TINY.vocabulary : token));
  const [before, after] = [given, { ...given, tokens: changed }].map((values) =>
    evaluate(lossProgram(TINY, 2), values).get("losses"),
  ) as [Float64Array, Float64Array];
  const moved = before.map((loss, n) => (loss === after[n] ? 0 : 1));
  expect([...moved]).toEqual([0, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
});

test("logitsProgram() gives the logits that the loss is made of", () => {
  const params = parametersFor(TINY);
  const { tokens, targets } = forwardBatch(TINY, 1);
  const logits = evaluate(logitsProgram(TINY), { params, tokens }).get("logits");
  expect(logits).toEqual(evaluate(lossProgram(TINY, 1), { params, tokens, targets }).get("logits"));
});

test("parameterLayout() aligns every entry, matrices first, without overlap", () => {
  const { entries, size, decayCount } = parameterLayout({ ...TINY, tied: false });
  let end = 0;
  for (const { shape, offset, decay } of entries) {
    expect(offset % ALIGNMENT).toBe(0);
    expect(offset).toBeGreaterThanOrEqual(end);
    expect(decay).toBe(offset < decayCount);
    expect(decay).toBe(shape.length === 2);
    end = offset + shape.reduce((product, length) => product * length, 1);
  }
  expect(size).toBeGreaterThanOrEqual(end);
  expect(new Set(entries.map(({ name }) => name)).size).toBe(entries.length);
  expect(entries.some(({ name }) => name === "head")).toBe(true);
});

test("initialParameters() follow the seed, with small residual matrices and gains of 1", () => {
  const config = { ...TINY, channels: 64, hidden: 64 };
  const params = initialParameters(config);
  expect(initialParameters(config)).toEqual(params);
  expect(initialParameters({ ...config, seed: 2 })).not.toEqual(params);
  const deviation = (name: string) => {
    const entry = parameterLayout(config).entries.find((candidate) => candidate.name === name);
    const values = params.subarray(entry?.offset, (entry?.offset ?? 0) + 64 * 64);
    return Math.sqrt(values.reduce((sum, w) => sum + w * w, 0) / values.length);
  };
  expect(deviation("layers.1.attention.q")).toBeCloseTo(0.02, 2);
  expect(deviation("layers.1.feed.down")).toBeCloseTo(0.01, 2);
  expect(params.subarray(parameterLayout(config).decayCount).every((gain) => gain === 1)).toBe(true);
});

test("headDimOf() refuses sizes that do not fit together", () => {
  expect(headDimOf(TINY)).toBe(2);
  expect(() => headDimOf({ ...TINY, heads: 3, kvHeads: 1 })).toThrow("8 channels do not give 3 heads");
  expect(() => headDimOf({ ...TINY, heads: 8, kvHeads: 8 })).toThrow("even width");
  expect(() => headDimOf({ ...TINY, kvHeads: 3 })).toThrow("4 heads are not a multiple of 3");
  expect(() => headDimOf({ ...TINY, layers: 0 })).toThrow("layers is 0");
});

test("trainProgram() of one layer reads as follows", () => {
  expect(printProgram(trainProgram({ ...TINY, layers: 1 }, 2))).toMatchInlineSnapshot(`
    "program train
    state params [768]
    view embedding [11,8] = params from 0
    view layers.0.attention.q [8,8] = params from 128
    view layers.0.attention.k [4,8] = params from 192
    view layers.0.attention.v [4,8] = params from 256
    view layers.0.attention.o [8,8] = params from 320
    view layers.0.feed.gate [7,8] = params from 384
    view layers.0.feed.up [7,8] = params from 448
    view layers.0.feed.down [8,7] = params from 512
    view layers.0.attention.norm [8] = params from 576
    view layers.0.feed.norm [8] = params from 640
    view final.norm [8] = params from 704
    state grads [768]
    input tokens [10] u32
    input targets [10] u32
    view dfinal.norm [8] = grads from 704
    view dlayers.0.feed.down [8,7] = grads from 512
    view dlayers.0.feed.up [7,8] = grads from 448
    view dlayers.0.feed.gate [7,8] = grads from 384
    view dlayers.0.feed.norm [8] = grads from 640
    view dlayers.0.attention.o [8,8] = grads from 320
    view dlayers.0.attention.v [4,8] = grads from 256
    view dlayers.0.attention.k [4,8] = grads from 192
    view dlayers.0.attention.q [8,8] = grads from 128
    view dlayers.0.attention.norm [8] = grads from 576
    view dembedding [11,8] = grads from 0
    input order [10] u32
    input offsets [12] u32
    state m [768]
    state v [768]
    input hyper [8]
    embedded [10,8] = embedding(table: embedding, tokens: tokens)
    normed [10,8], rstd [10] = rmsNorm(x: embedded, gain: layers.0.attention.norm, eps: 0.00001)
    queries [10,8] = matmul(a: normed, b: layers.0.attention.q, transB)
    turned [10,8] = rope(x: queries, time: 5, headDim: 2, base: 100)
    keys [10,4] = matmul(a: normed, b: layers.0.attention.k, transB)
    turned.2 [10,4] = rope(x: keys, time: 5, headDim: 2, base: 100)
    values [10,4] = matmul(a: normed, b: layers.0.attention.v, transB)
    attended [10,8], lse [40] = attention(q: turned, k: turned.2, v: values, batch: 2, time: 5, heads: 4, kvHeads: 2, headDim: 2)
    residual [10,8] = matmul(a: attended, b: layers.0.attention.o, add: embedded, transB)
    normed.2 [10,8], rstd.2 [10] = rmsNorm(x: residual, gain: layers.0.feed.norm, eps: 0.00001)
    gate [10,7] = matmul(a: normed.2, b: layers.0.feed.gate, transB)
    up [10,7] = matmul(a: normed.2, b: layers.0.feed.up, transB)
    gated [10,7] = swiglu(gate: gate, up: up)
    residual.2 [10,8] = matmul(a: gated, b: layers.0.feed.down, add: residual, transB)
    normed.3 [10,8], rstd.3 [10] = rmsNorm(x: residual.2, gain: final.norm, eps: 0.00001)
    logits [10,11] = matmul(a: normed.3, b: embedding, transB)
    losses [10] = crossEntropy(logits: logits, targets: targets)
    logits [10,11] = crossEntropyBackward(logits: logits, targets: targets, count: 10)
    dx [10,8] = matmul(a: logits, b: embedding)
    dembedding.part [11,8] = matmul(a: logits, b: normed.3, transA)
    loss [1] = mean(x: losses)
    dresidual.2 [10,8], dfinal.norm [8] = rmsNormBackward(x: residual.2, gain: final.norm, rstd: rstd.3, dout: dx)
    dgated [10,7] = matmul(a: dresidual.2, b: layers.0.feed.down)
    dlayers.0.feed.down [8,7] = matmul(a: dresidual.2, b: gated, transA)
    dgate [10,7], dup [10,7] = swigluBackward(gate: gate, up: up, dout: dgated)
    dnormed.2 [10,8] = matmul(a: dup, b: layers.0.feed.up)
    dlayers.0.feed.up [7,8] = matmul(a: dup, b: normed.2, transA)
    dnormed.2.2 [10,8] = matmul(a: dgate, b: layers.0.feed.gate, add: dnormed.2)
    dlayers.0.feed.gate [7,8] = matmul(a: dgate, b: normed.2, transA)
    dresidual [10,8], dlayers.0.feed.norm [8] = rmsNormBackward(x: residual, gain: layers.0.feed.norm, rstd: rstd.2, dout: dnormed.2.2, add: dresidual.2)
    dattended [10,8] = matmul(a: dresidual, b: layers.0.attention.o)
    dlayers.0.attention.o [8,8] = matmul(a: dresidual, b: attended, transA)
    delta [40], dturned [10,8], dturned.2 [10,4], dvalues [10,4] = attentionBackward(q: turned, k: turned.2, v: values, out: attended, lse: lse, dout: dattended, batch: 2, time: 5, heads: 4, kvHeads: 2, headDim: 2)
    dnormed [10,8] = matmul(a: dvalues, b: layers.0.attention.v)
    dlayers.0.attention.v [4,8] = matmul(a: dvalues, b: normed, transA)
    dkeys [10,4] = rope(x: dturned.2, time: 5, headDim: 2, base: 100, inverse)
    dnormed.3 [10,8] = matmul(a: dkeys, b: layers.0.attention.k, add: dnormed)
    dlayers.0.attention.k [4,8] = matmul(a: dkeys, b: normed, transA)
    dqueries [10,8] = rope(x: dturned, time: 5, headDim: 2, base: 100, inverse)
    dnormed.4 [10,8] = matmul(a: dqueries, b: layers.0.attention.q, add: dnormed.3)
    dlayers.0.attention.q [8,8] = matmul(a: dqueries, b: normed, transA)
    dembedded [10,8], dlayers.0.attention.norm [8] = rmsNormBackward(x: embedded, gain: layers.0.attention.norm, rstd: rstd, dout: dnormed.4, add: dresidual)
    dembedding [11,8] = embeddingBackward(dout: dembedded, order: order, offsets: offsets, add: dembedding.part)
    norm [1] = norm(x: grads)
    params [768], m [768], v [768] = adamw(params: params, grads: grads, m: m, v: v, norm: norm, hyper: hyper, decayCount: 576)
    outputs loss, norm"
  `);
});

function forwardBatch(config: ModelConfig, batch: number) {
  const { tokens, targets } = batchFor(config, batch);
  return { tokens, targets };
}

test("trainProgram() with Muon has AdamW on both sides of the layers' matrices, without a gap", () => {
  for (const tied of [true, false]) {
    const config = { ...TINY, layers: 1, tied };
    const lines = printProgram(trainProgram(config, 2, { muon: true })).split("\n");
    expect(lines.filter((line) => line.includes("muon("))).toEqual([
      expect.stringContaining("hyper: muon, 7 matrices"),
    ]);
    const { entries, size, decayCount } = parameterLayout(config);
    const end = tied ? decayCount : (entries.find(({ name }) => name === "head")?.offset ?? 0);
    expect(lines).toContain("view before.params [128] = params from 0");
    expect(lines).toContain(`view after.params [${size - end}] = params from ${end}`);
    const adamw = lines.filter((line) => line.includes("adamw("));
    expect(adamw.map((line) => /decayCount: (\d+)/.exec(line)?.[1])).toEqual(["128", String(decayCount - end)]);
  }
});

describe("trainProgram() in less memory", () => {
  const big = { ...TINY, vocabulary: 32_768, channels: 16, layers: 1, heads: 2, kvHeads: 1, hidden: 16, time: 128 };
  const valueBytes = (config: ModelConfig, batch: number, options: TrainOptions = {}): number =>
    memoryOf(trainProgram(config, batch, options)).valueBytes;

  test("keeps the logits of one chunk: 32 MiB at most for a vocabulary of 32,768, not 128 MiB for 1,024 rows", () => {
    const program = trainProgram(big, 8);
    const logits = program.tensors.filter(({ name, view }) => name.startsWith("logits") && view === undefined);
    expect(logits.map(({ shape }) => shape)).toEqual([[256, 32_768]]);
    expect(valueBytes(big, 8)).toBeLessThan(2 ** 25 + 2 ** 22);
    // The whole batch at once would take four times as much, and nothing but logits makes the difference.
    expect(valueBytes(big, 8, { logitsBytesMax: 2 ** 27 }) - valueBytes(big, 8)).toBe(3 * 2 ** 25);
    expect(memoryOf(lossProgram(big, 8)).valueBytes).toBeLessThan(2 ** 25 + 2 ** 20);
  });

  test("takes one chunk for bytes", () => {
    const program = trainProgram({ ...big, vocabulary: 256 }, 8);
    expect(program.ops.filter(({ type }) => type === "crossEntropy").length).toBe(1);
  });

  test("grows with the layers by what is kept of each: their inputs only when recomputed", () => {
    const at = (layers: number): ModelConfig => ({
      ...TINY,
      channels: 32,
      hidden: 96,
      layers,
      time: 32,
      vocabulary: 16,
    });
    const perLayer = (options: TrainOptions): number => valueBytes(at(9), 4, options) - valueBytes(at(8), 4, options);
    const row = 4 * 32 * 4;
    expect(perLayer({ recompute: true })).toBe(row * 32);
    expect(perLayer({})).toBeGreaterThan(12 * row * 32);
    expect(perLayer({ accumulate: 4 })).toBeLessThan(perLayer({}) / 3.9);
  });

  test("computes again nothing of the last layer, and no product whose result is kept", () => {
    const plain = trainProgram({ ...TINY, layers: 3 }, 2);
    const again = trainProgram({ ...TINY, layers: 3 }, 2, { recompute: true });
    // Of two layers: 2 norms, 6 products, 2 turns, 1 attention, 1 swiglu.
    expect(again.ops.length - plain.ops.length).toBe(2 * 12);
  });

  test("adds up the gradients of micro-batches: three ops more for every norm, and nothing but the passes themselves", () => {
    const count = (accumulate: number): number => trainProgram({ ...TINY, layers: 1 }, 4, { accumulate }).ops.length;
    const update = 2;
    expect(count(2) - count(1)).toBe(count(1) - update + 3);
    expect(count(4) - count(2)).toBe(2 * (count(1) - update + 3));
  });
});
