/** Every op of the WASM engine against the twin in double precision, at sizes that do not fit its tiles. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import type { Engine } from "../tensor/engine.ts";
import { elementCount, type Program } from "../tensor/program.ts";
import { record, sortTokens, type Recorder } from "../tensor/record.ts";
import { createTwin } from "../tensor/twin.ts";
import { createWasmEngine } from "./engine.ts";

const built = (name: string): Uint8Array<ArrayBuffer> =>
  new Uint8Array(readFileSync(new URL(`../../build/${name}`, import.meta.url)));

beforeAll(() => {
  execFileSync(process.execPath, [new URL("../../tools/build-wasm.mjs", import.meta.url).pathname]);
});

/** Runs `program` once on random inputs and states; returns its outputs. */
async function outputsOf(engine: Engine, program: Program): Promise<Map<string, Float32Array>> {
  using plan = await engine.compile(program);
  for (const tensor of program.tensors) {
    const count = elementCount(tensor.shape);
    const rng = createRng("ops", tensor.name, count);
    if (tensor.role === "input" && tensor.dtype === "f32") {
      plan.write(tensor.name, random(rng, count, tensor.name));
    } else if (tensor.role === "state" && tensor.view === undefined) {
      engine.writeState(tensor.name, random(rng, count, tensor.name));
    }
  }
  writeTokens(program, (name, values) => plan.write(name, values));
  return new Map(Object.entries(await plan.run(program.outputs)));
}

/** Tensors that must not be negative have names that begin with "positive". */
function random(rng: ReturnType<typeof createRng>, count: number, name: string): Float32Array {
  const positive = name.startsWith("positive");
  return Float32Array.from({ length: count }, () => (positive ? Math.abs(rng.normal()) + 0.1 : rng.normal()));
}

/** Fills u32 inputs called tokens, targets, order and offsets for a vocabulary of `VOCABULARY`. */
function writeTokens(program: Program, write: (name: string, values: Uint32Array) => void): void {
  const wanted = program.tensors.filter(({ dtype }) => dtype === "u32");
  const vocabulary = Number(/V(\d+)/.exec(program.name)?.[1] ?? 1);
  const rows = Number(/N(\d+)/.exec(program.name)?.[1] ?? 1);
  const rng = createRng("tokens", rows, vocabulary);
  const tokens = Uint32Array.from({ length: rows }, () => rng.below(vocabulary));
  const all = { tokens, targets: tokens, ...sortTokens(tokens, vocabulary) };
  for (const { name } of wanted) {
    write(name, all[name as keyof typeof all]);
  }
}

/** Largest difference between two engines' outputs, in units of the largest value of each output. */
async function difference(a: Engine, b: Engine, program: Program): Promise<number> {
  const [ours, reference] = [await outputsOf(a, program), await outputsOf(b, program)];
  let worst = 0;
  for (const [name, wanted] of reference) {
    const got = ours.get(name) as Float32Array;
    const size = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
    wanted.forEach((value, i) => {
      const error = Math.abs((got[i] as number) - value) / size;
      worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
    });
  }
  return worst;
}

function program(name: string, build: (r: Recorder) => readonly number[]): Program {
  const r = record(name);
  const outputs = new Set(build(r));
  const { tensors } = r.finish([]);
  return r.finish(tensors.filter(({ id }) => outputs.has(id)).map((tensor) => tensor.name));
}

/** Without an addend and with one, each without a bias and with one; the last in place. */
function matmul(m: number, n: number, k: number, transA: boolean, transB: boolean): Program {
  return program(`matmul ${m}×${n}×${k}${transA ? " aᵀ" : ""}${transB ? " bᵀ" : ""}`, (r) => {
    const a = r.input("a", transA ? [k, m] : [m, k]);
    const b = r.input("b", transB ? [n, k] : [k, n]);
    const [add, bias] = [r.input("c", [m, n]), r.input("bias", [n])];
    const form = { transA, transB };
    const outs = [{}, { add }, { bias }, { add, bias }].map((more) => r.matmul(a, b, { ...form, ...more }));
    const sum = r.matmul(a, b, form);
    return [...outs, r.matmul(a, b, { ...form, add: sum, bias, out: sum }), r.sumRows(add)];
  });
}

