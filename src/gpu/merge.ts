/**
 * Several dispatches as one, by their texts alone: the kernels stay as they are. Parts run beside each other, each on
 * workgroups of its own; a part may itself be several kernels that run in turn on the same workgroups, where each invocation
 * reads only what it wrote itself (a product that adds to the one before it). An elementwise kernel at the end of a part
 * runs as its function `element` in the place of `stored`, which the kernel before it calls with the number of every value
 * that it has written. Which ops allow that is decided in `fuse.ts`. Every part's names get the part's number; what is the
 * same in two parts is declared once, workgroup memory included, so that it is not needed twice. Horizontal fusion as in Li
 * et al., arXiv 2007.01277.
 */
import { assert, present } from "../base/assert.ts";
import type { Binding, Dispatch } from "./dispatch.ts";
import type { Width } from "./shader.ts";

/** A declaration at module level; a kernel's file has one a line, functions up to a line "}". */
interface Declaration {
  readonly name: string;
  readonly text: string;
  /** The number of a binding. */
  readonly index?: number;
}

/** What the whole text holds so far. */
interface Merged {
  readonly directives: Set<string>;
  /** The name that each declaration got, by its text under its own name. */
  readonly known: Map<string, string>;
  readonly lines: string[];
  /** One for each tensor and element type. */
  readonly bindings: { readonly name: string; readonly element: string; binding: Binding }[];
  readonly builtins: Map<string, string>;
  size: string;
}

const HOLE = "$";

/** `parts` run beside each other, the dispatches of a part in turn, all with workgroups of one size. */
export function mergeDispatches(parts: readonly (readonly Dispatch[])[]): Dispatch {
  const merged: Merged = {
    directives: new Set(),
    known: new Map(),
    lines: [],
    bindings: [],
    builtins: new Map([["workgroup_id", "vec3<u32>"]]),
    size: "",
  };
  const branches: string[] = [];
  let first = 0;
  for (const [number, part] of parts.entries()) {
    const last = present(part.at(-1), "part");
    const turns = isElementwise(last) ? part.slice(0, -1) : part;
    const element = isElementwise(last) ? appendElement(merged, last, `${number}_${turns.length}`) : undefined;
    const calls = turns.map((dispatch, turn) => {
      const stored = turn === turns.length - 1 ? element : undefined;
      return append(merged, dispatch, { suffix: `${number}_${turn}`, stored });
    });
    const { groups } = present(turns[0], "kernel to go before");
    assert(
      turns.every((one) => one.groups === groups),
      "Cannot merge in turn: the dispatches have different workgroups",
    );
    const group = first === 0 ? "vec3<u32>(i, 0u, 0u)" : `vec3<u32>(i - ${first}u, 0u, 0u)`;
    first += groups;
    const body = calls.map((call) => `    ${call.replace("workgroup_id", group)}\n`).join("");
    branches.push(`if (i < ${first}u) {\n${body}  }`);
  }
  const parameters = [...merged.builtins].map(([name, type]) => `@builtin(${name}) ${name}: ${type}`);
  const declared = merged.bindings.map(({ name, element, binding }, i) => {
    return `@group(0) @binding(${i}) var<storage, ${isWritten(binding) ? "read_write" : "read"}> ${name}: ${element};`;
  });
  const text = [
    ...merged.directives,
    ...declared,
    ...merged.lines,
    `${merged.size}\nfn main(${parameters.join(", ")}) {`,
    "  let i = workgroup_id.x + workgroup_id.y * GRID_X;",
    `  ${branches.join(" else ")}`,
    "}\n",
  ].join("\n");
  const kernel = parts.map((part) => part.map((dispatch) => dispatch.kernel).join(" then ")).join(" | ");
  const bindings = merged.bindings.map(({ binding }) => binding);
  return { kernel, text, constants: {}, bindings, groups: first };
}

/** How many elements a kernel of products writes at a time. */
export function widthStored({ text }: Dispatch): Width {
  return / out: array<vec4</.test(text) ? 4 : 1;
}

