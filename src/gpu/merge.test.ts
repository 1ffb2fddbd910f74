/** Merged kernels are text: names are kept apart, what is equal is declared once, and each part gets its workgroups. */
import { expect, test } from "vitest";
import { read, write, type Dispatch } from "./dispatch.ts";
import { mergeDispatches } from "./merge.ts";

const TEXT = `// a kernel
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> add: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

const TWICE = SIZE * 2u;
var<workgroup> tile: array<f32, TWICE>;
var<workgroup> other: array<f32, TWICE>;

fn value(i: u32) -> f32 {
  let turn = vec2<f32>(x[i], 1.0);
  return turn.x;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= N) {
    return;
  }
  out[i] = value(i);
}
`;

function dispatch(x: number, out: number, n: number, groups: number): Dispatch {
  const bindings = [read(x), { type: "none" } as const, write(out)];
  return { kernel: "copy", text: TEXT, constants: { SIZE: "8u", N: `${n}u` }, bindings, groups };
}

test("mergeDispatches() divides the workgroups, binds each tensor once and leaves unused bindings out", () => {
  const merged = mergeDispatches([[dispatch(0, 1, 100, 2)], [dispatch(0, 2, 200, 4)]]);
  expect(merged.kernel).toBe("copy | copy");
  expect(merged.groups).toBe(6);
  expect(merged.bindings).toEqual([read(0), write(1), write(2)]);
  expect(merged.text).toContain("@binding(0) var<storage, read> x_0_0: array<f32>;");
  expect(merged.text).toContain("@binding(2) var<storage, read_write> out_1_0: array<f32>;");
  expect(merged.text).toContain("if (i < 2u) {\n    main_0_0(vec3<u32>(i, 0u, 0u), local_invocation_index);");
  expect(merged.text).toContain("if (i < 6u) {\n    main_1_0(vec3<u32>(i - 2u, 0u, 0u), local_invocation_index);");
});

test("mergeDispatches() declares what two parts have alike once, two arrays of one part apart, and leaves components alone", () => {
  const { text } = mergeDispatches([[dispatch(0, 1, 100, 2)], [dispatch(0, 2, 200, 4)]]);
  const count = (part: string): number => text.split(part).length - 1;
  expect([count("const SIZE"), count("const N"), count("var<workgroup>"), count("fn value")]).toEqual([1, 2, 2, 1]);
  expect(text).toContain("return turn.x;");
});

test("mergeDispatches() runs the dispatches of one part in turn, writing where they add", () => {
  const first = dispatch(0, 1, 100, 2);
  const second = { ...first, bindings: [read(2), { type: "tensor", id: 1, access: "read" } as const, write(1)] };
  const merged = mergeDispatches([[first, second]]);
  expect(merged.groups).toBe(2);
  expect(merged.bindings).toEqual([read(0), write(1), read(2)]);
  const calls = [...merged.text.matchAll(/^ {4}(main_\w+)\(/gm)].map(([, name]) => name);
  expect(calls).toEqual(["main_0_0", "main_0_1"]);
});

const ELEMENTS = `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

fn element(i: u32) {
  out[i] = x[i] * x[i];
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  element(id.x);
}
`;

test("mergeDispatches() calls an elementwise kernel where the one before it has stored", () => {
  const square = { kernel: "square", text: ELEMENTS, constants: {}, bindings: [read(1), write(2)], groups: 1 };
  const plain = dispatch(0, 1, 100, 2);
  const calling = TEXT.replace("fn value", "fn stored(i: u32) {\n}\nfn value").replace(
    "  out[i] = value(i);\n",
    "  out[i] = value(i);\n  stored(i);\n",
  );
  const merged = mergeDispatches([[{ ...plain, text: calling }, square]]);
  expect(merged.kernel).toBe("copy then square");
  expect(merged.groups).toBe(2);
  expect(merged.bindings).toEqual([write(1), write(2), read(0)]);
  expect(merged.text).toContain("fn element_0_1(i: u32) {\n  out_0_1[i] = x_0_1[i] * x_0_1[i];\n}");
  expect(merged.text).toContain("  x_0_1[i] = value_0_0(i);\n  element_0_1(i);\n");
  expect(merged.text).not.toContain("stored");
  expect(merged.text.match(/fn main/g)?.length).toBe(2);
  expect(() => mergeDispatches([[plain, square]])).toThrow("copy does not tell what it has stored");
});

test("mergeDispatches() refuses workgroups of two sizes", () => {
  const other = { ...dispatch(0, 2, 1, 1), text: TEXT.replace("(64)", "(32)") };
  expect(() => mergeDispatches([[dispatch(0, 1, 1, 1)], [other]])).toThrow("Cannot merge: workgroups are");
});
