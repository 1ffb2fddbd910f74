/**
 * The contract of an engine, as data: for every op a few small Programs at sizes that break kernels (1, a prime, one under
 * and one over a workgroup or tile), and whole training steps of a small model. `run-cases.ts` runs them on an engine and on
 * the twin and compares. Nothing here knows of a test framework or a platform: the same cases run in Node, Deno and a
 * browser's worker, on WebGPU and on WASM.
 */
import { createRng, type Rng } from "../../src/base/rng.ts";
import { initialParameters } from "../../src/model/layout.ts";
import { microBatchName, trainProgram, type TrainOptions } from "../../src/model/llama.ts";
import type { ModelConfig } from "../../src/protocol/charter.ts";
import { elementCount, type OpType, type Program, type TensorId } from "../../src/tensor/program.ts";
import { record, sortTokens, type Recorder } from "../../src/tensor/record.ts";
import { updateCases } from "./update-cases.ts";

export type Values = Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

export interface Setup {
  readonly program: Program;
  /** Values of every input, by name; `step` counts from 1. */
  inputs(step: number): Readonly<Record<string, Values>>;
  readonly states: Readonly<Record<string, Float32Array<ArrayBuffer>>>;
  readonly steps: number;
}

export interface Case {
  readonly name: string;
  /** Kernels that want multiples of 4 have cases of their own; the others would only show that they give way. */
  readonly op: OpType | "model" | "model in parts" | `${"model" | "matmul"} in fours`;
  /** Largest difference to the twin, as a share of the tensor's largest element. */
  readonly tolerance: number;
  /** The largest NMSE; without it what follows from the tolerance. */
  readonly nmseMax?: number;
  /** Tensors whose largest element is below this are measured against this: what is left of a cancellation is noise. */
  readonly floor?: number;
  setup(): Setup;
}

const close = 1e-5;

