import { expect, test } from "vitest";
import { costOf } from "./cost.ts";
import type { Op, Program } from "./program.ts";
import { record, type Recorder } from "./record.ts";
import { createTwin } from "./twin.ts";

function product(): Program {
  const r = record("product");
  const params = r.state("params", [128]);
  const out = r.matmul(r.input("x", [2, 3]), r.view("w", params, 64, [4, 3]), { transB: true });
  r.norm(out);
  return r.finish(["norm"]);
}

test("printPlan() tells what each op costs, where its tensors lie, and the totals", async () => {
  using plan = await createTwin().compile(product());
  expect(plan.describe()).toMatchInlineSnapshot(`
    "plan product
       0 twin                             48 FLOP     104 B  product [2,4] @value = matmul(x [2,3] @input, w [4,3] @state) transB
       1 twin                             16 FLOP      36 B  norm [1] @value = norm(product [2,4] @value)
    total 2 ops in as many loops, 64 FLOP, 140 B moved at least, 512 B of states, 60 B of values and inputs"
  `);
});

/** The cost of the last op that `build` records. */
function cost(build: (r: Recorder) => unknown): { flops: number; bytes: number } {
  const r = record("cost");
  build(r);
  const program = r.finish([]);
  return costOf(program, program.ops.at(-1) as Op);
}

test("costOf() counts a product's multiply-adds as two, an addend, and each element that moves once", () => {
  const operands = (r: Recorder) => [r.input("a", [5, 7]), r.input("b", [7, 3])] as const;
  expect(cost((r) => r.matmul(...operands(r)))).toEqual({ flops: 2 * 5 * 7 * 3, bytes: 4 * (35 + 21 + 15) });
  const plus = (r: Recorder) => r.matmul(...operands(r), { add: r.input("add", [5, 3]) });
  expect(cost(plus)).toEqual({ flops: 2 * 5 * 7 * 3 + 15, bytes: 4 * (35 + 21 + 2 * 15) });
});

test("costOf() counts only scores that a causal mask leaves, and only rows that tokens name", () => {
  const heads = { batch: 2, time: 5, heads: 3, kvHeads: 1, headDim: 4 };
  const attention = (r: Recorder) =>
    r.attention(r.input("q", [10, 12]), r.input("k", [10, 4]), r.input("v", [10, 4]), heads);
  expect(cost(attention).flops).toBe(2 * 3 * 15 * (4 * 4 + 5));
  const embedding = (r: Recorder) => r.embedding(r.input("table", [1000, 4]), r.input("tokens", [2], "u32"));
  expect(cost(embedding)).toEqual({ flops: 0, bytes: 4 * (8 + 8 + 2) });
});

test("costOf() counts what is changed in place as read and written", () => {
  const inPlace = (r: Recorder) => {
    const x = r.value("x", [8]);
    r.add(x, x, x);
  };
  expect(cost(inPlace)).toEqual({ flops: 8, bytes: 64 });
});
