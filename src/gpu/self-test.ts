/**
 * The conformance self-test: a small model with every op, trained for two steps on the engine and on the twin; on a real GPU
 * also products and attention of the size that its large tiles are for, which small ones give way for. A device that
 * disagrees does not train. Gradients are tested too, not only the forward pass: phones have been seen that compute every
 * forward right and every gradient zero.
 */
import { HeddleError, present } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import type { Engine, Outputs } from "../tensor/engine.ts";
import { grad } from "../tensor/grad.ts";
import { elementCount, tensorNamed, writesOf, type Op, type Program, type TensorId } from "../tensor/program.ts";
import { record, sortTokens } from "../tensor/record.ts";
import { createTwin } from "../tensor/twin.ts";
import type { KernelChoice } from "./kernels.ts";
import { inputsOf } from "./trials.ts";

/**
 * Largest difference allowed, as a share of the tensor's largest element, by how values are kept. Devices stay below 1e-5
 * with f32; f16 that are rounded to nearest give 2e-3, and WGSL lets a device round them to either side.
 */
const SELF_TEST_TOLERANCES: Readonly<Record<KernelChoice["storage"], number>> = { f32: 1e-3, f16: 6e-3 };

/** Multiples of 4, so that a device is tested on the kernels it will train with; no tile divides the 40 rows or the 36 words. */
const B = 2;
const T = 20;
const C = 32;
const F = 32;
const V = 36;
const HEADS = { batch: B, time: T, heads: 4, kvHeads: 2, headDim: 8 };
const STEPS = 2;

/** Forms of products that training has: forward, and the ways back to what was multiplied and to the weights. */
const FORMS = [
  { form: "nt", transA: false, transB: true },
  { form: "nn", transA: false, transB: false },
  { form: "tn", transA: true, transB: false },
] as const;
/**
 * Three products that share a dispatch, as a layer's do, and are large enough together for large tiles (`matmul.ts`). Those of every
 * rung fill the first one, and do not the second; the third has so few that its sum of 1,024 terms is cut.
 */
const [ROWS, TERMS] = [256, 1024];
const COLUMNS = [1152, 508, 36];
/** More than two blocks of rows, and ten tiles of keys at least, of every rung of attention. */
const ATTENDED = { batch: 1, time: 160, heads: 2, kvHeads: 1 };
/** So large are queries that a row's running maximum moves from tile to tile. */
const QUERY_SCALE = 16;

export interface SelfTestOptions {
  /** How the engine keeps values. */
  readonly storage?: KernelChoice["storage"] | undefined;
  /** Width of a head of the model that is to be trained: attention's kernels differ by it. */
  readonly headDim?: number | undefined;
}

/**
 * Throws HeddleError "device-wrong" with the op that is off and by how much, or the device's own failure. A `software` adapter takes no
 * large tiles by itself, and is spared them.
 */
export async function selfTest(
  engine: Engine & { readonly software?: boolean },
  { storage = "f32", headDim = 64 }: SelfTestOptions = {},
): Promise<void> {
  const tolerance = SELF_TEST_TOLERANCES[storage];
  await testOps(engine, tolerance);
  if (engine.kind === "webgpu" && engine.software !== true) {
    // They compile at the same time.
    const outcomes = await Promise.allSettled(sizeTests(headDim).map((one) => testSize(engine, one, tolerance)));
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") {
        throw outcome.reason;
      }
    }
  }
}

/** Every op, in the small. */
async function testOps(engine: Engine, tolerance: number): Promise<void> {
  const program = selfTestProgram();
  using twin = createTwin();
  const [expected, got] = [await trainOn(twin, program), await trainOn(engine, program)];
  for (const [name, values] of expected) {
    const computed = present(got.get(name), name);
    for (const { label, from, to } of partsOf(program, name)) {
      const difference = largestDifference(computed.subarray(from, to), values.subarray(from, to));
      // Written so that a NaN fails too.
      if (!(difference <= tolerance)) {
        const first = await firstWrong(engine, program, tolerance);
        const where = first === undefined ? label : `op "${first.op}" ("${first.name}")`;
        throw wrong(where, first?.difference ?? difference, tolerance);
      }
    }
  }
}