export const cases: readonly Case[] = [
  ...[
    [31, 33, 17],
    [65, 63, 37],
  ].flatMap(([m = 0, n = 0, k = 0]) =>
    [false, true].flatMap((transA) =>
      [false, true].map((transB) => matmulCase({ m, n, k }, { transA, transB, add: transA === transB })),
    ),
  ),
  matmulCase({ m: 1, n: 1, k: 1 }, { transA: false, transB: true, add: true }),
  matmulCase({ m: 7, n: 5, k: 3 }, { transA: true, transB: false, add: false }),
  matmulCase({ m: 64, n: 64, k: 32 }, { transA: false, transB: true, add: false }),
  ...[false, true].flatMap((transA) =>
    [false, true].map((transB) => matmulCase({ m: 20, n: 140, k: 12 }, { transA, transB, add: transA !== transB })),
  ),
  matmulCase({ m: 4, n: 4, k: 4 }, { transA: false, transB: true, add: true }),
  // Around the largest tile, and sums that are cut into parts, the last one of three values or of four.
  ...[
    [129, 127, 33],
    [132, 124, 36],
    [33, 31, 131],
    [36, 28, 516],
  ].flatMap(([m = 0, n = 0, k = 0]) =>
    [false, true].flatMap((transA) =>
      [false, true].map((transB) => matmulCase({ m, n, k }, { transA, transB, add: transA === transB, bias: transA })),
    ),
  ),
  matmulCase({ m: 513, n: 512, k: 3 }, { transA: false, transB: false, add: false }),
  matmulInPlaceCase(),
  gradientsCase(),
  ...[
    [1, 1, 1],
    [31, 33, 17],
    [65, 63, 37],
    [20, 140, 12],
    [68, 36, 8],
  ].flatMap(([m = 0, n = 0, k = 0]) =>
    [false, true].map((add) => matmulCase({ m, n, k }, { transA: add, transB: true, add, bias: true })),
  ),
  ...[
    [1, 1, 1],
    [31, 33, 17],
    [20, 140, 12],
    [68, 36, 8],
  ].map(([m = 0, n = 0, k = 0]) => gatedCase(m, n, k)),
  ...[
    [1, 1],
    [7, 13],
    [65, 64],
    [3, 257],
  ].map(([n = 0, c = 0]) => embeddingCase(n, c)),
  ...[
    [1, 1, 1],
    [7, 13, 5],
    [129, 11, 65],
  ].flatMap(([n = 0, v = 0, c = 0]) => [false, true].map((add) => embeddingBackwardCase(n, v, c, add))),
  ...[
    [1, 1],
    [7, 13],
    [5, 63],
    [3, 65],
    [2, 1025],
    [17, 4],
    [15, 64],
    [3, 1028],
    [4099, 13],
  ].flatMap(([n = 0, c = 0]) => [rmsNormCase(n, c), rmsNormBackwardCase(n, c, n % 2 === 1)]),
  ...[1, 7, 13].flatMap((time) => [false, true].map((inverse) => ropeCase(time, time === 7 ? 2 : 10, inverse))),
  ropeCase(300, 32, false),
  ...[
    { batch: 1, time: 1, heads: 1, kvHeads: 1, headDim: 4 },
    { batch: 2, time: 7, heads: 2, kvHeads: 1, headDim: 6 },
    { batch: 2, time: 15, heads: 4, kvHeads: 2, headDim: 16 },
    { batch: 1, time: 17, heads: 3, kvHeads: 3, headDim: 20 },
    { batch: 1, time: 33, heads: 2, kvHeads: 1, headDim: 128 },
    { batch: 1, time: 63, heads: 2, kvHeads: 1, headDim: 8 },
    { batch: 2, time: 65, heads: 4, kvHeads: 2, headDim: 12 },
    { batch: 1, time: 67, heads: 2, kvHeads: 1, headDim: 64 },
    { batch: 1, time: 129, heads: 4, kvHeads: 2, headDim: 32 },
  ].flatMap((shape) => [attentionCase(shape), attentionBackwardCase(shape)]),
  ...[
    [1, 1],
    [7, 31],
    [8, 33],
    [9, 257],
    [131, 13],
  ].map(([m = 0, n = 0]) => sumRowsCase(m, n)),
  // Multiples of 4 are taken by fours: 255, 256 and 257 of them are one under, all and one over of a workgroup.
  ...[1, 7, 1023, 1025, 4, 1020, 1024, 1028].flatMap((count) => [
    swigluCase(count),
    swigluBackwardCase(count),
    addCase(count),
  ]),
  ...[
    [1, 1],
    [7, 13],
    [5, 63],
    [3, 65],
    [2, 1031],
    [17, 4],
    [15, 64],
    [2, 1032],
  ].flatMap(([n = 0, v = 0]) => [crossEntropyCase(n, v), crossEntropyBackwardCase(n, v)]),
  crossEntropyCase(257, 3),
  ...[1, 7, 255, 257, 70_001].map(normCase),
  ...[1, 7, 1023, 1025, 1028].map((count) => adamwCase(count, count === 7 ? 0 : 1)),
  ...[4, 1020, 1024, 1028].map((count) => adamwCase(count, 1, 4 * Math.floor(count / 8))),
  muonCase("1×1", 0, 0),
  muonCase("1×9, 9×1, 3×70, 33×70, 70×33", 1, 0.1),
  muonCase("8×4, 20×140, 140×20, 36×36", 0, 0.1),
  muonCase("64×128, 128×64, 352×128", 1, 0),
  ...updateCases,
  modelCase("tied", { tied: true, kvHeads: 2, channels: 32 }),
  modelCase("untied", { tied: false, kvHeads: 2, channels: 32 }),
  modelCase("with muon", { tied: true, kvHeads: 2, channels: 32 }, { options: { muon: true } }),
  {
    ...modelCase("in fours", { tied: true, kvHeads: 2, channels: 32, time: 20, vocabulary: 64 }),
    op: "model in fours",
  },
  ...[true, false].map((tied) => {
    // Two micro-batches of 95 rows, each with logits of 64 and of 31.
    const options = { accumulate: 2, recompute: true, logitsBytesMax: 64 * 61 * 4 };
    const label = `${tied ? "tied" : "untied"} in micro-batches and chunks, recomputed`;
    const part = { tied, kvHeads: 2, channels: 32, layers: 3 };
    return { ...modelCase(label, part, { batch: 10, options }), op: "model in parts" as const };
  }),
];

