import { expect, test } from "vitest";
import { record } from "./record.ts";
import { createTwin, evaluate } from "./twin.ts";

/** y = x · wᵀ with w a window into "params", beginning at its second element. */
function product() {
  const r = record("product");
  const x = r.input("x", [2, 3]);
  const params = r.state("params", [8]);
  const w = r.view("w", params, 1, [1, 3]);
  r.matmul(x, w, { transB: true, out: r.value("y", [2, 1]) });
  return r.finish(["y", "params"]);
}

test("createTwin() shares states by name among plans, zero until written", async () => {
  using twin = createTwin();
  using first = await twin.compile(product());
  using second = await twin.compile(product());
  first.write("x", new Float32Array([1, 2, 3, 4, 5, 6]));
  second.write("x", new Float32Array([1, 0, 0, 0, 0, 1]));
  expect((await first.run(["y"])).y).toEqual(new Float32Array([0, 0]));
  twin.writeState("params", new Float32Array([9, 1, 10, 100, 9, 9, 9, 9]));
  expect(await first.run(["y"])).toEqual({ y: new Float32Array([321, 654]) });
  const outputs = await second.run(["y", "params"]);
  expect(outputs.y).toEqual(new Float32Array([1, 100]));
  expect(outputs.params).toEqual(await twin.readState("params"));
  expect(first.stateBytes).toBe(32);
  expect(first.valueBytes).toBe(32);
});

test("createTwin() refuses wrong names, lengths and element types", async () => {
  using twin = createTwin();
  using plan = await twin.compile(product());
  expect(() => plan.write("z", new Float32Array(6))).toThrow('tensor "z"');
  expect(() => plan.write("params", new Float32Array(8))).toThrow("not an input");
  expect(() => plan.write("x", new Float32Array(5))).toThrow("got 5 values, need 6");
  expect(() => plan.write("x", new Uint32Array(6))).toThrow("f32");
  expect(() => twin.writeState("params", new Float32Array(7))).toThrow("got 7 values, need 8");
  expect(() => twin.writeState("moments", new Float32Array(7))).toThrow('"moments"');
  await expect(plan.run(["x"])).rejects.toThrow("not an output");
});

test("evaluate() returns every tensor in double precision", () => {
  const all = evaluate(product(), { x: [1, 2, 3, 4, 5, 6], params: [0, 0.1, 0.2, 0.3, 0, 0, 0, 0] });
  expect(all.get("y")).toEqual(new Float64Array([0.1 + 0.4 + 0.3 * 3, 0.4 + 1 + 0.3 * 6]));
  expect(all.get("w")).toEqual(new Float64Array([0.1, 0.2, 0.3]));
});