interface Part {
  readonly label: string;
  /** Its first element, and the one behind its last. */
  readonly from: number;
  readonly to?: number;
}

/** What is held against its own largest element: of gradients each tensor's, for attention's are a fiftieth of the table's. */
function partsOf(program: Program, output: string): Part[] {
  const params = tensorNamed(program, "params").id;
  return output.endsWith("grads")
    ? program.tensors.flatMap(({ name, shape, view }) =>
        view?.of === params
          ? [{ label: `"${output}" of "${name}"`, from: view.offset, to: view.offset + elementCount(shape) }]
          : [],
      )
    : [{ label: `"${output}"`, from: 0 }];
}

function wrong(where: string, difference: number, tolerance: number): HeddleError {
  return new HeddleError(
    "device-wrong",
    `This device computes wrong numbers and cannot train: ${where} is off by ${difference.toExponential(1)} of its largest element, allowed is ${tolerance}`,
  );
}

/** The first op whose result differs from the twin's, with every result of one step kept; undefined when then none does. */
async function firstWrong(
  engine: Engine,
  program: Program,
  tolerance: number,
): Promise<{ readonly op: string; readonly name: string; readonly difference: number } | undefined> {
  const last = new Map(program.ops.flatMap((op) => writesOf(op).map((id) => [id, op])));
  // Muon's own memory holds nothing that is defined.
  const isDefined = (id: TensorId, op: Op): boolean => op.type !== "muon" || id === op.params || id === op.m;
  const written = [...last].filter(([id, op]) => program.tensors[id]?.view === undefined && isDefined(id, op));
  const names = written.map(([id]) => present(program.tensors[id], `tensor ${id}`).name);
  using twin = createTwin();
  const kept = { ...program, name: "self-test, op by op", outputs: names };
  const [expected, got] = [await trainOn(twin, kept, 1), await trainOn(engine, kept, 1)];
  for (const [i, [, { type }]] of written.entries()) {
    const name = present(names[i], "name");
    const difference = largestDifference(
      present(got.get(`first ${name}`), name),
      present(expected.get(`first ${name}`), name),
    );
    if (!(difference <= tolerance)) {
      return { op: type, name, difference };
    }
  }
  return undefined;
}

/** Largest |a − b|, divided by the largest |b|; NaN if any element is. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < b.length; i += 1) {
    difference = Math.max(difference, Math.abs((a[i] as number) - (b[i] as number)));
    largest = Math.max(largest, Math.abs(b[i] as number));
  }
  return largest === 0 ? difference : difference / largest;
}

/** One block of a decoder with tied embeddings, its gradients, AdamW and Muon: every op at least once. */
function selfTestProgram(): Program {
  const forward = record("self-test");
  const tokens = forward.input("tokens", [B * T], "u32");
  const targets = forward.input("targets", [B * T], "u32");
  const shapes = {
    table: [V, C],
    q: [C, C],
    k: [16, C],
    v: [16, C],
    o: [C, C],
    gate: [F, C],
    up: [F, C],
    down: [C, F],
  };
  const sizes = Object.values({ ...shapes, gain: [64] }).map(([m = 1, n = 1]) => Math.ceil((m * n) / 64) * 64);
  const params = forward.state("params", [sizes.reduce((sum, size) => sum + size, 0)]);
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
  const view = (name: keyof typeof shapes): number =>
    forward.view(name, params, starts[Object.keys(shapes).indexOf(name)] as number, shapes[name]);
  const gain = forward.view("gain", params, starts.at(-1) as number, [C]);
  const table = view("table");
  const turn = { time: T, headDim: HEADS.headDim, base: 10_000 };
  const x = forward.embedding(table, tokens); // [N,C]
  const normed = forward.rmsNorm(x, gain, 1e-5);
  const q = forward.rope(forward.matmul(normed, view("q"), { transB: true }), turn);
  const k = forward.rope(forward.matmul(normed, view("k"), { transB: true }), turn);
  const v = forward.matmul(normed, view("v"), { transB: true });
  const attended = forward.attention(q, k, v, HEADS); // [N,C]
  const mixed = forward.add(forward.matmul(attended, view("o"), { transB: true }), x);
  const gate = forward.matmul(mixed, view("gate"), { transB: true });
  const gated = forward.swiglu(gate, forward.matmul(mixed, view("up"), { transB: true })); // [N,F]
  const out = forward.matmul(gated, view("down"), { transB: true, add: mixed }); // [N,C]
  forward.crossEntropy(forward.matmul(out, table, { transB: true }), targets);
  const differentiated = grad(forward.finish(["loss"]), { loss: "loss" });
  const r = record("self-test", differentiated);
  const size = r.shapeOf(params);
  const grads = tensorNamed(differentiated, "grads").id;
  const [m, second] = [r.state("m", size), r.state("v.moment", size)];
  const hyper = r.input("hyper", [8]);
  const norm = r.norm(grads);
  r.push({ type: "adamw", params, grads, m, v: second, norm, hyper, decayCount: starts.at(-1) as number });
  // On numbers that the host gives: what a device rounds in gradients would grow in tiny singular values.
  const matrices = Object.values(shapes).map(([rows = 0, columns = 0], i) => ({
    offset: starts[i] as number,
    rows,
    columns,
  }));
  const given = { params: r.state("params.given", size), grads: r.input("given", size), m: r.state("m.given", size) };
  r.muon({ ...given, norm, hyper: r.input("muon", [4]), matrices });
  return r.finish(["loss", "norm", "grads", "params", "params.given"]);
}

