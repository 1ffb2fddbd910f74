/**
 * The contract where values may be kept as f16: every op that may read or write such values (`gpu/storage.ts`) between
 * products with the identity, which is what makes values of its operands and of its results; and a step of a whole model.
 * The inputs are f16 already, so that what is kept on the way in is exact and each result is rounded once.
 */
import { renamed, tensorNamed, type Tensor, type TensorId } from "../../src/tensor/program.ts";
import { record } from "../../src/tensor/record.ts";
import {
  attentionBackwardCase,
  attentionCase,
  gatedCase,
  matmulCase,
  modelCase,
  rmsNormCase,
  ropeCase,
  swigluBackwardCase,
  swigluCase,
  type Case,
  type Setup,
  type Values,
} from "./cases.ts";

/** Rounding to 11 bits moves a number by this share of itself at most. */
const UNIT = 2 ** -11;
/**
 * One rounding, and what f32 leaves. The square of a rounding is on average a third of the largest one's, where all numbers
 * are just above a power of two; spread over a binade it is a seventh.
 */
const ONCE = { tolerance: UNIT + 1e-5, nmseMax: UNIT ** 2 / 3 };
/** The products, what is gated with them and their own errors in it: a few roundings on each way. */
const GATED = { tolerance: 4 * UNIT, nmseMax: UNIT ** 2 };
/**
 * A gradient of two layers goes through 14 roundings at most, seven in each: norm, product, turn, attention; norm, product,
 * gating. They are independent, so their squares add up. Measured: 1.2e-4 and 3e-8.
 */
const STEP = { tolerance: 1e-3, nmseMax: (14 * UNIT ** 2) / 3 };

const HEADS = [
  { batch: 2, time: 7, heads: 2, kvHeads: 1, headDim: 6 },
  { batch: 2, time: 15, heads: 4, kvHeads: 2, headDim: 16 },
  { batch: 1, time: 33, heads: 2, kvHeads: 1, headDim: 128 },
  { batch: 2, time: 65, heads: 4, kvHeads: 2, headDim: 12 },
];

export const halfCases: readonly Case[] = [
  ...[false, true].flatMap((transA) =>
    [false, true].flatMap((transB) =>
      [
        { m: 30, n: 34, k: 18 },
        { m: 20, n: 140, k: 12 },
      ].map((size) => matmulCase(size, { transA, transB, add: false })),
    ),
  ),
  matmulCase({ m: 66, n: 62, k: 38 }, { transA: false, transB: true, add: true }),
  matmulCase({ m: 64, n: 64, k: 32 }, { transA: false, transB: true, add: true }),
  matmulCase({ m: 36, n: 28, k: 516 }, { transA: false, transB: true, add: false }),
  matmulCase({ m: 31, n: 34, k: 18 }, { transA: false, transB: true, add: false, bias: true }),
  matmulCase({ m: 68, n: 36, k: 8 }, { transA: true, transB: true, add: false, bias: true }),
  rmsNormCase(7, 14),
  rmsNormCase(15, 64),
  rmsNormCase(2, 1026),
  ropeCase(7, 2, false),
  ropeCase(13, 10, false),
  ...HEADS.flatMap((shape) => [attentionCase(shape), attentionBackwardCase(shape)]),
  ...[2, 1022, 1026].flatMap((count) => [swigluCase(count), swigluBackwardCase(count)]),
]
  .map((one) => throughHalves(one, ONCE))
  .concat(
    ...[
      [31, 34, 18],
      [20, 140, 12],
    ].map(([m = 0, n = 0, k = 0]) => throughHalves(gatedCase(m, n, k), GATED)),
    stepOf(modelCase("in fours", { tied: true, kvHeads: 2, channels: 32, time: 20, vocabulary: 64 }), "model in fours"),
    stepOf(
      modelCase(
        "untied in micro-batches and chunks, recomputed",
        { tied: false, kvHeads: 2, channels: 32, layers: 3 },
        { batch: 10, options: { accumulate: 2, recompute: true, logitsBytesMax: 64 * 61 * 4 } },
      ),
      "model in parts",
    ),
  );

/** The loss and the gradients of the first step: AdamW divides small gradients by themselves, errors and all. */
export function stepOf(one: Case, op: Case["op"]): Case {
  const setup = (): Setup => {
    const { program, ...rest } = one.setup();
    const outputs = program.outputs.filter((name) => /^(loss|norm|grads)/.test(name));
    return { ...rest, program: { ...program, outputs }, steps: 1 };
  };
  return { ...one, op, name: `${one.name}: the first, with f16`, ...STEP, setup };
}

function throughHalves(one: Case, errors: Pick<Case, "tolerance" | "nmseMax">): Case {
  return { ...one, name: `${one.name}, through f16`, ...errors, setup: () => surrounded(one.setup()) };
}

/** The setup of one op with a product by the identity before each matrix that it reads and after each that it writes. */
function surrounded({ program, inputs, ...rest }: Setup): Setup {
  const r = record(program.name, { ...program, ops: [], outputs: [] });
  const identities = new Map<number, { readonly id: TensorId; readonly name: string }>();
  const kept = (id: TensorId): TensorId => {
    const [, width = 1] = r.shapeOf(id);
    const name = `identity ${width}`;
    const identity = identities.get(width) ?? { id: r.input(name, [width, width]), name };
    identities.set(width, identity);
    return r.matmul(id, identity.id, { out: r.value(`${program.tensors[id]?.name} kept`, r.shapeOf(id)) });
  };
  const isMatrix = ({ shape, dtype }: Tensor): boolean => shape.length === 2 && dtype === "f32";
  const read = program.tensors.filter((tensor) => tensor.role === "input" && isMatrix(tensor));
  const names = new Map(read.map(({ id }) => [id, kept(id)]));
  program.ops.forEach((op) => r.push(renamed(op, names)));
  const outputs = program.outputs.map((name) => tensorNamed(program, name));
  const last = outputs.map((tensor) => (isMatrix(tensor) ? kept(tensor.id) : tensor.id));
  const { tensors } = r.finish([]);
  const fixed = Object.fromEntries([...identities].map(([width, { name }]) => [name, identityOf(width)]));
  const exact = (values: Values): Values => (values instanceof Float32Array ? toHalves(values) : values);
  return {
    ...rest,
    program: r.finish(last.map((id) => tensors[id]?.name ?? "")),
    inputs: (step) => ({
      ...Object.fromEntries(Object.entries(inputs(step)).map(([name, values]) => [name, exact(values)])),
      ...fixed,
    }),
  };
}

function identityOf(width: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: width * width }, (_, i) => (i % (width + 1) === 0 ? 1 : 0));
}

/** Multiples of 2^-10 of the power of two above the largest: all of them are f16. */
function toHalves(values: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 2 ** -10);
  const unit = 2 ** (Math.ceil(Math.log2(largest)) - 10);
  return values.map((value) => Math.round(value / unit) * unit);
}
