import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { barredHere, circumstancesOf, exportTried, importTried, isBarred, KERNEL_TEXTS, mergeTried } from "./tried.ts";
import type { AnyRung, Trial } from "./trials.ts";

const here = { adapter: "nvidia ampere", browser: "Chrome/156", kernels: "a digest" };
const tried = new Map<Trial, readonly AnyRung[]>([
  ["nn 26", ["register", "tiled-64x64"]],
  ["nt 9", ["subgroup-8x4"]],
  ["attention 20", ["flash-64"]],
  ["attentionBackward 21", ["rows", "flash-16"]],
]);

test("importTried() takes what exportTried() wrote in the same circumstances, and nothing else", () => {
  const text = exportTried(tried, here);
  expect(importTried(text, here)).toEqual(tried);
  for (const name of Object.keys(here)) {
    expect(importTried(text, { ...here, [name]: "another" })).toBeUndefined();
  }
  for (const other of [
    "",
    "null",
    "7",
    '{"version":3}',
    text.replace('"version":3', '"version":2'),
    text.replace('"register"', '"warp"'),
    text.replace('"register"', '"rows"'),
    text.replace('"rows"', '"register"'),
    text.replace('"nn 26"', '"xx 26"'),
    text.replace('"nn 26"', '"nn"'),
    text.replace('["flash-64"]', "[]"),
    text.replace('["flash-64"]', '"flash-64"'),
    text.padEnd(16_385),
  ]) {
    expect([other, importTried(other, here)]).toEqual([other, undefined]);
  }
});

test("exportTried() keeps the last sizes only", () => {
  const many = new Map(Array.from({ length: 100 }, (_, i) => [`nn ${i}`, ["register"]] as const));
  expect([...(importTried(exportTried(many, here), here) ?? [])].map(([trial]) => trial)).toEqual(
    [...many.keys()].slice(36),
  );
});

test("isBarred() takes what barredHere() wrote in the same circumstances, and nothing else", () => {
  expect(isBarred(barredHere(here), here)).toBe(true);
  expect(isBarred(barredHere(here), { ...here, browser: "Chrome/157" })).toBe(false);
  expect(isBarred(exportTried(tried, here), here)).toBe(false);
  expect(isBarred("", here)).toBe(false);
});

test("mergeTried() takes of each trial the list that got further, and leaves what is barred or from elsewhere", () => {
  const mine = new Map<Trial, readonly AnyRung[]>([
    ["nn 26", ["tiled-64x64", "register"]],
    ["nt 9", ["subgroup-8x4", "register"]],
    ["nn 5", ["register"]],
  ]);
  const theirs = new Map([...tried, ["nn 5", ["register", "tiled-64x64"]] as const]);
  const merged = mergeTried(exportTried(mine, here), exportTried(theirs, here), here);
  expect([...(importTried(merged, here) ?? [])]).toEqual([
    ["attention 20", ["flash-64"]],
    ["attentionBackward 21", ["rows", "flash-16"]],
    ["nn 5", ["register", "tiled-64x64"]],
    ["nn 26", ["tiled-64x64", "register"]],
    ["nt 9", ["subgroup-8x4", "register"]],
  ]);
  const text = exportTried(mine, here);
  expect(mergeTried(text, barredHere(here), here)).toBe(barredHere(here));
  expect(mergeTried(text, exportTried(tried, { ...here, adapter: "another" }), here)).toBe(text);
  expect(mergeTried(text, "", here)).toBe(text);
});

test("circumstancesOf() digests every text that a candidate is made of", () => {
  const folder = join(import.meta.dirname, "../../shaders");
  const texts = readdirSync(folder)
    .filter((name) => /^(matmul|attention)/.test(name))
    .map((name) => readFileSync(join(folder, name), "utf8").replaceAll(/^ *\/\/.*\n/gm, "")); // as bundled
  expect(new Set(KERNEL_TEXTS)).toEqual(new Set(texts));
  expect(circumstancesOf("a").kernels).toMatch(/^[0-9a-f]{64}$/);
});
