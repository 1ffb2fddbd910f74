import { describe, expect, test } from "vitest";
import { record } from "./record.ts";

describe("record() refuses what does not fit, and says what is and what should be", () => {
  const r = record("wrong");
  const a = r.input("a", [3, 4]);
  const b = r.input("b", [5, 6]);
  const flat = r.input("flat", [4]);
  const tokens = r.input("tokens", [3], "u32");
  const heads = { batch: 1, time: 3, heads: 2, kvHeads: 1, headDim: 2 };
  test.each([
    [() => r.matmul(a, b), "Cannot record matmul: the operands are [3,4] · [5,6], need equal inner dimensions"],
    [() => r.matmul(a, flat), 'Cannot record "wrong": "flat" is [4], need a matrix of two dimensions'],
    [() => r.matmul(a, b, { transA: true, transB: true }), "the operands are [4,3] · [6,5]"],
    [() => r.matmul(a, a, { transB: true, out: a }), "Cannot record matmul: out is [3,4], need [3,3]"],
    [() => r.matmul(a, a, { transB: true, bias: flat }), "bias is [4], need [3], one for each column"],
    [() => r.sumRows(a, tokens), "Cannot record sumRows: out is [3], need [4]"],
    [() => r.embedding(a, flat), 'Cannot record embedding: "flat" holds f32, need u32'],
    [() => r.crossEntropy(b, tokens), "Cannot record crossEntropy: got 3 targets, need one for each of 5 rows"],
    [() => r.crossEntropy(a, r.input("floats", [3])), '"floats" holds f32, need u32'],
    [() => r.rmsNorm(a, tokens, 1e-5), "Cannot record rmsNorm: gain is [3], need [4]"],
    [() => r.attention(b, a, a, heads), "Cannot record attention: q is [5,6], need [3,4]"],
    [() => r.attention(a, b, b, heads), "Cannot record attention: k is [5,6], need [3,2]"],
    [() => r.add(a, b), "Cannot record add: shapes [3,4] and [5,6] differ, need equal counts"],
    [() => r.input("empty", [0]), 'Cannot record "empty": shape [0] must be positive integers'],
    [() => r.finish(["nothing"]), 'Cannot finish "wrong": output "nothing" was not recorded'],
  ] as const)("%#: %s", (act, message) => {
    expect(act).toThrow(message);
  });
});