/** Uniform in [−1, 1). */
function floats(rng: Rng, shape: readonly number[], scale = 1): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: elementCount(shape) }, () => (rng.float() * 2 - 1) * scale);
}

function tokensBelow(rng: Rng, n: number, vocabulary: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length: n }, () => rng.below(vocabulary));
}

/** A Program of one op. `build` records it with f32 inputs that `input` declares and fills; it returns the outputs' ids. */
function opCase(
  op: Case["op"],
  label: string,
  build: (r: Recorder, input: (name: string, shape: readonly number[], values?: Values) => TensorId) => TensorId[],
  { tolerance = close, floor = 0 }: { tolerance?: number; floor?: number } = {},
): Case {
  const name = `${op} ${label}`;
  return {
    name,
    op,
    tolerance,
    floor,
    setup: () => {
      const rng = createRng("engines", name);
      const r = record(name);
      const inputs: Record<string, Values> = {};
      const input = (label_: string, shape: readonly number[], values?: Values): TensorId => {
        inputs[label_] = values ?? floats(rng, shape);
        return r.input(label_, shape, values instanceof Uint32Array ? "u32" : "f32");
      };
      const outputs = build(r, input);
      const { tensors } = r.finish([]);
      const program = r.finish(outputs.map((id) => tensors[id]?.name ?? ""));
      return { program, inputs: () => inputs, states: {}, steps: 1 };
    },
  };
}

export function matmulCase(
  { m, n, k }: { m: number; n: number; k: number },
  form: { transA: boolean; transB: boolean; add: boolean; bias?: boolean },
): Case {
  const { transA, transB, add, bias = false } = form;
  const sums = `${add ? " + add" : ""}${bias ? " + bias" : ""}`;
  const label = `${m}×${k}${transA ? " transposed" : ""} · ${k}×${n}${transB ? " transposed" : ""}${sums}`;
  const op = [m, n, k].every((length) => length % 4 === 0) ? "matmul in fours" : "matmul";
  return opCase(op, label, (r, input) => {
    const a = input("a", transA ? [k, m] : [m, k]);
    const b = input("b", transB ? [n, k] : [k, n]);
    const addend = add ? { add: input("add", [m, n]) } : {};
    return [r.matmul(a, b, { transA, transB, ...addend, ...(bias ? { bias: input("bias", [n]) } : {}) })];
  });
}

/** A gated layer of rows [M,K] and its way back: what goes on with products where they are stored, on every rung. */
export function gatedCase(m: number, n: number, k: number): Case {
  const op = [m, n, k].every((length) => length % 4 === 0) ? "matmul in fours" : "matmul";
  return opCase(op, `${m}×${k} · ${k}×${n}, gated, and back`, (r, input) => {
    const [x, dout] = [input("x", [m, k]), input("dout", [m, k])];
    const gate = r.matmul(x, input("w", [n, k]), { transB: true, bias: input("bias", [n]) });
    const up = r.matmul(x, input("v", [k, n]));
    const gated = r.swiglu(gate, up);
    const dgated = r.matmul(dout, input("down", [k, n]));
    const ddown = r.matmul(dout, gated, { transA: true });
    const [dgate, dup] = [r.value("dgate", [m, n]), r.value("dup", [m, n])];
    r.push({ type: "swigluBackward", gate, up, dout: dgated, dgate, dup });
    return [up, gated, ddown, dgate, dup, r.add(r.matmul(x, input("u", [k, n])), up)];
  });
}

