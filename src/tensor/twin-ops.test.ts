import { describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import type { MatrixPlace } from "./program.ts";
import { record, sortTokens } from "./record.ts";
import { createTwin, evaluate } from "./twin.ts";

/** AdamW as PyTorch writes it: decay first, bias corrections on the step and on the denominator. Step `t` of one element. */
function referenceStep(
  { w, g, m, v }: { w: number; g: number; m: number; v: number },
  { t, rate, decay }: { t: number; rate: number; decay: number },
) {
  const [beta1, beta2, eps] = [0.9, 0.95, 1e-8];
  const decayed = w * (1 - rate * decay);
  const m2 = m + (g - m) * (1 - beta1);
  const v2 = v * beta2 + g * g * (1 - beta2);
  const denominator = Math.sqrt(v2) / Math.sqrt(1 - beta2 ** t) + eps;
  return { w: decayed - (rate / (1 - beta1 ** t)) * (m2 / denominator), m: m2, v: v2 };
}

function adamwProgram(size: number, decayCount: number) {
  const r = record("adamw");
  const [params, grads, m, v] = ["params", "grads", "m", "v"].map((name) => r.state(name, [size])) as [
    number,
    number,
    number,
    number,
  ];
  const norm = r.norm(grads);
  r.push({ type: "adamw", params, grads, m, v, norm, hyper: r.input("hyper", [8]), decayCount });
  return r.finish(["norm"]);
}

describe("adamw", () => {
  for (const clip of [0, 0.5, 1e6]) {
    test(`agrees with PyTorch's form for ten steps to 1e-12, clip ${clip}`, () => {
      const [size, decayCount, rate, decay] = [7, 3, 0.1, 0.3];
      const rng = createRng("adamw", clip);
      const program = adamwProgram(size, decayCount);
      let state: Record<string, Float64Array> = {
        params: Float64Array.from({ length: size }, () => rng.normal()),
        m: new Float64Array(size),
        v: new Float64Array(size),
      };
      let wanted = Array.from(state["params"] as Float64Array, (w) => ({ w, m: 0, v: 0 }));
      for (let t = 1; t <= 10; t += 1) {
        const grads = Float64Array.from({ length: size }, () => rng.normal());
        const norm = Math.hypot(...grads);
        const s = clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1;
        wanted = wanted.map((element, i) =>
          referenceStep({ ...element, g: (grads[i] as number) * s }, { t, rate, decay: i < decayCount ? decay : 0 }),
        );
        const hyper = [rate, 0.9, 0.95, 1e-8, decay, clip, 1 / (1 - 0.9 ** t), 1 / (1 - 0.95 ** t)];
        const after = evaluate(program, { ...state, grads, hyper });
        state = Object.fromEntries(["params", "m", "v"].map((name) => [name, after.get(name) as Float64Array]));
        expect(after.get("norm")?.[0]).toBeCloseTo(norm, 12);
        wanted.forEach(({ w, m, v }, i) => {
          expect(state["params"]?.[i]).toBeCloseTo(w, 12);
          expect(state["m"]?.[i]).toBeCloseTo(m, 12);
          expect(state["v"]?.[i]).toBeCloseTo(v, 12);
        });
      }
    });
  }

  test("leaves what is zero and has no gradient at zero", () => {
    const hyper = [0.1, 0.9, 0.95, 1e-8, 0.3, 1, 10, 20];
    expect(evaluate(adamwProgram(3, 3), { hyper }).get("params")).toEqual(new Float64Array(3));
  });
});

describe("muon", () => {
  /** What five turns make of a singular value, written for one number. */
  const turned = (value: number): number => {
    let x = value;
    for (let turn = 0; turn < 5; turn += 1) {
      x = 3.4445 * x - 4.775 * x ** 3 + 2.0315 * x ** 5;
    }
    return x;
  };
  const muonProgram = (matrices: readonly MatrixPlace[], size: number) => {
    const r = record("muon");
    const [params, grads, m] = [r.state("params", [size]), r.state("grads", [size]), r.state("m", [size])];
    r.muon({ params, grads, m, norm: r.norm(grads), hyper: r.input("hyper", [4]), matrices });
    return r.finish(["params", "m"]);
  };

  test("turns each singular value by itself, after momentum and clipping, and leaves other parameters", () => {
    const program = muonProgram([{ offset: 64, rows: 2, columns: 3 }], 128);
    const grads = new Float64Array(128);
    grads.set([4, 0, 0, 0, 0, -3], 64); // singular values 4 and 3, norm 5
    const [m, params] = [new Float64Array(128), Float64Array.from({ length: 128 }, (_, i) => i)];
    m.set([0, 0, 0, 0, 0, 2], 64);
    const [rate, mu, decay, clip] = [0.5, 0.75, 0.1, 1];
    const after = evaluate(program, { grads, m, params, hyper: [rate, mu, decay, clip] });
    const momentum = [0.25 * 0.8, 0.75 * 2 - 0.25 * 0.6];
    const ahead = [0.25 * 0.8 + 0.75 * 0.2, -0.25 * 0.6 + 0.75 * 1.35];
    expect(after.get("m")?.[64]).toBeCloseTo(momentum[0] as number, 6);
    expect(after.get("m")?.[69]).toBeCloseTo(momentum[1] as number, 6);
    const norm = Math.hypot(...ahead);
    const moved = (at: number, value: number): number =>
      at - rate * (0.2 * Math.sqrt(3) * turned(value / norm) + decay * at);
    const found = after.get("params") as Float64Array;
    expect(found[64]).toBeCloseTo(moved(64, ahead[0] as number), 5);
    expect(found[65]).toBeCloseTo(65 - rate * decay * 65, 9);
    expect(found[69]).toBeCloseTo(moved(69, ahead[1] as number), 5);
    expect([...found.subarray(0, 64), ...found.subarray(70)]).toEqual([
      ...params.subarray(0, 64),
      ...params.subarray(70),
    ]);
  });

  test("brings the singular values of a random matrix near 1, tall or wide", () => {
    for (const [rows, columns] of [
      [12, 40],
      [40, 12],
    ] as const) {
      const count = rows * columns;
      const rng = createRng("muon", rows);
      const grads = Float64Array.from({ length: Math.ceil(count / 64) * 64 }, () => rng.normal());
      const program = muonProgram([{ offset: 0, rows, columns }], grads.length);
      const stretch = 0.2 * Math.sqrt(40);
      const params = evaluate(program, { grads, hyper: [-1, 0, 0, 0] }).get("params") as Float64Array;
      const x = params.map((value) => value / stretch);
      const long = (i: number, l: number): number =>
        (rows < columns ? x[i * columns + l] : x[l * columns + i]) as number;
      // Singular values of 0.7 to 1.2: the diagonal of X·Xᵀ lies between their squares.
      for (let i = 0; i < 12; i += 1) {
        let square = 0;
        for (let l = 0; l < 40; l += 1) {
          square += long(i, l) ** 2;
        }
        expect(square).toBeGreaterThan(0.68 ** 2);
        expect(square).toBeLessThan(1.21 ** 2);
      }
    }
  });

  test("leaves what has no gradient, and is told of matrices that lie nowhere", () => {
    const program = muonProgram([{ offset: 0, rows: 2, columns: 2 }], 64);
    expect(evaluate(program, { hyper: [0.1, 0.9, 0.3, 1] }).get("params")).toEqual(new Float64Array(64));
    expect(() => muonProgram([{ offset: 64, rows: 1, columns: 1 }], 64)).toThrow("[1,1] at 64 is no matrix of 64");
    expect(() => muonProgram([{ offset: 3, rows: 1, columns: 1 }], 64)).toThrow("at 3");
  });
});

test("matmul adds its bias to every row, beside an addend, and sumRows adds rows up", () => {
  const r = record("bias");
  const [a, b, bias] = [r.input("a", [3, 1]), r.input("b", [1, 2]), r.input("bias", [2])];
  const product = r.matmul(a, b, { bias });
  r.sumRows(r.matmul(a, b, { add: product, bias, out: r.value("both", [3, 2]) }));
  const all = evaluate(r.finish([]), { a: [1, 2, 3], b: [10, 100], bias: [5, 7] });
  expect(all.get("product")).toEqual(Float64Array.of(15, 107, 25, 207, 35, 307));
  expect(all.get("both")).toEqual(Float64Array.of(30, 214, 50, 414, 70, 614));
  expect(all.get("columns")).toEqual(Float64Array.of(150, 1242));
});

test("crossEntropy and its backward stay finite for logits of ten thousand", () => {
  const r = record("extreme");
  const logits = r.input("logits", [2, 3]);
  const targets = r.input("targets", [2], "u32");
  r.crossEntropy(logits, targets);
  r.push({ type: "crossEntropyBackward", logits, targets, count: 2, dlogits: r.value("dlogits", [2, 3]) });
  const all = evaluate(r.finish([]), { logits: [1e4, -1e4, 0, 0, 0, 0], targets: [1, 2] });
  expect(all.get("losses")?.[0]).toBe(2e4);
  expect(all.get("losses")?.[1]).toBeCloseTo(Math.log(3), 12);
  expect([...(all.get("dlogits") ?? [])].slice(0, 3)).toEqual([0.5, -0.5, 0]);
});

test("rope multiplies pairs (i, i + D/2) by a rotation of the time, and its inverse undoes it", () => {
  const r = record("rope");
  const x = r.input("x", [4, 8]); // two sequences of two rows, two heads of four
  const options = { time: 2, headDim: 4, base: 100 };
  const turned = r.rope(x, options);
  r.rope(turned, { ...options, inverse: true });
  const rng = createRng("rope");
  const values = Float64Array.from({ length: 32 }, () => rng.normal());
  const all = evaluate(r.finish([]), { x: values });
  const out = all.get("turned") as Float64Array;
  expect(out.slice(0, 8)).toEqual(values.slice(0, 8));
  expect(out.slice(16, 24)).toEqual(values.slice(16, 24));
  // Row 1, second head: pair 0 turns by 1, pair 1 by 100^(-1/2).
  for (const [i, angle] of [
    [12, 1],
    [13, 0.1],
  ] as const) {
    const [re, im] = [values[i] as number, values[i + 2] as number];
    expect(out[i]).toBeCloseTo(re * Math.cos(angle) - im * Math.sin(angle), 12);
    expect(out[i + 2]).toBeCloseTo(re * Math.sin(angle) + im * Math.cos(angle), 12);
  }
  all.get("turned.2")?.forEach((value, i) => expect(value).toBeCloseTo(values[i] as number, 12));
});

test("attention of the first token is its value, and of equal keys the mean so far", () => {
  const r = record("attention");
  const heads = { batch: 1, time: 3, heads: 2, kvHeads: 1, headDim: 2 };
  r.attention(r.input("q", [3, 4]), r.input("k", [3, 2]), r.input("v", [3, 2]), heads);
  const q = Float64Array.from({ length: 12 }, (_, i) => i);
  const all = evaluate(r.finish([]), { q, k: [1, 2, 1, 2, 1, 2], v: [3, 0, 6, 3, 0, 9] });
  [3, 0, 3, 0, 4.5, 1.5, 4.5, 1.5, 3, 4, 3, 4].forEach((wanted, i) => {
    expect(all.get("attended")?.[i]).toBeCloseTo(wanted, 12);
  });
  // Row 1 of head 1 has scores (6·1 + 7·2)/√2, twice: its lse is at index 1·3 + 1.
  expect(all.get("lse")?.[4]).toBeCloseTo(20 / Math.sqrt(2) + Math.log(2), 12);
});

test("embeddingBackward adds the rows of each token in order, on top of an addend", () => {
  const r = record("embedding");
  const [dout, add, dtable] = [r.input("dout", [4, 1]), r.input("add", [3, 1]), r.value("dtable", [3, 1])];
  const [order, offsets] = [r.input("order", [4], "u32"), r.input("offsets", [4], "u32")];
  r.push({ type: "embeddingBackward", dout, order, offsets, add, dtable });
  const sorted = sortTokens(Uint32Array.of(2, 0, 2, 0), 3);
  expect(sorted).toEqual({ order: Uint32Array.of(1, 3, 0, 2), offsets: Uint32Array.of(0, 2, 2, 4) });
  const all = evaluate(r.finish([]), { dout: [1, 10, 100, 1000], add: [0.5, 0.25, 0], ...sorted });
  expect(all.get("dtable")).toEqual(Float64Array.of(1010.5, 0.25, 101));
});

test("tokens and targets outside the vocabulary are refused", async () => {
  const r = record("outside");
  const embedded = r.embedding(r.state("table", [3, 3]), r.input("tokens", [1], "u32"));
  r.crossEntropy(embedded, r.input("targets", [1], "u32"));
  using plan = await createTwin().compile(r.finish(["loss"]));
  plan.write("tokens", Uint32Array.of(3));
  await expect(plan.run()).rejects.toThrow("Cannot embed token 3");
  plan.write("tokens", Uint32Array.of(2));
  plan.write("targets", Uint32Array.of(4));
  await expect(plan.run()).rejects.toThrow("Cannot score target 4");
});
