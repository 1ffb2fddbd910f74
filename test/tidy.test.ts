/**
 * The repository's own rules, checked on its source text: who may import whom, how long a file and a line may be, what a
 * shader's header must say, which words mark unfinished work. `docs/layout.md` explains the layers.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");

/** Lower layers first. A folder may import from its own and from lower layers' folders. */
const LAYERS: readonly (readonly string[])[] = [
  ["src/base"],
  ["src/tensor", "src/protocol", "src/data", "src/store"],
  ["src/gpu", "src/wasm", "src/model", "src/update", "src/net"],
  ["src/engines", "src/trust"],
  ["src/coordinator", "src/contributor"],
  ["src/sim", "src/ui"],
  ["src/app", "src/bench", "src/observatory", "src/library", "src/widget", "src/relay", "src/headless", "worker"],
];
/** Contracts that are types only may be read across layers: the lane names and the view belong to what they describe. */
const TYPE_ONLY: readonly string[] = ["src/net/link.ts", "src/update/kernel.ts"];
const LINES_MAX = 500;
const COLUMNS_MAX = 160;

/** A package in a lock file. */
interface Locked {
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const files = ["src", "worker", "test", "bench", "experiments", "shaders", "tools"].flatMap((folder) =>
  below(join(root, folder)),
);
const sources = files.filter((path) => path.endsWith(".ts") && !path.includes("src/wasm/assembly/"));

describe("layers", () => {
  for (const path of sources.filter((file) => layerOf(file) !== -1 && !file.endsWith(".test.ts"))) {
    test(`${path} imports only from its layer's reach`, () => {
      const faults = importsOf(path).filter((target) => {
        const to = layerOf(target);
        const same = folderOf(target) === folderOf(path);
        return to !== -1 && !same && !TYPE_ONLY.includes(target) && to >= layerOf(path);
      });
      expect(faults).toEqual([]);
    });
  }
});

describe("files", () => {
  test("every folder of src and worker has its place in the layer table", () => {
    const folders = new Set(sources.map(folderOf).filter((folder) => folder.startsWith("src/") || folder === "worker"));
    expect([...folders].filter((folder) => !LAYERS.flat().includes(folder))).toEqual([]);
  });
  test(`no source file is longer than ${LINES_MAX} lines`, () => {
    expect(sources.filter((path) => text(path).split("\n").length > LINES_MAX)).toEqual([]);
  });
  test(`no line is longer than ${COLUMNS_MAX} columns`, () => {
    const long = sources.flatMap((path) =>
      text(path)
        .split("\n")
        .map((line, i) => ({ at: `${path}:${i + 1}`, line }))
        .filter(({ line }) => line.length > COLUMNS_MAX && !/["'`/]| = \w+\(/.test(line))
        .map(({ at }) => at),
    );
    expect(long).toEqual([]);
  });
  test("every source file opens with a paragraph that says what it is for", () => {
    expect(
      sources.filter(
        (path) => !path.endsWith(".d.ts") && !path.endsWith(".test.ts") && !/^(#!.*\n)?\/\*\*/.test(text(path)),
      ),
    ).toEqual([]);
  });
  test.each(["package-lock.json", "bench/peers/package-lock.json"])("%s has what every platform needs", (path) => {
    const { packages } = JSON.parse(text(path)) as { readonly packages: Readonly<Record<string, Locked>> };
    const holes = Object.entries(packages).flatMap(([from, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) => !(`node_modules/${name}` in packages) && !(`${from}/node_modules/${name}` in packages),
      ),
    );
    expect(holes).toEqual([]);
  });

  test("no file is named after nothing in particular", () => {
    expect(files.filter((path) => /(^|\/)(utils?|helpers?|manager|common|misc)\b/.test(path))).toEqual([]);
  });
  test("nothing is marked unfinished, skipped or silenced", () => {
    const marks =
      /\b(TODO|FIXME|XXX|HACK)\b|@ts-ignore|@ts-expect-error|\b(it|test|describe)\.(skip|only|todo)\(|oxlint-disable(?!.*--)/;
    const found = files
      .filter((path) => !path.endsWith("tidy.test.ts"))
      .filter((path) => /\.(ts|wgsl|mjs)$/.test(path) && marks.test(text(path)));
    expect(found).toEqual([]);
  });
});

describe("shaders", () => {
  for (const path of files.filter((file) => file.endsWith(".wgsl"))) {
    test(`${path} has a header that is its contract`, () => {
      const header = text(path).split(/^[^/\s]/m)[0] ?? "";
      for (const field of ["bindings", "dispatch", "twin", "tolerance", "source"]) {
        expect(header.toLowerCase(), `${path} must say its ${field}`).toContain(field);
      }
    });
  }
});

function below(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      return entry.name === "node_modules" ? [] : below(path);
    }
    return [relative(root, path)];
  });
}

function text(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

function folderOf(path: string): string {
  const [first = "", second = ""] = path.split("/");
  return first === "src" && path.split("/").length > 2 ? `${first}/${second}` : first;
}

function layerOf(path: string): number {
  return LAYERS.findIndex((layer) => layer.includes(folderOf(path)));
}

/** Paths of the project's own modules that `path` imports, relative to the root. */
function importsOf(path: string): string[] {
  const found = [...text(path).matchAll(/(?:from|import)\s*\(?\s*["'](\.[^"']+)["']/g)].map((match) => match[1] ?? "");
  return found
    .map((target) => relative(root, resolve(root, dirname(path), target)))
    .filter((target) => exists(join(root, target)));
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