/** Accumulates into one window of a state while another window of it is read. */
function matmulInPlaceCase(): Case {
  return {
    name: "matmul in place, operand in the same state",
    op: "matmul",
    tolerance: close,
    setup: () => {
      const rng = createRng("engines", "in place");
      const r = record("in place");
      const state = r.state("weights", [128]);
      const a = r.view("a", state, 0, [5, 7]);
      const out = r.view("sum", state, 64, [5, 3]);
      r.matmul(a, r.input("b", [7, 3]), { add: out, out });
      const b = floats(rng, [7, 3]);
      const program = r.finish(["weights"]);
      return { program, inputs: () => ({ b }), states: { weights: floats(rng, [128]) }, steps: 2 };
    },
  };
}

/** Three gradients of weights over many rows and one of what they were multiplied with: one dispatch, where ops share them. */
function gradientsCase(): Case {
  return opCase("matmul in fours", "gradients of 260 rows beside each other", (r, input) => {
    const [x, dout] = [input("x", [260, 12]), input("dout", [260, 20])];
    const tn = { transA: true, transB: false };
    const first = r.matmul(x, dout, { ...tn, add: input("add", [12, 20]) });
    const second = r.matmul(x, input("other", [260, 8]), tn);
    return [first, second, r.matmul(x, input("third", [260, 4]), tn), r.matmul(dout, input("w", [20, 8]))];
  });
}

function embeddingCase(n: number, c: number): Case {
  const tokens = tokensBelow(createRng("tokens", n), n, 17);
  return opCase(
    "embedding",
    `${n} rows of ${c}`,
    (r, input) => [r.embedding(input("table", [17, c]), input("tokens", [n], tokens))],
    { tolerance: 0 },
  );
}

function embeddingBackwardCase(n: number, v: number, c: number, add: boolean): Case {
  return opCase("embeddingBackward", `${n} rows into ${v}×${c}${add ? " + add" : ""}`, (r, input) => {
    const sorted = sortTokens(tokensBelow(createRng("tokens", n), n, v), v);
    const dtable = r.value("dtable", [v, c]);
    r.push({
      type: "embeddingBackward",
      dout: input("dout", [n, c]),
      order: input("order", [n], sorted.order),
      offsets: input("offsets", [v + 1], sorted.offsets),
      ...(add ? { add: input("add", [v, c]) } : {}),
      dtable,
    });
    return [dtable];
  });
}

export function rmsNormCase(n: number, c: number): Case {
  return opCase("rmsNorm", `${n}×${c}`, (r, input) => {
    const out = r.rmsNorm(input("x", [n, c]), input("gain", [c]), 1e-5);
    return [out, out + 1];
  });
}

function rmsNormBackwardCase(n: number, c: number, add: boolean): Case {
  return opCase("rmsNormBackward", `${n}×${c}${add ? " + add" : ""}`, (r, input) => {
    const [dx, dgain] = [r.value("dx", [n, c]), r.value("dgain", [c])];
    const [x, gain, dout] = [input("x", [n, c]), input("gain", [c]), input("dout", [n, c])];
    const rstd = r.rmsNorm(x, gain, 1e-5) + 1;
    const addend = add ? { add: input("add", [n, c]) } : {};
    r.push({ type: "rmsNormBackward", x, gain, rstd, dout, ...addend, dx, dgain });
    return [dx, dgain];
  });
}

export function ropeCase(time: number, headDim: number, inverse: boolean): Case {
  return opCase("rope", `T ${time} D ${headDim}${inverse ? " inverse" : ""}`, (r, input) => [
    r.rope(input("x", [2 * time, 3 * headDim]), { time, headDim, base: 10_000, inverse }),
  ]);
}

