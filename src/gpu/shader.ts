/**
 * From a kernel's file to the WGSL that a device compiles: the specialisation constants are written before the text, and
 * bindings are adapted to where their tensors lie and to how long they are. WebGPU forbids one buffer to be read and written
 * under two bindings of a dispatch unless both are declared writable and do not overlap; a Program may well read one window
 * of a state tensor and write another, or add to a tensor in place. Bindings whose tensors are kept as f16 are adapted too
 * (`narrow`), so that every kernel is written once, for f32.
 */
import { assert, AssertionError } from "../base/assert.ts";

/** read: var<storage, read>; write: var<storage, read_write>. */
export type Access = "read" | "write";

export type Constants = Readonly<Record<string, string>>;

/** How the text's binding number `index` is changed. "same-as": it is dropped, and `target`'s variable is used instead. */
export type Rebinding =
  | { readonly type: "writable"; readonly index: number }
  | { readonly type: "same-as"; readonly index: number; readonly target: number };

/** An unsigned WGSL literal. */
export function u32(value: number): string {
  assert(Number.isInteger(value) && value >= 0 && value < 2 ** 32, `Cannot write ${value} as u32`);
  return `${value}u`;
}

/** A float WGSL literal, rounded to f32. */
export function f32(value: number): string {
  assert(Number.isFinite(Math.fround(value)), `Cannot write ${value} as f32`);
  return `${Math.fround(value)}f`;
}

export function bool(value: boolean): string {
  return value ? "true" : "false";
}

export interface Adaptation {
  readonly rebindings?: readonly Rebinding[];
  /** Bytes that are bound, by binding number. */
  readonly bindingBytes?: readonly number[];
}

/** The WGSL text that is compiled; it is also the key under which its pipeline is cached. */
export function specialise(
  text: string,
  constants: Constants,
  { rebindings = [], bindingBytes = [] }: Adaptation = {},
): string {
  let body = sizeBindings(text, bindingBytes);
  for (const rebinding of rebindings) {
    if (rebinding.type === "writable") {
      const declared = `@binding(${rebinding.index}) var<storage, read>`;
      assert(
        body.includes(declared),
        `Cannot make binding ${rebinding.index} writable: the shader does not declare it`,
      );
      body = body.replace(declared, `@binding(${rebinding.index}) var<storage, read_write>`);
    } else {
      const [from, to] = [variableOf(body, rebinding.index), variableOf(body, rebinding.target)];
      body = body.replace(from.line, "");
      body = body.replaceAll(new RegExp(`\\b${from.name}\\b`, "g"), to.name);
    }
  }
  // WGSL wants directives before everything else.
  const directives = body.match(/^enable .*\n/gm) ?? [];
  const lines = Object.entries(constants).map(([name, value]) => `const ${name} = ${value};\n`);
  return `${directives.join("")}${lines.join("")}\n${body.replaceAll(/^enable .*\n/gm, "")}`;
}

/** How many elements a value of a kernel has that is written for both, and may be bound either way. */
export type Width = 1 | 4;

/** The text for values of `width` elements, whose type it calls Value. */
export function inValues(text: string, width: Width): string {
  return text.replaceAll(/\bValue\b/g, width === 1 ? "f32" : "vec4<f32>");
}

/** The largest finite f16. */
const F16_MAX = 65504;

/**
 * The text with the bindings of `indices` as arrays of f16: elements are widened where they are read and rounded where
 * they are assigned, so that all between stays f32. What is too large is stored as the largest f16, because WGSL lets a
 * compiler take it that nothing is infinite. A NaN stays one, which is told by its bits: a clamp may end it, and a compiler may take
 * it that there is none. Bindings are indexed by their names, a whole element at a time.
 */
export function narrow(text: string, indices: readonly number[]): string {
  // Comments speak of elements, too.
  let body = text.replaceAll(/\/\/.*$/gm, "");
  for (const index of indices) {
    const { line, name } = variableOf(body, index);
    const wide = /: array<(f32|vec4<f32>)>;$/.exec(line)?.[1];
    assert(wide !== undefined, `Cannot narrow "${line}": its elements are neither f32 nor vec4<f32>`);
    body = convert(body.replace(line, line.replace(wide, halfOf(wide))), name, wide);
  }
  const used = ["f32", "vec4<f32>"].filter((wide) => body.includes(`${rounding(wide)}(`));
  return `enable f16;\n${used.map(roundingText).join("")}${body}`;
}

/** The name of the function that rounds `wide` to its half. */
function rounding(wide: string): string {
  return wide === "f32" ? "rounded" : "rounded4";
}

function roundingText(wide: string): string {
  const bits = wide.replace("f32", "u32");
  return `fn ${rounding(wide)}(value: ${wide}) -> ${halfOf(wide)} {
  let isNumber = (bitcast<${bits}>(value) & ${bits}(0x7fffffffu)) <= ${bits}(0x7f800000u);
  return ${halfOf(wide)}(select(value, clamp(value, ${wide}(-${F16_MAX}), ${wide}(${F16_MAX})), isNumber));
}
`;
}

