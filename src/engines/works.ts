/**
 * What the kernel ladder measures: matrix products and attention, each a Program with inputs from a seed and a reference in
 * double precision or from the twin. A work knows its own arithmetic, so that times become GFLOP/s; it knows nothing of
 * engines or clocks (`ladder.ts`).
 */
import { present } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import { elementCount, type HeadShape, type Program, type TensorId } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { createTwin } from "../tensor/twin.ts";

export type Family = "matmul" | "attention" | "attention backward";

export interface Work {
  /** "matmul 1024×384×1536": rows, columns, inner length. */
  readonly name: string;
  /** Works of one family differ in size only: the speed at one foretells the time of the next. */
  readonly family: Family;
  readonly flops: number;
  readonly program: Program;
  readonly inputs: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
  /** Some elements of each output of `program`, as they should be. */
  expected(): Promise<ReadonlyMap<string, readonly Sample[]>>;
}

/** Index and value of one element. */
export type Sample = readonly [index: number, value: number];

/** Every so many elements are checked; a prime, so that all columns and all places in a tile come up. */
const SAMPLE_STEP = 997;
const HEAD_DIM = 64;

type Shapes = Readonly<Record<string, readonly number[]>>;

/** x [M,K] · wᵀ with w [N,K], as a layer's forward product. */
export function matmulWork({ m, n, k }: { readonly m: number; readonly n: number; readonly k: number }): Work {
  const name = `matmul ${m}×${n}×${k}`;
  const inputs = inputsOf({ x: [m, k], w: [n, k] });
  const value = (index: number): number => {
    const [x, w] = [inputs.get("x"), inputs.get("w")] as [Float32Array, Float32Array];
    const [row, column] = [Math.floor(index / n) * k, (index % n) * k];
    let sum = 0;
    for (let i = 0; i < k; i += 1) {
      sum += (x[row + i] as number) * (w[column + i] as number);
    }
    return sum;
  };
  return {
    name,
    family: "matmul",
    flops: 2 * m * n * k,
    inputs,
    program: matmulProgram(name, { m, n, k }),
    expected: async () => new Map([["product", indicesBelow(m * n).map((index) => [index, value(index)] as const)]]),
  };
}

function matmulProgram(
  name: string,
  { m, n, k }: { readonly m: number; readonly n: number; readonly k: number },
): Program {
  const r = record(name);
  r.matmul(r.input("x", [m, k]), r.input("w", [n, k]), { transB: true });
  return r.finish(["product"]);
}

/** Causal attention of one sequence of `time` tokens with 6 heads of width 64; FLOP as if every query saw every key. */
export function attentionWork(time: number, way: "forward" | "backward"): Work {
  const family = way === "forward" ? "attention" : "attention backward";
  const shape = headsOf(time, 6);
  const inputs = inputsOf(attentionShapes(shape, way));
  return {
    name: `${family} T ${time}`,
    family,
    flops: 4 * shape.heads * time ** 2 * shape.headDim * (way === "forward" ? 1 : 2.5),
    inputs,
    program: attentionProgram(shape, way),
    expected: () => expectedAttention(shape, way, inputs),
  };
}

function headsOf(time: number, heads: number): HeadShape {
  return { batch: 1, time, heads, kvHeads: heads, headDim: HEAD_DIM };
}

function attentionShapes({ time, heads, headDim }: HeadShape, way: "forward" | "backward"): Shapes {
  const rows = [time, heads * headDim];
  const forward = { q: rows, k: rows, v: rows };
  return way === "forward" ? forward : { ...forward, out: rows, dout: rows, lse: [heads * time] };
}

function attentionProgram(shape: HeadShape, way: "forward" | "backward"): Program {
  const r = record(`attention ${way} T ${shape.time}`);
  const shapes = attentionShapes(shape, way);
  const input = (name: string): TensorId => r.input(name, shapes[name] as readonly number[]);
  const [q, k, v] = [input("q"), input("k"), input("v")];
  if (way === "forward") {
    r.attention(q, k, v, shape);
    return r.finish(["attended"]);
  }
  const [out, dout, lse] = [input("out"), input("dout"), input("lse")];
  const [dq, dk, dv] = ["dq", "dk", "dv"].map((name) => r.value(name, shapes["q"] as readonly number[]));
  const delta = r.value("delta", shapes["lse"] as readonly number[]);
  const read = { q, k, v, out, lse, dout };
  const written = { delta, dq: present(dq, "dq"), dk: present(dk, "dk"), dv: present(dv, "dv") };
  r.push({ type: "attentionBackward", ...read, ...written, ...shape });
  return r.finish(["dq", "dk", "dv"]);
}

/** The twin's results for the first and the last head alone: heads do not know of each other, and the twin is slow. */
async function expectedAttention(
  shape: HeadShape,
  way: "forward" | "backward",
  inputs: Work["inputs"],
): Promise<Map<string, Sample[]>> {
  const { time, heads, headDim } = shape;
  const two = headsOf(time, 2);
  // Element `i` of a tensor of the two heads is element `whole(i)` of the same tensor of all heads.
  const whole = (i: number): number => {
    const [row, column] = [Math.floor(i / (2 * headDim)), i % (2 * headDim)];
    return row * heads * headDim + (column < headDim ? column : column + (heads - 2) * headDim);
  };
  const wholeRow = (i: number): number => (i < time ? i : i + (heads - 2) * time);
  using twin = createTwin();
  using plan = await twin.compile(attentionProgram(two, way));
  for (const [name, given] of Object.entries(attentionShapes(two, way))) {
    const values = present(inputs.get(name), name);
    const place = name === "lse" ? wholeRow : whole;
    plan.write(
      name,
      Float32Array.from({ length: elementCount(given) }, (_, i) => values[place(i)] as number),
    );
  }
  const outputs = await plan.run(way === "forward" ? ["attended"] : ["dq", "dk", "dv"]);
  const samples = new Map<string, Sample[]>();
  for (const [name, values] of Object.entries(outputs)) {
    samples.set(
      name,
      indicesBelow(values.length).map((i) => [whole(i), values[i] as number]),
    );
  }
  return samples;
}

function indicesBelow(count: number): number[] {
  return Array.from({ length: Math.ceil(count / SAMPLE_STEP) }, (_, i) => i * SAMPLE_STEP);
}

/** Uniform in ±1/2, from a seed that is the tensor's name. */
function inputsOf(shapes: Shapes): Map<string, Float32Array<ArrayBuffer>> {
  return new Map(
    Object.entries(shapes).map(([name, shape]) => {
      const rng = createRng("ladder", name);
      return [name, Float32Array.from({ length: elementCount(shape) }, () => rng.float() - 0.5)];
    }),
  );
}