function isElementwise({ text }: Dispatch): boolean {
  return /^fn element\(/m.test(text);
}

/**
 * Adds one dispatch's declarations under names with `suffix`, with the function `stored` in the place of its own; returns the
 * call of what was its main function.
 */
function append(
  merged: Merged,
  dispatch: Dispatch,
  { suffix, stored }: { readonly suffix: string; readonly stored: string | undefined },
): string {
  const { declarations, directives, main, size } = parse(textOf(dispatch));
  directives.forEach((line) => merged.directives.add(line));
  const names = bind(merged, dispatch, declarations, suffix);
  const own = declarations.filter(({ name }) => stored === undefined || name !== "stored");
  if (stored !== undefined) {
    assert(own.length < declarations.length, `Cannot merge: ${dispatch.kernel} does not tell what it has stored`);
    names.set("stored", stored);
  }
  declare(merged, [...own, main], { names, suffix });
  const workgroup = rename(size, names);
  assert(
    merged.size === "" || merged.size === workgroup,
    `Cannot merge: workgroups are ${merged.size} and ${workgroup}`,
  );
  merged.size = workgroup;
  const parameters = main.parameters.map(([builtin, type]) => {
    merged.builtins.set(builtin, type);
    return builtin;
  });
  return `${names.get("main")}(${parameters.join(", ")});`;
}

/** Adds the declarations of an elementwise kernel; returns the name of the function that computes one value. */
function appendElement(merged: Merged, dispatch: Dispatch, suffix: string): string {
  const { declarations, directives } = parse(textOf(dispatch));
  directives.forEach((line) => merged.directives.add(line));
  const names = bind(merged, dispatch, declarations, suffix);
  declare(merged, declarations, { names, suffix });
  return present(names.get("element"), "element");
}

function textOf({ constants, text }: Dispatch): string {
  const lines = Object.entries(constants).map(([name, value]) => `const ${name} = ${value};\n`);
  return `${lines.join("")}${text}`;
}

/** Adds what is not a binding, each under a name of its own, which `names` gets. */
function declare(
  merged: Merged,
  declarations: readonly Declaration[],
  { names, suffix }: { readonly names: Map<string, string>; readonly suffix: string },
): void {
  for (const { name, text } of declarations.filter(({ index }) => index === undefined)) {
    // The name is part of what must be equal: a kernel may declare two arrays of one type.
    const key = rename(text, new Map([...names, [name, `${HOLE}${name}`]]));
    const known = merged.known.get(key);
    const unique = known ?? `${name}_${suffix}`;
    if (known === undefined) {
      merged.known.set(key, unique);
      merged.lines.push(key.replaceAll(`${HOLE}${name}`, unique));
    }
    names.set(name, unique);
  }
}

/** The names of `dispatch`'s bindings in the whole text. One that is not used takes the name of what the kernel writes. */
function bind(
  merged: Merged,
  dispatch: Dispatch,
  declarations: readonly Declaration[],
  suffix: string,
): Map<string, string> {
  const names = new Map<string, string>();
  const unused: Declaration[] = [];
  let written = "";
  for (const declaration of declarations.filter(({ index }) => index !== undefined)) {
    const binding = present(dispatch.bindings[declaration.index as number], `binding "${declaration.name}"`);
    if (binding.type === "none") {
      unused.push(declaration);
      continue;
    }
    const element = declaration.text;
    const known = merged.bindings.find((other) => other.element === element && isSame(other.binding, binding));
    const entry = known ?? { name: `${declaration.name}_${suffix}`, element, binding };
    if (known === undefined) {
      merged.bindings.push(entry);
    } else if (isWritten(binding)) {
      entry.binding = binding;
    }
    if (isWritten(binding)) {
      written = entry.name;
    }
    names.set(declaration.name, entry.name);
  }
  unused.forEach(({ name }) => names.set(name, written));
  return names;
}

function isWritten(binding: Binding): boolean {
  return (binding.type === "tensor" || binding.type === "scratch") && binding.access === "write";
}

function isSame(a: Binding, b: Binding): boolean {
  if (a.type === "table" && b.type === "table") {
    return a.key === b.key;
  }
  return a.type === "tensor" && b.type === "tensor" && a.id === b.id && a.window === b.window;
}

interface Parsed {
  readonly directives: readonly string[];
  readonly declarations: readonly Declaration[];
  readonly main: Declaration & { readonly parameters: readonly (readonly [string, string])[] };
  /** The attributes of the entry point. */
  readonly size: string;
}

function parse(source: string): Parsed {
  const directives: string[] = [];
  const declarations: Declaration[] = [];
  const lines = source.split("\n").filter((line) => !/^\s*(\/\/|$)/.test(line));
  const from = lines.findIndex((line) => line.startsWith("@compute"));
  for (let i = 0; i < from; i += 1) {
    const line = present(lines[i], "line");
    const binding = /^@group\(0\) @binding\((\d+)\) var<[^>]*> (\w+): (.*);$/.exec(line);
    const named = /^(?:const|fn|var<workgroup>) (\w+)/.exec(line);
    if (binding !== null) {
      declarations.push({ name: binding[2] ?? "", text: binding[3] ?? "", index: Number(binding[1]) });
    } else if (line.startsWith("enable ")) {
      directives.push(line);
    } else {
      assert(named !== null, `Cannot merge: "${line}" is no declaration`);
      const end = line.startsWith("fn ") ? lines.indexOf("}", i) : i;
      declarations.push({ name: named[1] ?? "", text: lines.slice(i, end + 1).join("\n") });
      i = end;
    }
  }
  const text = lines.slice(from + 1).join("\n");
  const parameters = [...text.matchAll(/@builtin\((\w+)\) \w+: ([\w<>]+)/g)].map(
    ([, builtin = "", type = ""]) => [builtin, type] as const,
  );
  const plain = text.replaceAll(/@builtin\(\w+\) /g, "");
  return { directives, declarations, main: { name: "main", text: plain, parameters }, size: lines[from] ?? "" };
}

/** Names are whole words that do not follow a dot, which would make them a component. */
function rename(text: string, names: ReadonlyMap<string, string>): string {
  return text.replaceAll(/(?<![.\w])[A-Za-z_]\w*/g, (word) => names.get(word) ?? word);
}