function rows(n: number, c: number): Program[] {
  const norm = program(`rmsNorm ${n}×${c}`, (r) => {
    const out = r.rmsNorm(r.input("x", [n, c]), r.input("gain", [c]), 1e-5);
    return [out, out + 1];
  });
  const backward = (add: boolean) =>
    program(`rmsNormBackward ${n}×${c}${add ? " +" : ""}`, (r) => {
      const [x, gain, dout] = [r.input("x", [n, c]), r.input("gain", [c]), r.input("dout", [n, c])];
      const rstd = r.input("positive rstd", [n]);
      const [dx, dgain] = [r.value("dx", [n, c]), r.value("dgain", [c])];
      const rest = add ? { add: r.input("more", [n, c]) } : {};
      r.push({ type: "rmsNormBackward", x, gain, rstd, dout, dx, dgain, ...rest });
      return [dx, dgain];
    });
  const entropy = program(`crossEntropy N${n} V${c}`, (r) => {
    const [logits, targets] = [r.input("logits", [n, c]), r.input("targets", [n], "u32")];
    const { losses, loss } = r.crossEntropy(logits, targets);
    const dlogits = r.value("dlogits", [n, c]);
    r.push({ type: "crossEntropyBackward", logits, targets, count: n, dlogits });
    return [losses, loss, dlogits];
  });
  return [norm, backward(false), backward(true), entropy];
}

function embedding(n: number, v: number, c: number, add: boolean): Program {
  return program(`embedding N${n} V${v} ${c}${add ? " +" : ""}`, (r) => {
    const out = r.embedding(r.input("table", [v, c]), r.input("tokens", [n], "u32"));
    const dout = r.input("dout", [n, c]);
    const [order, offsets] = [r.input("order", [n], "u32"), r.input("offsets", [v + 1], "u32")];
    const dtable = r.value("dtable", [v, c]);
    const rest = add ? { add: r.input("more", [v, c]) } : {};
    r.push({ type: "embeddingBackward", dout, order, offsets, dtable, ...rest });
    return [out, dtable];
  });
}

function rope(batch: number, time: number, heads: number, headDim: number, inverse: boolean): Program {
  return program(`rope ${batch}·${time}×${heads}·${headDim}${inverse ? " inverse" : ""}`, (r) => [
    r.rope(r.input("x", [batch * time, heads * headDim]), { time, headDim, base: 10_000, inverse }),
  ]);
}

function attention(batch: number, time: number, heads: number, kvHeads: number, headDim: number): Program {
  return program(`attention B${batch} T${time} H${heads} K${kvHeads} D${headDim}`, (r) => {
    const shape = { batch, time, heads, kvHeads, headDim };
    const [n, c, kv] = [batch * time, heads * headDim, kvHeads * headDim];
    const [q, k, v, dout] = [
      r.input("q", [n, c]),
      r.input("k", [n, kv]),
      r.input("values", [n, kv]),
      r.input("do", [n, c]),
    ];
    const out = r.attention(q, k, v, shape);
    const lse = out + 1;
    const [dq, dk, dv] = [r.value("dq", [n, c]), r.value("dk", [n, kv]), r.value("dv", [n, kv])];
    const delta = r.value("delta", [n * heads]);
    r.push({ type: "attentionBackward", q, k, v, out, lse, dout, delta, dq, dk, dv, ...shape });
    return [out, lse, delta, dq, dk, dv];
  });
}

