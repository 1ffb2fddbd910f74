/**
 * The examples of the package `heddle/engine`, small: the loss falls, and on WASM a second run gives the same. The manual
 * shows them word for word.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { createWasmEngine } from "../src/library/engine.ts";
import * as library from "../src/library/engine.ts";
import { generate } from "../examples/generate.js";
import { train } from "../examples/llama.js";
import { matmul } from "../examples/matmul.js";

const root = resolve(import.meta.dirname, "..");
const manual = readFileSync(join(root, "docs/engine.md"), "utf8");
const source = (name: string): string => readFileSync(join(root, "examples", name), "utf8");
const LINES_MAX = 40;

describe("the examples", () => {
  test("matmul() gives the product", async () => {
    using engine = await createWasmEngine();
    const lines: string[] = [];
    const c = await matmul(engine, (line: string) => lines.push(line), { m: 5, n: 7, k: 3 });
    expect(c.length).toBe(35);
    expect(lines.join()).toMatch(/^5×3 · 3×7 on WASM SIMD/);
  });

  test("train() lets the loss fall, and generate() writes the same text twice on WASM", async () => {
    const lines: string[] = [];
    const print = (line: string): void => void lines.push(line);
    const once = async (): Promise<string> => {
      using engine = await createWasmEngine();
      return await generate(engine, print, { steps: 12, count: 12 });
    };
    const text = await once();
    expect(text.length).toBeGreaterThan(0);
    expect(await once()).toBe(text);
    using engine = await createWasmEngine({ threads: 1 });
    const { losses } = await train(engine, print, { steps: 12 });
    expect(losses[0]).toBeCloseTo(Math.log(256), 1);
    expect(losses.at(-1)).toBeLessThan((losses[0] as number) - 0.8);
    expect(lines[0]).toBe(`step 1: loss ${(losses[0] as number).toFixed(3)}`);
  });

  test("npm run example lists them when it is given no name, or none of theirs, and sets up nothing", () => {
    for (const args of [[], ["nothing"]]) {
      const { status, stderr } = spawnSync(process.execPath, [join(root, "tools/run.mjs"), "example", ...args]);
      expect(status).toBe(2);
      expect(String(stderr)).toBe(`Cannot run the example "${args[0] ?? ""}": there are generate, llama, matmul\n`);
    }
  });

  test(`none has more than ${LINES_MAX} lines`, () => {
    for (const name of readdirSync(join(root, "examples")).filter((file) => file.endsWith(".js"))) {
      expect(source(name).trimEnd().split("\n").length, name).toBeLessThanOrEqual(LINES_MAX);
    }
  });
});

describe("docs/engine.md", () => {
  test("shows every example as it is", () => {
    const shown = [...manual.matchAll(/```js file=(\S+)\n([\s\S]*?)```/g)].map(([, name, text]) => [name, text]);
    const names = readdirSync(join(root, "examples")).filter((file) => file.endsWith(".js"));
    expect(shown.map(([name]) => name).toSorted()).toEqual(names.toSorted());
    for (const [name = "", text] of shown) {
      expect(text).toBe(source(name));
    }
  });

  test("names everything that the library exports", () => {
    const missing = Object.keys(library).filter((name) => !new RegExp(`\\b${name}\\b`).test(manual));
    expect(missing).toEqual([]);
  });

  test("has a row for every op that a Program may hold", () => {
    const program = readFileSync(join(root, "src/tensor/program.ts"), "utf8");
    const table = manual.slice(manual.indexOf("## Ops, engines, types"));
    const ops = [...program.matchAll(/readonly type: "(\w+)"/g)].map(([, type = ""]) => type);
    expect(ops.length).toBeGreaterThan(10);
    expect(ops.filter((op) => !new RegExp(`\\b${op}\\b`).test(table))).toEqual([]);
  });
});
