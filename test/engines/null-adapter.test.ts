/** Every rung compiles for subgroup sizes that no adapter here has, as Chrome would compile it (`null-adapter.ts`). */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, expect, test } from "vitest";
import type { Compilations } from "./null-adapter.ts";
import { rungs } from "./rungs.ts";

let found: Compilations;

beforeAll(async () => {
  const node = join(import.meta.dirname, "../../node_modules/.bin/node");
  const script = join(import.meta.dirname, "null-adapter.ts");
  const { stdout } = await promisify(execFile)(node, ["--experimental-import-text", script]);
  found = JSON.parse(stdout) as Compilations;
});

test("the null adapter has subgroups and f16", () => {
  expect(found.features).toEqual(expect.arrayContaining(["subgroups", "shader-f16"]));
});

test("every rung compiles, those of subgroups for 16, 32 and 64 lanes", () => {
  expect(found.failures).toEqual([]);
  expect(found.compiled).toBeGreaterThan(4 * rungs.length);
});

test("a barrier that only some invocations reach does not compile", () => {
  expect(found.control).toContain("must only be called from uniform control flow");
});