function elements(count: number): Program[] {
  const gated = program(`swiglu ${count}`, (r) => {
    const shape = [1, count];
    const [gate, up, dout] = [r.input("gate", shape), r.input("up", shape), r.input("dout", shape)];
    const out = r.swiglu(gate, up);
    const [dgate, dup] = [r.value("dgate", shape), r.value("dup", shape)];
    r.push({ type: "swigluBackward", gate, up, dout, dgate, dup });
    return [out, dgate, dup, r.add(gate, up)];
  });
  const adamw = (decayCount: number) =>
    program(`adamw ${count}, ${decayCount} decay`, (r) => {
      const state = (name: string) => r.state(`${name} ${count}`, [count]);
      const [params, grads, m, v] = [state("p"), state("g"), state("m"), state("positive v")];
      const norm = r.norm(grads);
      const hyper = r.input("positive hyper", [8]);
      r.push({ type: "adamw", params, grads, m, v, norm, hyper, decayCount });
      return [norm, params, m, v];
    });
  const feedback = program(`feedback ${count}`, (r) => {
    const residual = r.state(`residual ${count}`, [count]);
    const [base, params, scale] = [r.input("base", [count]), r.input("params", [count]), r.input("scale", [1])];
    r.feedback(residual, { base, params, scale });
    return [residual];
  });
  return [gated, adamw(count), adamw(Math.floor(count / 2)), adamw(0), feedback];
}

/** Muon on matrices of these rows and columns, with gaps between and after them. */
function muon(...shapes: readonly (readonly [number, number])[]): Program {
  let size = 0;
  const matrices = shapes.map(([rows, columns]) => {
    const offset = size;
    size += Math.ceil((rows * columns) / 64) * 64 + 64;
    return { offset, rows, columns };
  });
  return program(`muon ${shapes.map((shape) => shape.join("x")).join(", ")}`, (r) => {
    const state = (name: string) => r.state(`${name} ${size}`, [size]);
    const [params, grads, m] = [state("p"), state("g"), state("m")];
    r.muon({ params, grads, m, norm: r.norm(grads), hyper: r.input("positive hyper", [4]), matrices });
    return [params, m];
  });
}

const CASES: readonly Program[] = [
  ...[
    [1, 1, 1],
    [7, 13, 5],
    [4, 8, 256],
    [65, 129, 257],
    [63, 127, 255],
    [33, 1030, 9],
    [130, 40, 530],
  ].flatMap(([m = 1, n = 1, k = 1]) => [0, 1, 2, 3].map((form) => matmul(m, n, k, (form & 1) === 1, (form & 2) === 2))),
  ...[
    [1, 1],
    [3, 15],
    [5, 16],
    [7, 17],
    [67, 131],
    [2, 4099],
  ].flatMap(([n = 1, c = 1]) => rows(n, c)),
  embedding(1, 1, 1, false),
  embedding(37, 11, 7, true),
  embedding(129, 67, 130, false),
  rope(1, 1, 1, 2, false),
  rope(2, 7, 3, 6, false),
  rope(2, 9, 2, 8, true),
  rope(1, 300, 1, 32, false),
  attention(1, 1, 1, 1, 2),
  ...[3, 7, 8, 9, 15, 16, 17].map((time) => attention(2, time, 4, 2, 8)),
  attention(1, 7, 3, 3, 5),
  attention(1, 13, 3, 1, 32),
  attention(1, 11, 1, 1, 127),
  attention(1, 33, 2, 2, 128),
  attention(2, 67, 6, 2, 16),
  attention(1, 129, 2, 1, 64),
  ...[1, 2, 3, 4, 4095, 4096, 4097, 8193].flatMap(elements),
  muon([1, 1]),
  muon([1, 9], [9, 1], [3, 70]),
  muon([33, 70], [70, 33], [64, 128]),
  muon([128, 64], [352, 128]),
];

describe.each([
  ["heddle-threads.wasm", 1],
  ["heddle-threads.wasm", 2],
  ["heddle-fused-threads.wasm", 2],
])("createWasmEngine() with %s and %d threads agrees with the twin", (name, threads) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createWasmEngine({ bytes: built(name), threads });
  });
  afterAll(() => engine[Symbol.dispose]());
  test.each(CASES.map((one) => [one.name, one] as const))("%s", async (_, one) => {
    using twin = createTwin({ precision: "f64" });
    expect(await difference(engine, twin, one)).toBeLessThan(3e-6);
  });
});

