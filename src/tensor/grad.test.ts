import { describe, expect, test } from "vitest";
import { createRng } from "../base/rng.ts";
import { disagreements } from "./differences.ts";
import { grad } from "./grad.ts";
import { elementCount, type Program, type TensorId } from "./program.ts";
import { record, sortTokens, type Recorder } from "./record.ts";
import { evaluate } from "./twin.ts";

/** Records parameters as windows into "params" with gaps of one element between them. */
interface Parameters {
  (name: string, shape: readonly number[]): TensorId;
}

/** A Program whose loss is the cross-entropy of what `model` makes [N,C] out of its parameters, and gradients of it. */
function differentiated(size: number, model: (r: Recorder, parameter: Parameters) => TensorId): Program {
  const r = record("check");
  const params = r.state("params", [size]);
  let offset = 1;
  const out = model(r, (name, shape) => {
    const view = r.view(name, params, offset, shape);
    offset += elementCount(shape) + 1;
    return view;
  });
  r.crossEntropy(out, r.input("targets", [r.shapeOf(out)[0] as number], "u32"));
  return grad(r.finish(["loss"]), { loss: "loss" });
}

/** Random values for everything that the Program asks for. Tokens are below `vocabulary`. */
function givenFor(program: Program, vocabulary = 1): Record<string, ArrayLike<number>> {
  const rng = createRng("grad.test", program.ops.length);
  const given: Record<string, ArrayLike<number>> = {};
  for (const { name, shape, role, dtype, view } of program.tensors) {
    const count = elementCount(shape);
    if (dtype === "f32" && (role === "input" || name === "params") && view === undefined) {
      given[name] = Float64Array.from({ length: count }, () => rng.normal());
    } else if (name === "tokens") {
      given[name] = Uint32Array.from({ length: count }, () => rng.below(vocabulary));
      Object.assign(given, sortTokens(given[name] as Uint32Array, vocabulary));
    } else if (name === "targets") {
      const logits = program.ops.find((op) => op.type === "crossEntropy")?.logits ?? 0;
      given[name] = Uint32Array.from({ length: count }, () => rng.below(program.tensors[logits]?.shape[1] ?? 1));
    }
  }
  return given;
}

function check(size: number, model: (r: Recorder, parameter: Parameters) => TensorId, vocabulary?: number): void {
  const program = differentiated(size, model);
  const given = givenFor(program, vocabulary);
  expect(disagreements(program, given)).toEqual([]);
  const grads = evaluate(program, given).get("grads") as Float64Array;
  expect(grads.filter((g) => g !== 0).length).toBeGreaterThan(0);
}

/** Shapes with 1, with primes, and ordinary ones. */
const MATRICES: readonly (readonly [M: number, K: number, N: number])[] = [
  [1, 1, 2],
  [1, 7, 3],
  [5, 1, 2],
  [3, 5, 7],
  [4, 8, 6],
];

describe("grad() agrees with central differences to 1e-6", () => {
  for (const [M, K, N] of MATRICES) {
    for (const [transA, transB] of [
      [false, false],
      [false, true],
      [true, false],
      [true, true],
    ] as const) {
      test(`matmul [${M},${K}]·[${K},${N}]${transA ? " transA" : ""}${transB ? " transB" : ""}`, () => {
        check(200, (r, p) => {
          const a = p("a", transA ? [K, M] : [M, K]);
          const b = p("b", transB ? [N, K] : [K, N]);
          return r.matmul(a, b, { transA, transB });
        });
      });
    }
    test(`matmul with an addend, [${M},${K}]·[${K},${N}]`, () => {
      check(200, (r, p) => {
        const add = r.matmul(p("left", [M, 2]), p("right", [2, N]));
        return r.matmul(p("a", [M, K]), p("b", [K, N]), { add });
      });
    });
    test(`matmul with a bias, a parameter or a value, [${M},${K}]·[${K},${N}]`, () => {
      check(200, (r, p) => {
        const gain = r.matmul(p("row", [1, K]), p("square", [K, N]), { bias: p("row bias", [N]) });
        return r.matmul(p("a", [M, K]), p("b", [K, N]), { bias: gain });
      });
    });
    test(`sum of rows used as a bias twice, [${M},${K}]·[${K},${N}]`, () => {
      check(200, (r, p) => {
        const [a, b, bias] = [p("a", [M, K]), p("b", [K, N]), p("bias", [N])];
        return r.matmul(a, b, { bias, add: r.matmul(a, b, { bias }) });
      });
    });
    test(`embedding of ${M * K} tokens, table [${K},${N}]`, () => {
      check(200, (r, p) => r.embedding(p("table", [K, N]), r.input("tokens", [M * K], "u32")), K);
    });
    test(`rmsNorm [${M},${K}]`, () => {
      check(200, (r, p) => r.matmul(r.rmsNorm(p("x", [M, K]), p("gain", [K]), 1e-3), p("w", [K, N])));
    });
    test(`swiglu [${M},${N}]`, () => {
      check(200, (r, p) => r.swiglu(p("gate", [M, N]), p("up", [M, N])));
    });
    test(`crossEntropy of [${M},${N}] logits`, () => {
      check(200, (r, p) => r.matmul(r.input("x", [M, K]), p("w", [K, N])));
    });
  }
  for (const [batch, time, heads, headDim] of [
    [1, 1, 1, 2],
    [2, 3, 2, 4],
    [1, 7, 3, 6],
    [3, 5, 1, 10],
  ] as const) {
    for (const inverse of [false, true]) {
      test(`rope ${batch}×${time} rows, ${heads} heads of ${headDim}${inverse ? ", inverse" : ""}`, () => {
        const base = 100;
        check(400, (r, p) => r.rope(p("x", [batch * time, heads * headDim]), { time, headDim, base, inverse }));
      });
    }
  }
  for (const [batch, time, heads, kvHeads, headDim] of [
    [1, 1, 1, 1, 2],
    [2, 3, 2, 1, 1],
    [2, 3, 1, 1, 5],
    [1, 7, 2, 1, 3],
    [2, 5, 4, 2, 2],
    [1, 4, 6, 3, 2],
    [1, 5, 3, 3, 4],
  ] as const) {
    test(`attention ${batch}×${time} rows, ${heads} heads on ${kvHeads}, width ${headDim}`, () => {
      const rows = batch * time;
      check(400, (r, p) => {
        const [q, k, v] = [
          p("q", [rows, heads * headDim]),
          p("k", [rows, kvHeads * headDim]),
          p("v", [rows, kvHeads * headDim]),
        ];
        return r.attention(q, k, v, { batch, time, heads, kvHeads, headDim });
      });
    });
  }
});

