/**
 * How good a neighbour the contributing page is: `npm run bench neighbour [ENGINE] [ROUNDS]` opens a relay's own page in headless
 * Chromium, lets an animation run on it with the slider at 50 %, and prints JSON lines with the 95th percentile and the
 * largest gap between its frames, for the WebGPU engine (on SwiftShader, which computes on the very cores that draw) and for
 * the WASM engine, beside the same page's figures while it is paused. Working and paused spells take turns; a figure is the
 * median of its spells, with the range beside it. A last line per engine says how long it took to open the page, and from
 * the click to the end of the first training step, with what the page said in between (ms since the page was opened).
 */
import { rmSync } from "node:fs";
import process from "node:process";
import type { Browser, Page } from "playwright-core";
import { beginContributing } from "../src/headless/chromium.ts";
import { percentile } from "../src/ui/frames.ts";
import { openBrowser, openPage } from "../test/e2e/browser.ts";
import { startRelay, temporaryFolder } from "../test/e2e/processes.ts";
import { readWhole } from "./load/options.ts";

const ROUNDS_DEFAULT = 3;
const SPELL_MS = 4_000;
/** After resuming: until the pace has found its slices again; after pausing: until the step at hand is over. */
const SETTLE_MS = 2_000;
const STEP_MS_MAX = 6_000;
const START_MS_MAX = 90_000;
const POWER_PERCENT = 50;
/**
 * One round that outlasts the measurement, so that nobody judges meanwhile on these cores; one sequence a step, because
 * SwiftShader takes seconds for the sample run's eight.
 */
const charter = { inner: { batch: 1 }, round: { trainMs: 300_000, stepsMax: 100_000 } };

const words = process.argv.slice(2);
const engines = (["webgpu", "wasm"] as const).filter((engine) => words.includes(engine) || !words.some(isEngine));
const rounds = readWhole("as many rounds as", words.find((word) => !isEngine(word)) ?? ROUNDS_DEFAULT);
const folder = temporaryFolder();
const relay = await startRelay({ dir: folder.path, charter, args: ["--no-contributor"] });
const browser = await openBrowser({ gpu: true });
try {
  for (const engine of engines) {
    await measure(browser, engine);
  }
} finally {
  await browser.close();
  await relay.stop("SIGINT");
  rmSync(folder.path, { recursive: true, force: true });
}
process.exit(0);

interface Spell {
  readonly p95Ms: number;
  readonly maxMs: number;
  readonly frames: number;
}

async function measure(chromium: Browser, engine: "webgpu" | "wasm"): Promise<void> {
  const beginMs = performance.now();
  const { page, faults } = await openPage(chromium, `${relay.origin}/?engine=${engine}`);
  await page.evaluate(animate);
  await page.locator("#power-input").fill(String(POWER_PERCENT));
  const pageMs = performance.now() - beginMs;
  const clickMs = performance.now();
  await beginContributing(page);
  await page.waitForFunction(hasTrained, undefined, { timeout: START_MS_MAX, polling: 50 });
  const stepMs = performance.now() - clickMs;
  const timeline = await page.evaluate("globalThis.states.slice()");
  const [working, paused]: [Spell[], Spell[]] = [[], []];
  for (let round = 0; round < rounds; round += 1) {
    await page.waitForTimeout(SETTLE_MS);
    working.push(await spell(page));
    await page.locator("#main").click();
    await page.waitForTimeout(engine === "wasm" ? SETTLE_MS : STEP_MS_MAX);
    paused.push(await spell(page));
    await page.locator("#main").click();
  }
  const device = await page.locator("#device-facts").innerText();
  print({ work: "frame gap", engine, power: `${POWER_PERCENT} %`, working: summary(working), paused: summary(paused) });
  const facts = device.split("\n").find((line) => /WASM|swiftshader/i.test(line)) ?? "";
  print({
    work: "page load to first step",
    engine,
    device: facts,
    pageMs: whole(pageMs),
    stepMs: whole(stepMs),
    timeline,
    faults,
  });
  await page.context().close();
}

/** Runs in the page: turns a box by a script each frame, keeps the times between frames, and what the page says when. */
function animate(): void {
  const box = document.body.appendChild(document.createElement("div"));
  box.style.cssText = "position:fixed;right:20px;top:20px;width:80px;height:80px;background:teal;z-index:9";
  const kept = globalThis as unknown as { gaps: number[]; states: { atMs: number; state: string }[] };
  kept.gaps = [];
  kept.states = [];
  const state = document.querySelector("#state");
  const note = (): void => {
    kept.states.push({ atMs: Math.round(performance.now()), state: state?.textContent ?? "" });
  };
  new MutationObserver(note).observe(state ?? document.body, { childList: true, characterData: true, subtree: true });
  let lastMs = performance.now();
  const turn = (): void => {
    const nowMs = performance.now();
    kept.gaps.push(nowMs - lastMs);
    lastMs = nowMs;
    box.style.transform = `rotate(${nowMs / 10}deg)`;
    requestAnimationFrame(turn);
  };
  requestAnimationFrame(turn);
}

/** Runs in the page: the first tokens have been learned from. */
function hasTrained(): boolean {
  return !/learned from 0 tokens/.test(document.querySelector("#progress-words")?.textContent ?? "from 0 tokens");
}

async function spell(page: Page): Promise<Spell> {
  await page.evaluate("globalThis.gaps.length = 0");
  await page.waitForTimeout(SPELL_MS);
  const gaps = (await page.evaluate("globalThis.gaps.slice()")) as number[];
  return { p95Ms: percentile(gaps, 0.95), maxMs: Math.max(...gaps), frames: gaps.length };
}

function summary(spells: readonly Spell[]): Record<string, unknown> {
  const of = (pick: (one: Spell) => number): Record<string, number> => {
    const values = spells.map(pick);
    return {
      median: tenth(percentile(values, 0.5)),
      least: tenth(Math.min(...values)),
      most: tenth(Math.max(...values)),
    };
  };
  return {
    p95Ms: of((one) => one.p95Ms),
    maxMs: of((one) => one.maxMs),
    framesPerS: of((one) => (one.frames * 1_000) / SPELL_MS),
  };
}

function tenth(value: number): number {
  return Math.round(value * 10) / 10;
}

function isEngine(word: string): boolean {
  return word === "webgpu" || word === "wasm";
}

function whole(value: number): number {
  return Math.round(value);
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
