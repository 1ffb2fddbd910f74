/** Specialisation is text: constants in front, and bindings changed only where two tensors lie in one buffer. */
import { expect, test } from "vitest";
import { bool, f32, inValues, narrow, specialise, u32, unroll } from "./shader.ts";

const text = [
  "@group(0) @binding(0) var<storage, read> addend: array<f32>;",
  "@group(0) @binding(1) var<storage, read_write> out: array<f32>;",
  "out[0] = addend[0] + f32(N);",
].join("\n");

test("specialise() writes constants before the text", () => {
  expect(specialise(text, { N: u32(3), EPS: f32(1e-5), ADD: bool(true) })).toBe(
    `const N = 3u;\nconst EPS = ${Math.fround(1e-5)}f;\nconst ADD = true;\n\n${text}`,
  );
});

test("specialise() makes a binding writable", () => {
  expect(specialise(text, {}, { rebindings: [{ type: "writable", index: 0 }] })).toContain(
    "@binding(0) var<storage, read_write> addend",
  );
});

test("specialise() lets one variable stand for another", () => {
  const changed = specialise(text, {}, { rebindings: [{ type: "same-as", index: 0, target: 1 }] });
  expect(changed).toContain("out[0] = out[0] + f32(N);");
  expect(changed).not.toContain("addend");
});

test("specialise() says how long the arrays are that are bound", () => {
  const quads = "@group(0) @binding(2) var<storage, read> quads: array<vec4<f32>>;";
  const sized = specialise(`${text}\n${quads}`, {}, { bindingBytes: [20, 12, 40] });
  expect(sized).toContain("addend: array<f32, 5>;");
  expect(sized).toContain("out: array<f32, 3>;");
  expect(sized).toContain("quads: array<vec4<f32>, 2>;");
  expect(specialise(narrow(quads, [2]), {}, { bindingBytes: [20, 12, 40] })).toContain("quads: array<vec4<f16>, 5>;");
  expect(() => specialise("@group(0) @binding(0) var<storage> x: array<Pair>;", {}, { bindingBytes: [8] })).toThrow(
    "Cannot size an array of Pair",
  );
});

test("u32() and f32() refuse what WGSL cannot hold", () => {
  expect(() => u32(-1)).toThrow("Cannot write -1 as u32");
  expect(() => u32(1.5)).toThrow();
  expect(() => f32(1e39)).toThrow("Cannot write 1e+39 as f32");
});

test("specialise() leaves directives in front", () => {
  expect(specialise("// note\nenable subgroups;\nrest", { N: "1u" })).toBe(
    "enable subgroups;\nconst N = 1u;\n\n// note\nrest",
  );
});

test("unroll() repeats a line for each block that it mentions, comments excepted", () => {
  const lines = ["// $r", "let a$r = $R;", "s$r_$c += a$r * b$c;", "done"].join("\n");
  expect(unroll(lines, { r: 2, c: 1 }).split("\n")).toEqual([
    "// $r",
    "let a0 = 2u;",
    "let a1 = 2u;",
    "s0_0 += a0 * b0;",
    "s1_0 += a1 * b0;",
    "done",
  ]);
});

test("unroll() leaves out a line whose count is 0, and the mark of one that stays", () => {
  const lines = ["x = 1; // $s", "x = 2; // $t", "y$r = 3; // $t"].join("\n");
  expect(unroll(lines, { s: 0, t: 1, r: 2 })).toBe("x = 2;\ny0 = 3;\ny1 = 3;");
});

test("unroll() repeats what stands between `{ // $r` and its brace as a whole", () => {
  const lines = ["  { // $r", "    let a = x[$r];", "    s$r_$c += a;", "  }", "done"].join("\n");
  const block = (i: number): string[] => [
    "  {",
    `    let a = x[${i}];`,
    `    s${i}_0 += a;`,
    `    s${i}_1 += a;`,
    "  }",
  ];
  expect(unroll(lines, { r: 2, c: 2 }).split("\n")).toEqual([...block(0), ...block(1), "done"]);
});

test("inValues() writes a kernel for one element or four at a time", () => {
  const kernel = "var<storage, read> x: array<Value>;\nlet Values = select(x[i], Value(1.0), true);";
  expect(inValues(kernel, 1)).toBe("var<storage, read> x: array<f32>;\nlet Values = select(x[i], f32(1.0), true);");
  expect(inValues(kernel, 4)).toContain("array<vec4<f32>>;\nlet Values = select(x[i], vec4<f32>(1.0), true);");
});

const KERNEL = `// out[i] = a[i] is what it does
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> at: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
fn last(i: u32) -> f32 { return data[0] + a[at[i]]; } // a[i]
`;

test("narrow() declares f16 and widens each element that is read, indices within indices too", () => {
  const text = narrow(`${KERNEL}let x = a[u32(a[i + at[1]])] == self.a[2];`, [0]);
  expect(text).toContain("enable f16;\n");
  expect(text).toContain("@binding(0) var<storage, read> a: array<f16>;");
  expect(text).toContain("@binding(2) var<storage, read_write> out: array<vec4<f32>>;");
  expect(text).toContain("return data[0] + f32(a[at[i]]);");
  expect(text).toContain("let x = f32(a[u32(f32(a[i + at[1]]))]) == self.a[2];");
  expect(text).not.toContain("//");
});

test("narrow() rounds what is assigned to the nearest f16 that is finite", () => {
  const text = narrow(`${KERNEL}  out[i + at[0]] =\n    out[i] * a[i];\n  next();`, [0, 2]);
  expect(text).toContain("var<storage, read_write> out: array<vec4<f16>>;");
  const value = "vec4<f32>(out[i]) * f32(a[i])";
  expect(text).toContain(`  out[i + at[0]] = rounded4(${value});\n  next();`);
  expect(text).toContain("fn rounded4(value: vec4<f32>) -> vec4<f16> {");
  expect(text).toContain("clamp(value, vec4<f32>(-65504), vec4<f32>(65504))");
  expect(text).not.toContain("fn rounded(");
});

test("narrow() refuses what it would get wrong", () => {
  expect(() => narrow(KERNEL, [1])).toThrow("its elements are neither f32 nor vec4<f32>");
  expect(() => narrow(`${KERNEL}out[i] += x;`, [2])).toThrow('Cannot narrow "out": out[i] += changes a part');
  expect(() => narrow(`${KERNEL}out[i].x = 1.0;`, [2])).toThrow("changes a part of it or itself");
  expect(() => narrow(`${KERNEL}let x = a[i;`, [0])).toThrow("a bracket does not close");
});