/** Runs steps from the same beginning; returns every output of the Program, and those of the first step as "first …". */
async function trainOn(engine: Engine, program: Program, steps = STEPS): Promise<Map<string, Float32Array>> {
  using plan = await engine.compile(program);
  const rng = createRng("self-test");
  const params = new Float32Array(tensorNamed(program, "params").shape[0] as number);
  engine.writeState(
    "params",
    params.map(() => rng.float() - 0.5),
  );
  for (const state of ["m", "v.moment", "m.given", "params.given"]) {
    engine.writeState(state, new Float32Array(params.length));
  }
  const tokens = Uint32Array.from({ length: B * T }, () => rng.below(V));
  const { order, offsets } = sortTokens(tokens, V);
  plan.write("tokens", tokens);
  plan.write("targets", tokens.toReversed());
  plan.write("order", order);
  plan.write("offsets", offsets);
  const read = new Map<string, Float32Array>();
  for (let step = 1; step <= steps; step += 1) {
    const [c1, c2] = [1 / (1 - 0.9 ** step), 1 / (1 - 0.95 ** step)];
    plan.write("hyper", Float32Array.of(1e-3, 0.9, 0.95, 1e-6, 0.1, 1, c1, c2));
    plan.write("muon", Float32Array.of(1, 0.9, 0.1, 0));
    plan.write(
      "given",
      params.map(() => rng.float() - 0.5),
    );
    const outputs = await plan.run(step === 1 && steps > 1 ? ["loss", "grads"] : program.outputs);
    for (const [output, values] of Object.entries(outputs)) {
      read.set(step === 1 ? `first ${output}` : output, values);
    }
  }
  return read;
}

/** What is tested at the size that it is for. */
export interface SizeTest {
  readonly program: Program;
  readonly inputs: ReadonlyMap<string, Float32Array>;
  /** By op and output, the largest difference from what is right, as a share of the largest. */
  differences(outputs: Outputs<string>): Promise<ReadonlyMap<string, number>>;
}

/** Products and attention as they are in a model, one Program for each kernel. */
export function sizeTests(headDim: number): SizeTest[] {
  return [...FORMS.map(productTest), attentionTest(headDim)];
}

/** Throws as `selfTest` does. */
export async function testSize(
  engine: Engine,
  { program, inputs, differences }: SizeTest,
  tolerance: number,
): Promise<void> {
  using plan = await engine.compile(program);
  inputs.forEach((values, name) => plan.write(name, values));
  for (const [where, difference] of await differences(await plan.run(program.outputs))) {
    if (!(difference <= tolerance)) {
      throw wrong(where, difference, tolerance);
    }
  }
}