function halfOf(wide: string): string {
  return wide.replace("f32", "f16");
}

/** Every `name[…]` of `text` widened to `wide`, and every `name[…] = …;` rounded to its half. */
function convert(text: string, name: string, wide: string): string {
  const start = text.search(new RegExp(`(?<![.\\w])${name}\\[`));
  if (start === -1) {
    return text;
  }
  const end = closing(text, start + name.length) + 1;
  const [before, after] = [text.slice(0, start), text.slice(end)];
  const element = `${name}[${convert(text.slice(start + name.length + 1, end - 1), name, wide)}]`;
  const assigned = /^(?:\.\w+)?\s*[-+*/%&|^]?=(?!=)/.exec(after)?.[0];
  if (assigned === undefined) {
    return `${before}${wide}(${element})${convert(after, name, wide)}`;
  }
  assert(assigned.trim() === "=", `Cannot narrow "${name}": ${element}${assigned} changes a part of it or itself`);
  const stop = after.indexOf(";");
  const value = convert(after.slice(assigned.length, stop), name, wide).trim();
  return `${before}${element} = ${rounding(wide)}(${value})${convert(after.slice(stop), name, wide)}`;
}

/** Where the bracket that opens at `open` closes. */
function closing(text: string, open: number): number {
  let depth = 0;
  for (let i = open; i < text.length; i += 1) {
    depth += text[i] === "[" ? 1 : text[i] === "]" ? -1 : 0;
    if (depth === 0) {
      return i;
    }
  }
  throw new AssertionError(`Cannot narrow: a bracket does not close after "${text.slice(open, open + 20)}"`);
}

/**
 * Repeats lines: one that mentions $x stands for `counts.x` lines, with 0, 1 … in its place (none if the count is 0), one
 * that also mentions $y for that many times `counts.y`; $X is the count itself. A mark behind `//` at the end of a
 * line goes with it. What stands between a line `{ // $x` and its `}` is repeated as a whole, so that what it declares is
 * alive no longer than one block. Names are single letters. Lines of comment stay as they are.
 */
export function unroll(text: string, counts: Readonly<Record<string, number>>): string {
  const names = Object.entries(counts).map(([name, count]) => ({ mark: `$${name}`, name, count }));
  const counted = names.reduce((all, { name, count }) => all.replaceAll(`$${name.toUpperCase()}`, u32(count)), text);
  const repeat = (lines: readonly string[], mark: string, count: number): string[] =>
    lines.flatMap((line) => {
      const bare = line.endsWith(` // ${mark}`) ? line.slice(0, -mark.length - 4) : line;
      return line.includes(mark) ? Array.from({ length: count }, (_, i) => bare.replaceAll(mark, String(i))) : [line];
    });
  const whole = names.reduce((all, { mark, count }) => repeatBlocks(all, mark, count), counted);
  return whole
    .split("\n")
    .flatMap((line) =>
      line.startsWith("//") ? [line] : names.reduce((lines, { mark, count }) => repeat(lines, mark, count), [line]),
    )
    .join("\n");
}

/**
 * Tells the compiler how long each bound array is. It has to keep every index in range, and need not ask for the length then;
 * where it can tell that an index is in range, it checks nothing.
 */
function sizeBindings(text: string, bindingBytes: readonly number[]): string {
  const declared = /^(@group\(0\) @binding\((\d+)\) var<storage[^>]*> \w+: array<)(.*)>;$/gm;
  return text.replaceAll(declared, (line: string, start: string, index: string, element: string) => {
    const bytes = bindingBytes[Number(index)];
    return bytes === undefined ? line : `${start}${element}, ${Math.floor(bytes / elementBytes(element))}>;`;
  });
}

/** Bytes of "f32", "u32", "f16" or a vector of them. */
function elementBytes(element: string): number {
  const parts = /^(?:vec([24])<)?[fu](32|16)>?$/.exec(element);
  assert(parts !== null, `Cannot size an array of ${element}`);
  return (Number(parts[2]) / 8) * Number(parts[1] ?? 1);
}

function repeatBlocks(text: string, mark: string, count: number): string {
  const block = new RegExp(`^( *)\\{ // \\${mark}\\n(.*?)^\\1\\}$`, "gms");
  return text.replaceAll(block, (_, indent: string, body: string) => {
    const one = `${indent}{\n${body}${indent}}`;
    return Array.from({ length: count }, (_unused, i) => one.replaceAll(mark, String(i))).join("\n");
  });
}

function variableOf(text: string, index: number): { readonly line: string; readonly name: string } {
  const found = new RegExp(`^@group\\(0\\) @binding\\(${index}\\) var<[^>]*> (\\w+): .*$`, "m").exec(text);
  assert(found !== null && found[1] !== undefined, `Cannot rebind: the shader does not declare binding ${index}`);
  return { line: found[0], name: found[1] };
}
