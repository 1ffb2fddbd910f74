import { expect, test } from "vitest";
import { record } from "../tensor/record.ts";
import { leftOpen, trialsOf } from "./trials.ts";

test("trialsOf() takes the largest op of each kind by the power of two of its work, of those that are left open", () => {
  const r = record("both");
  const shape = { batch: 1, time: 8, heads: 1, kvHeads: 1, headDim: 16 };
  const x = r.input("x", [8, 16]);
  const attended = r.attention(x, x, x, shape);
  r.matmul(attended, r.input("small", [16, 4]));
  r.matmul(attended, r.input("large", [16, 64]));
  const program = r.finish([]);
  const open = (matmul: "auto" | "naive", attention: "auto" | "naive"): string[] =>
    trialsOf(leftOpen(program, { matmul, attention })).map(({ trial }) => trial);
  expect(open("auto", "auto")).toEqual(["nn 13", "attention 10"]);
  expect(open("naive", "auto")).toEqual(["attention 10"]);
  expect(open("auto", "naive")).toEqual(["nn 13"]);
  expect(open("naive", "naive")).toEqual([]);
});