describe("grad() collects the shares of a tensor that is used several times", () => {
  const heads = { batch: 1, time: 3, heads: 1, kvHeads: 1, headDim: 4 };
  test("in ops with an add field", () => {
    check(100, (r, p) => {
      const w = p("w", [4, 4]);
      return r.matmul(r.matmul(r.matmul(p("x", [3, 4]), w), w, { transB: true }), w);
    });
  });
  test("in ops without one, parameters and values alike", () => {
    check(100, (r, p) => {
      const x = p("x", [3, 4]);
      const y = r.swiglu(x, x);
      return r.add(r.attention(y, y, y, heads), r.rope(x, { time: 3, headDim: 4, base: 10 }));
    });
  });
  test("in both kinds, and as an addend", () => {
    check(100, (r, p) => {
      const [x, gain] = [p("x", [3, 4]), p("gain", [4])];
      const y = r.matmul(x, p("w", [4, 4]), { add: x });
      return r.add(r.add(y, y), r.rmsNorm(r.rmsNorm(y, gain, 1e-3), gain, 1e-3));
    });
  });
  test("in an embedding whose table is the head too", () => {
    check(
      100,
      (r, p) => {
        const table = p("table", [5, 3]);
        return r.matmul(r.embedding(table, r.input("tokens", [7], "u32")), table, { transB: true });
      },
      5,
    );
  });
});

test("grad() overwrites gradients and leaves the gaps zero", () => {
  const program = differentiated(40, (r, p) => r.matmul(p("x", [2, 3]), p("w", [3, 4])));
  const given = givenFor(program);
  const once = evaluate(program, given).get("grads") as Float64Array;
  const stale = Float64Array.from(once, (g) => (g === 0 ? 0 : 99));
  expect(evaluate(program, { ...given, grads: stale }).get("grads")).toEqual(once);
  expect([0, 7, 20, 39].map((i) => once[i])).toEqual([0, 0, 0, 0]);
});

test("grad() records nothing for what no parameter reaches", () => {
  const program = differentiated(40, (r, p) => r.matmul(r.input("x", [2, 3]), p("w", [3, 4])));
  expect(program.ops.map((op) => op.type)).toEqual([
    "matmul",
    "crossEntropy",
    "mean",
    "crossEntropyBackward",
    "matmul",
  ]);
});

test("grad() refuses what it cannot differentiate", () => {
  const throughNorm = (r: Recorder, p: Parameters): TensorId => {
    const size = r.norm(p("x", [2, 3]));
    return r.matmul(r.rmsNorm(size, p("gain", [1]), 1), p("w", [1, 4]));
  };
  expect(() => differentiated(40, throughNorm)).toThrow();
  expect(() => differentiated(40, (r, p) => r.add(p("a", [2, 3]), p("b", [2, 3])))).toThrow('"a" is an addend');
  expect(() => differentiated(40, (r) => r.embedding(r.input("x", [2, 3]), r.input("tokens", [2], "u32")))).toThrow(
    "does not depend",
  );
});