test("attention() gives keys that are far behind no weight at all", async () => {
  using engine = await createWasmEngine({ bytes: built("heddle.wasm") });
  using plan = await engine.compile(attention(1, 9, 1, 1, 2));
  const row = (x: number, y: number): number[] => [x, y];
  plan.write("q", Float32Array.from(Array.from({ length: 9 }, () => row(20, 0)).flat()));
  plan.write("k", Float32Array.from(Array.from({ length: 9 }, (_, t) => row(-10 * t, 1)).flat()));
  plan.write("values", Float32Array.from(Array.from({ length: 9 }, (_, t) => row(t + 1, -3)).flat()));
  plan.write("do", new Float32Array(18).fill(1));
  const outputs = new Map(Object.entries(await plan.run(["attended", "dq", "dk", "dv"])));
  expect(outputs.get("attended")).toEqual(Float32Array.from(Array.from({ length: 9 }, () => row(1, -3)).flat()));
  expect(outputs.get("dq")).toEqual(new Float32Array(18));
  expect(outputs.get("dk")).toEqual(new Float32Array(18));
  expect(outputs.get("dv")).toEqual(Float32Array.from({ length: 18 }, (_, at) => (at < 2 ? 9 : 0)));
});

test("the plain build and the threaded build on three threads compute the same bits", async () => {
  using plain = await createWasmEngine({ bytes: built("heddle.wasm") });
  using threaded = await createWasmEngine({ bytes: built("heddle-threads.wasm"), threads: 3 });
  for (const one of CASES) {
    expect(await outputsOf(threaded, one), one.name).toEqual(await outputsOf(plain, one));
  }
});

/** Values with many zeros, ties, tiny and huge ones. */
const VALUES: Readonly<Record<string, (rng: ReturnType<typeof createRng>) => number>> = {
  plain: (rng) => rng.normal(),
  ties: (rng) => rng.below(5) - 2,
  sparse: (rng) => (rng.float() < 0.01 ? rng.normal() : 0),
  wide: (rng) => (rng.float() - 0.5) * 2 ** (rng.below(270) - 145),
  "far apart": (rng) => rng.normal() * (rng.below(9) === 0 ? 1 : 2 ** -30),
};

/** Entries kept of a chunk, and bits of a value. */
const FORMS = [
  ...[1, 2, 3, 4].flatMap((bits) => [3, 64, 256].map((keep) => [keep, bits] as const)),
  ...[1, 4095, 4096].flatMap((keep) => [[keep, 2] as const, [keep, 4] as const]),
] as const;

describe("pack() leaves the twin's bits", () => {
  test.each(Object.keys(VALUES))("of values that are %s", async (kind) => {
    using wasm = await createWasmEngine({ bytes: built("heddle-threads.wasm"), threads: 2 });
    using twin = createTwin();
    const rng = createRng("pack", kind);
    for (const count of [1, 40, 4095, 4096, 4097, 9001]) {
      const values = Float32Array.from({ length: count }, () => VALUES[kind]?.(rng) ?? 0);
      for (const [keep, bits] of FORMS) {
        const slots = async (engine: Engine): Promise<Uint32Array> => {
          using plan = await engine.compile(
            program("pack", (r) => [r.pack(r.input("residual", [count]), { keep, bits })]),
          );
          plan.write("residual", values);
          return new Uint32Array((await plan.run(["slots"]))["slots"]?.buffer ?? []);
        };
        expect(await slots(wasm), `${count} values, ${keep} kept, ${bits} bits`).toEqual(await slots(twin));
      }
    }
  });

  test("of values that are not finite", async () => {
    using wasm = await createWasmEngine({ bytes: built("heddle.wasm") });
    using plan = await wasm.compile(
      program("pack", (r) => [r.pack(r.input("residual", [4099]), { keep: 7, bits: 2 })]),
    );
    plan.write("residual", new Float32Array(4099).fill(Number.NaN, 4098));
    const { slots } = await plan.run(["slots"]);
    const heads = new Uint32Array(slots.buffer).filter((_, i) => i % (slots.length / 2) === 0);
    expect([...heads]).toEqual([0, 0xffff_ffff]);
  });
});
