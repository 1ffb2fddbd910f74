/** What is kept as f16: the operands of the forward pass, and nothing that f16 would spoil. */
import { expect, test } from "vitest";
import { trainProgram } from "../model/llama.ts";
import { grad } from "../tensor/grad.ts";
import { writesOf, type Program } from "../tensor/program.ts";
import { record, type Recorder } from "../tensor/record.ts";
import { fuse } from "./fuse.ts";
import { assignSlots, valueLifetimes } from "./memory.ts";
import { halfTensors } from "./storage.ts";

const MODEL = {
  vocabulary: 64,
  channels: 32,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  hidden: 88,
  time: 16,
  tied: true,
  ropeBase: 10_000,
  normEps: 1e-5,
  seed: 1,
};

/** Names of what is kept as f16. */
function halvesOf(program: Program): string[] {
  return [...halfTensors(program)].map((id) => program.tensors[id]?.name ?? "");
}

function halvesIn(outputs: readonly string[], build: (r: Recorder) => unknown): string[] {
  const r = record("halves");
  build(r);
  return halvesOf(r.finish(outputs));
}

test("halfTensors() takes what a training step's products, attention and gating pass on, and no sum, gradient or logits", () => {
  const kinds = new Set(halvesOf(trainProgram(MODEL, 2)).map((name) => name.replace(/\.\d+$/, "")));
  expect([...kinds].toSorted()).toEqual(
    ["attended", "gate", "gated", "keys", "normed", "queries", "turned", "up", "values"].toSorted(),
  );
});

test("halfTensors() takes no gradient, also where a product is all that lies between two others", () => {
  const r = record("two products");
  const params = r.state("params", [256]);
  const [first, second] = [r.view("first", params, 0, [8, 8]), r.view("second", params, 64, [8, 8])];
  const hidden = r.matmul(r.input("x", [4, 8]), first, { out: r.value("hidden", [4, 8]) });
  const logits = r.matmul(hidden, second, { out: r.value("logits", [4, 8]) });
  r.crossEntropy(logits, r.input("targets", [4], "u32"));
  const program = grad(r.finish(["loss"]), { loss: "loss" });
  const gradient = program.ops.flatMap(writesOf).filter((id) => program.tensors[id]?.name.startsWith("dhidden"));
  expect(gradient).toHaveLength(1);
  expect(halvesOf(program)).toEqual(["hidden"]);
});

test("halfTensors() leaves outputs, matrices with windows, rows of odd length and sums alone", () => {
  const chain = (r: Recorder, width: number): number => {
    const x = r.matmul(r.input("x", [4, 8]), r.input("w", [8, width]), { out: r.value("middle", [4, width]) });
    r.matmul(x, r.input("back", [width, 8]));
    return x;
  };
  expect(halvesIn([], (r) => chain(r, 6))).toEqual(["middle", "product"]);
  expect(halvesIn(["middle", "product"], (r) => chain(r, 6))).toEqual([]);
  expect(halvesIn(["product"], (r) => chain(r, 7))).toEqual([]);
  expect(halvesIn(["product"], (r) => r.view("rows", chain(r, 6), 0, [2, 6]))).toEqual([]);
  expect(halvesIn(["product"], (r) => r.add(chain(r, 6), r.input("other", [4, 6])))).toEqual([]);
  const sum = (r: Recorder): unknown =>
    r.matmul(r.input("x", [4, 8]), r.input("w", [8, 6]), { add: r.input("add", [4, 6]), out: r.value("sum", [4, 6]) });
  expect(halvesIn([], sum)).toEqual([]);
  const gatedSum = (r: Recorder): unknown => {
    const [x, w] = [r.input("x", [8, 8]), r.input("w", [8, 8])];
    const up = r.matmul(x, w, { out: r.value("up", [8, 8]) });
    return r.swiglu(r.matmul(w, x, { add: r.matmul(x, w), out: r.value("sum", [8, 8]) }), up);
  };
  expect(halvesIn([], gatedSum)).toEqual(["up"]);
});

test("halfTensors() halve most of what a training step holds besides states", () => {
  const program = trainProgram({ ...MODEL, layers: 12, time: 128 }, 8);
  const halves = halfTensors(program);
  const steps = fuse(program, 8).map((group) => group.flat());
  const bytes = (elementBytes: (id: number) => number): number =>
    assignSlots([...valueLifetimes(program, steps, elementBytes).values()]).bytes.reduce((sum, size) => sum + size, 0);
  expect(bytes((id) => (halves.has(id) ? 2 : 4)) / bytes(() => 4)).toBeLessThan(0.62);
});