interface Heads {
  readonly batch: number;
  readonly time: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

function headsLabel({ batch, time, heads, kvHeads, headDim }: Heads): string {
  return `B ${batch} T ${time} H ${heads} K ${kvHeads} D ${headDim}`;
}

export function attentionCase(shape: Heads): Case {
  const { batch, time, heads, kvHeads, headDim } = shape;
  return opCase("attention", headsLabel(shape), (r, input) => {
    const kv = [batch * time, kvHeads * headDim];
    const out = r.attention(input("q", [batch * time, heads * headDim]), input("k", kv), input("v", kv), shape);
    return [out, out + 1];
  });
}

export function attentionBackwardCase(shape: Heads): Case {
  const { batch, time, heads, kvHeads, headDim } = shape;
  const build = (r: Recorder, input: (name: string, shape: readonly number[]) => TensorId): TensorId[] => {
    const [queries, kv] = [
      [batch * time, heads * headDim],
      [batch * time, kvHeads * headDim],
    ];
    const [q, k, v, dout] = [input("q", queries), input("k", kv), input("v", kv), input("dout", queries)];
    const out = r.attention(q, k, v, shape);
    const [dq, dk, dv] = [r.value("dq", queries), r.value("dk", kv), r.value("dv", kv)];
    const delta = r.value("delta", [batch * heads * time]);
    r.push({ type: "attentionBackward", q, k, v, out, lse: out + 1, dout, delta, dq, dk, dv, ...shape });
    return [dq, dk, dv];
  };
  return opCase("attentionBackward", headsLabel(shape), build, { floor: 0.1 });
}

export function swigluCase(count: number): Case {
  return opCase("swiglu", `${count}`, (r, input) => [
    r.swiglu(input("gate", [1, count], floats(createRng("gate"), [count], 30)), input("up", [1, count])),
  ]);
}

export function swigluBackwardCase(count: number): Case {
  return opCase("swigluBackward", `${count}`, (r, input) => {
    const [dgate, dup] = [r.value("dgate", [1, count]), r.value("dup", [1, count])];
    const [gate, up, dout] = [input("gate", [1, count]), input("up", [1, count]), input("dout", [1, count])];
    r.push({ type: "swigluBackward", gate, up, dout, dgate, dup });
    return [dgate, dup];
  });
}

function addCase(count: number): Case {
  return opCase("add", `${count}`, (r, input) => [r.add(input("a", [1, count]), input("b", [1, count]))]);
}

function sumRowsCase(m: number, n: number): Case {
  return opCase("sumRows", `${m}×${n}`, (r, input) => [r.sumRows(input("x", [m, n]))]);
}

function crossEntropyCase(n: number, v: number): Case {
  const targets = tokensBelow(createRng("targets", n), n, v);
  return opCase("crossEntropy", `${n}×${v}`, (r, input) => {
    const logits = input("logits", [n, v], floats(createRng("logits"), [n, v], 20));
    const { losses, loss } = r.crossEntropy(logits, input("targets", [n], targets));
    return [losses, loss];
  });
}

function crossEntropyBackwardCase(n: number, v: number): Case {
  const targets = tokensBelow(createRng("targets", n), n, v);
  return opCase("crossEntropyBackward", `${n}×${v}`, (r, input) => {
    const dlogits = r.value("dlogits", [n, v]);
    const logits = input("logits", [n, v], floats(createRng("logits"), [n, v], 20));
    r.push({ type: "crossEntropyBackward", logits, targets: input("targets", [n], targets), count: n + 1, dlogits });
    return [dlogits];
  });
}

function normCase(count: number): Case {
  return opCase("norm", `${count}`, (r, input) => [r.norm(input("x", [count]))]);
}

function adamwCase(count: number, clip: number, decayCount = Math.floor(count / 2)): Case {
  const name = `adamw ${count}, ${decayCount} decay${clip > 0 ? ", clipped" : ""}`;
  return {
    name,
    op: "adamw",
    tolerance: close,
    setup: () => {
      const rng = createRng("engines", name);
      const r = record(name);
      const shape = [count];
      const [params, m, v] = [r.state("params", shape), r.state("m", shape), r.state("v", shape)];
      const grads = r.input("grads", shape);
      r.push({ type: "adamw", params, grads, m, v, norm: r.norm(grads), hyper: r.input("hyper", [8]), decayCount });
      const g = floats(rng, shape);
      const states = { params: floats(rng, shape), m: new Float32Array(count), v: new Float32Array(count) };
      const program = r.finish(["params", "m", "v"]);
      return { program, inputs: (step) => ({ grads: g, hyper: hyper(step, clip) }), states, steps: 2 };
    },
  };
}

function hyper(step: number, clip: number): Float32Array<ArrayBuffer> {
  return Float32Array.of(1e-2, 0.9, 0.95, 1e-4, 0.1, clip, 1 / (1 - 0.9 ** step), 1 / (1 - 0.95 ** step));
}

/**
 * Two steps of Muon on matrices with something between and after them, at a rate that makes updates as large as parameters. What
 * f32 makes of tiny singular values grows by 3.4445⁵ = 485 at most; normal numbers have few, and engines stay below 2e-6.
 */
function muonCase(shapes: string, clip: number, decay: number): Case {
  const name = `muon ${shapes}${clip > 0 ? ", clipped" : ""}${decay > 0 ? ", decayed" : ""}`;
  const setup = (): Setup => {
    const rng = createRng("engines", name);
    let size = 64;
    const matrices = shapes.split(", ").map((shape) => {
      const [rows = 0, columns = 0] = shape.split("×").map(Number);
      const offset = size;
      size += 64 * (1 + Math.ceil((rows * columns) / 64));
      return { offset, rows, columns };
    });
    const r = record(name);
    const [params, m, grads] = [r.state("params", [size]), r.state("m", [size]), r.input("grads", [size])];
    r.muon({ params, grads, m, norm: r.norm(grads), hyper: r.input("hyper", [4]), matrices });
    const normal = (scale: number): Float32Array<ArrayBuffer> =>
      Float32Array.from({ length: size }, () => rng.normal() * scale);
    const inputs = () => ({ grads: normal(1), hyper: Float32Array.of(1, 0.9, decay, clip) });
    const [first, second] = [inputs(), inputs()];
    const states = { params: normal(0.1), m: normal(0.1) };
    return { program: r.finish(["params", "m"]), inputs: (step) => (step === 1 ? first : second), states, steps: 2 };
  };
  return { name, op: "muon", tolerance: close, setup };
}

/** Three training steps of a whole small model, from the initial weights that a run would start with. */
export function modelCase(
  label: string,
  part: Pick<ModelConfig, "tied" | "kvHeads" | "channels"> & Partial<ModelConfig>,
  { batch = 2, options = {} }: { batch?: number; options?: TrainOptions } = {},
): Case {
  const config: ModelConfig = {
    vocabulary: 61,
    layers: 2,
    heads: 4,
    hidden: 56,
    time: 19,
    ropeBase: 10_000,
    normEps: 1e-5,
    seed: 7,
    ...part,
  };
  return {
    name: `model ${label}, three training steps`,
    op: "model",
    tolerance: 1e-4,
    setup: () => {
      const { accumulate = 1 } = options;
      const N = (batch / accumulate) * config.time;
      const step = trainProgram(config, batch, options);
      // Muon leaves nothing that is defined in grads.
      const left = options.muon === true ? [] : ["grads"];
      const program = { ...step, outputs: [...step.outputs, ...left, "params", "m", "v"] };
      const rng = createRng("engines", label);
      const fixed: Record<string, Values> = {};
      for (let i = 0; i < accumulate; i += 1) {
        const tokens = tokensBelow(rng, N, config.vocabulary);
        const sorted = sortTokens(tokens, config.vocabulary);
        const inputs = { tokens, ...sorted, targets: tokensBelow(rng, N, config.vocabulary) };
        Object.entries(inputs).forEach(([name, values]) => (fixed[microBatchName(name, i)] = values));
      }
      if (options.muon === true) {
        fixed["muon"] = Float32Array.of(1e-2, 0.9, 0.1, 1);
      }
      const params = initialParameters(config);
      return { program, inputs: (at) => ({ ...fixed, hyper: hyper(at, 1) }), states: { params }, steps: 3 };
    },
  };
}