/**
 * Products of one form against sums in double precision. Their elements are too many to be computed a second time, so each row is added
 * up with signs drawn at random, which takes the operands one pass each and lets no single element be wrong.
 */
function productTest({ form, transA, transB }: (typeof FORMS)[number]): SizeTest {
  const r = record(`self-test, ${form}`);
  const x = r.input("x", transA ? [TERMS, ROWS] : [ROWS, TERMS]);
  for (const columns of COLUMNS) {
    const w = r.input(`w ${columns}`, transB ? [columns, TERMS] : [TERMS, columns]);
    r.matmul(x, w, { transA, transB, out: r.value(`product ${columns}`, [ROWS, columns]) });
  }
  const program = r.finish(COLUMNS.map((columns) => `product ${columns}`));
  const inputs = inputsOf(program);
  const differences = async (outputs: Outputs<string>): Promise<Map<string, number>> => {
    const found = new Map<string, number>();
    for (const columns of COLUMNS) {
      const rng = createRng("self-test", "signs", columns);
      const signs = new Float64Array(columns).map(() => (rng.uint32() % 2 === 0 ? 1 : -1));
      const w = present(inputs.get(`w ${columns}`), "w");
      const weights = timesVector(w, signs, { rows: TERMS, transposed: transB });
      const expected = timesVector(present(inputs.get("x"), "x"), weights, { rows: ROWS, transposed: transA });
      const product = present(outputs[`product ${columns}`], "product");
      const got = timesVector(product, signs, { rows: ROWS, transposed: false });
      const where = `op "matmul" (${form}, ${ROWS}×${columns}×${TERMS})`;
      found.set(where, largestDifference(got, expected));
    }
    return found;
  };
  return { program, inputs, differences };
}

/** The matrix [rows,N], or its transpose that lies in memory, times a vector [N]. */
function timesVector(
  matrix: Float32Array,
  vector: Float64Array,
  { rows, transposed }: { readonly rows: number; readonly transposed: boolean },
): Float64Array {
  const [along, across] = transposed ? [rows, 1] : [1, vector.length];
  return new Float64Array(rows).map((_, row) => {
    let sum = 0;
    for (let i = 0; i < vector.length; i += 1) {
      sum += (matrix[row * across + i * along] as number) * (vector[i] as number);
    }
    return sum;
  });
}

/** Attention and the way back through it against the twin. */
function attentionTest(headDim: number): SizeTest {
  const shape = { ...ATTENDED, headDim };
  const { time, heads, kvHeads } = shape;
  const r = record("self-test, attention");
  const [rows, keyRows] = [
    [time, heads * headDim],
    [time, kvHeads * headDim],
  ];
  const [q, k, v, dout] = [r.input("q", rows), r.input("k", keyRows), r.input("v", keyRows), r.input("dout", rows)];
  const out = r.attention(q, k, v, shape);
  const [dq, dk, dv] = [r.value("dq", rows), r.value("dk", keyRows), r.value("dv", keyRows)];
  const delta = r.value("delta", [heads * time]);
  r.push({ type: "attentionBackward", q, k, v, out, lse: out + 1, dout, delta, dq, dk, dv, ...shape });
  const program = r.finish(["attended", "dq", "dk", "dv"]);
  const inputs = inputsOf(program);
  inputs.set(
    "q",
    present(inputs.get("q"), "q").map((value) => QUERY_SCALE * value),
  );
  const differences = async (outputs: Outputs<string>): Promise<Map<string, number>> => {
    using twin = createTwin();
    using plan = await twin.compile(program);
    inputs.forEach((values, name) => plan.write(name, values));
    const expected = Object.entries(await plan.run<string>(program.outputs));
    return new Map(
      expected.map(([name, values]) => [
        `op "${name === "attended" ? "attention" : "attentionBackward"}" ("${name}", D ${headDim}, T ${time})`,
        largestDifference(present(outputs[name], name), values),
      ]),
    );
  };
  return { program, inputs, differences };
}
