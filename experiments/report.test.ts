/** What experiments are made of and what is said of them: the catalogue, comparisons, table, plot, stored results. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { present } from "../src/base/assert.ts";
import type { Digest } from "../src/base/bytes.ts";
import { sampleCharter } from "../src/protocol/sample.ts";
import { EXPERIMENTS } from "./catalogue.ts";
import { parseExperimentConfig } from "./config.ts";
import { experimentS, processorSOf } from "./estimate.ts";
import type { Arm, Experiment } from "./experiment.ts";
import { plotOf } from "./plot.ts";
import { createProgress } from "./progress.ts";
import type { Point, RunRecord } from "./record.ts";
import { openResults } from "./results.ts";
import { checkedCharter } from "./setting.ts";
import { readSources, SOURCES } from "./sources.ts";
import { lossAt, summarise } from "./summary.ts";
import { tableOf } from "./table.ts";
import { toyArm, TOY_SOURCES } from "./toy.fixture.ts";
import { bytesText, timeText } from "./units.ts";

const traffic = (bytes: number): Point["up"] => ({ joining: 1_000, updates: bytes, judging: 0, messages: 0 });
const points = (losses: readonly number[]): Point[] =>
  losses.map((loss, version) => ({
    version,
    tokens: 96 * version,
    timeMs: 2_000 * version,
    loss,
    losses: { "moby-dick": loss + 0.1, "node-types": loss - 0.1 },
    up: traffic(10 * version),
    down: traffic(100 * version),
    contributions: 3,
    refused: 0,
    digest: "a".repeat(64) as Digest,
  }));
const record = (arm: Arm, seed: number, losses: readonly number[]): RunRecord => ({
  experiment: "toy",
  arm,
  seed,
  parameters: 1_000,
  points: points(losses),
  sums: {
    steps: 9,
    accepted: 9,
    refused: { harmful: 1 },
    skipped: 0,
    idleShare: 0.25,
    vanished: 0,
    replicasCompared: 12,
  },
});
const [theirs, ours] = [toyArm("synchronous"), toyArm("default")];
const experiment: Experiment = {
  name: "toy",
  question: "Is it <well>?",
  seeds: [1, 2],
  reference: "synchronous",
  arms: [theirs, ours],
};
const records = [
  record(theirs, 1, [5, 3, 2]),
  record(theirs, 2, [5, 3.2, 2.2]),
  record(ours, 1, [5, 3.5, 2.02]),
  record(ours, 2, [5, 3.5, 2.2]),
];

describe("EXPERIMENTS", () => {
  test("have names that are file names, references that are theirs, and charters that are charters", () => {
    const names = EXPERIMENTS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { name, arms, reference } of EXPERIMENTS) {
      const own = arms.map((arm) => arm.name);
      expect([name, ...own].every((each) => /^[a-z0-9][a-z0-9.-]*$/.test(each))).toBe(true);
      expect(new Set(own).size).toBe(own.length);
      expect(own).toContain(reference);
      for (const arm of arms) {
        expect(() => checkedCharter(arm, 1, TOY_SOURCES)).not.toThrow();
      }
    }
  });

  test("that are for the targets have three seeds, at least 30 rounds and 15 steps, and say what they cost", () => {
    for (const found of EXPERIMENTS.filter(({ name }) => /^(sample|larger)-(iid|by-source|churn|h15)$/.test(name))) {
      expect(found.seeds.length).toBeGreaterThanOrEqual(3);
      expect(found.arms.every(({ rounds, charter }) => rounds >= 30 && charter.round.stepsMax >= 15)).toBe(true);
      expect(experimentS(found)).toBeGreaterThan(3_600);
    }
  });

  test("train all arms of one experiment on the same text; sources are equally long and differ", () => {
    for (const { name, arms } of EXPERIMENTS) {
      expect(new Set(arms.map(({ sources }) => sources.join(" "))).size, name).toBe(1);
    }
    const sources = readSources(SOURCES);
    const lengths = sources.map(({ train }) => train.shards.reduce((sum, shard) => sum + shard.length, 0));
    expect(Math.max(...lengths) / Math.min(...lengths)).toBeLessThan(1.02);
    expect(
      new Set(sources.flatMap(({ train }) => train.record.shards.map(({ digest }) => digest))).size,
    ).toBeGreaterThan(2);
  });
});

describe("summarise()", () => {
  const [reference, own] = summarise(experiment, records);

  test("compares seed by seed at equal tokens and counts how much less is sent", () => {
    expect(reference?.against).toBeNull();
    expect(own?.against?.mean).toBeCloseTo(0.005, 9);
    expect(own?.against?.deviation).toBeCloseTo(0.01 / Math.SQRT2, 9);
    expect(own?.loss.mean).toBeCloseTo(2.11, 9);
    // 192 tokens of 3 contributors with 2 sequences of 16 tokens: 2 steps each of 4,000 bytes.
    expect(own?.fewerUp).toBeCloseTo(8_000 / 20, 9);
    expect(own?.fewerDown).toBeCloseTo(8_000 / 200, 9);
    expect(own?.refused).toBe(2);
  });

  test("marks runs whose tokens differ too much and compares their ends", () => {
    const longer = [...records.slice(0, 2), record(ours, 1, [5, 3, 2, 1.5]), record(ours, 2, [5, 3, 2, 1.5])];
    const [, summary] = summarise(experiment, longer);
    expect(summary?.equalTokens).toBe(false);
    expect(summary?.against?.mean).toBeCloseTo((1.5 / 2 - 1 + (1.5 / 2.2 - 1)) / 2, 9);
  });

  test("lossAt() lies on the line between two versions", () => {
    expect(lossAt(points([5, 3, 2]), 48)).toBe(4);
    expect(lossAt(points([5, 3, 2]), 96)).toBe(3);
    expect(lossAt(points([5, 3, 2]), 9_999)).toBe(2);
    expect(lossAt(points([5, 3, 2]), 0)).toBe(5);
  });
});

test("tableOf() has a row for each arm", () => {
  const table = tableOf(experiment, summarise(experiment, records));
  expect(table).toContain("2.1100 ± 0.1273");
  expect(table).toContain("+0.50 ± 0.71 %");
  expect(table).toContain("400×");
});

test("plotOf() draws four panels with a line and a band for each arm, and escapes what people write", () => {
  const svg = plotOf(experiment, records);
  expect(svg.match(/class="line" stroke="[^"]*" d="M[^h]*"/g)).toHaveLength(8);
  expect(svg.match(/class="band"/g)).toHaveLength(8);
  expect(svg).toContain("Is it &lt;well&gt;?");
  expect(svg).not.toMatch(/NaN|Infinity/);

  const nine = Array.from({ length: 9 }, (_, i) => ({ ...ours, name: `arm-${i}` }));
  const [first] = records as [RunRecord];
  const many = plotOf(
    { ...experiment, arms: nine },
    nine.map((arm) => ({ ...first, arm })),
  );
  const looks = many.match(/stroke="[^>]*" d="M[^h"]*h/g);
  expect(new Set(looks?.map((look) => look.split(" d=")[0]))).toHaveProperty("size", 9);
});

test("openResults() gives back what was written while the arm is what it was", () => {
  const dir = mkdtempSync(join(tmpdir(), "heddle-results-"));
  try {
    const results = openResults(dir);
    const [first] = records;
    const host = {
      engine: "test",
      processorS: 1,
      wallS: 1,
      memoryBytes: 1,
      remembered: 0,
      node: "v26",
      processor: "test",
      code: "0",
    };
    results.write(first as RunRecord, host);
    const job = { experiment: "toy", arm: theirs, seed: 1 };
    expect(results.read(job)).toEqual(first);
    expect(results.readHost(job)).toEqual(host);
    expect(results.read({ ...job, arm: { ...theirs, rounds: 99 } })).toBeUndefined();
    expect(results.journalDir(job, "a")).not.toBe(results.journalDir(job, "b"));
    results.forget(job);
    expect(results.read(job)).toBeUndefined();
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test("every run that is kept in docs/experiments is of an arm that the catalogue has now", () => {
  const dir = join(import.meta.dirname, "..", "docs", "experiments");
  const results = openResults(dir);
  const made = new Set(["results.json"]);
  const kept = readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => readdirSync(join(dir, name)).map((file) => ({ name, file })))
    .filter(({ file }) => file.endsWith(".json") && !file.endsWith(".host.json") && !made.has(file));
  expect(kept.length).toBeGreaterThan(20);
  for (const { name, file } of kept) {
    const { experiment: of, arm, seed } = JSON.parse(readFileSync(join(dir, name, file), "utf8")) as RunRecord;
    expect([of, `${arm.name}-${seed}.json`]).toEqual([name, file]);
    const now = EXPERIMENTS.find((each) => each.name === name)?.arms.find((each) => each.name === arm.name);
    // Else `--report` would leave it out without a word.
    expect(
      now === undefined ? undefined : results.read({ experiment: name, arm: now, seed }),
      `${name}/${file}`,
    ).toBeDefined();
  }
});

test("`npm start` begins with the settings that small-start found best", () => {
  const arms = EXPERIMENTS.find(({ name }) => name === "small-start")?.arms ?? [];
  const best = present(
    arms.find(({ name }) => name === "stretch-fades-in-60"),
    "its best arm",
  ).charter;
  const { uplink, downlink, outer, trust, inner } = sampleCharter([], {
    name: "none",
    licence: "CC0-1.0",
    category: "fully-open",
    shards: [],
  });
  expect(best).toMatchObject({ uplink, downlink, outer, trust, inner });
});

test("createProgress() says how much is done and how long the rest takes", () => {
  const lines: string[] = [];
  let nowMs = 0;
  const weights = new Map([
    ["a", 3],
    ["b", 1],
  ]);
  const progress = createProgress({
    weights,
    nowMs: () => nowMs,
    write: (text) => lines.push(text),
    columns: () => null,
  });
  nowMs = 30_000;
  progress.note("a", 0.5, "halfway");
  progress.note("a", 0.51, "is not worth a line");
  nowMs = 60_000;
  progress.note("a", 1, "done");
  expect(lines).toHaveLength(2);
  expect(lines[0]).toContain(" 37 %  0 of 2 runs  a: halfway  about 50 s left");
  expect(lines[1]).toContain(" 75 %  1 of 2 runs  a: done  about 20 s left");
  const narrow = createProgress({ weights, nowMs: () => nowMs, write: (text) => lines.push(text), columns: () => 40 });
  narrow.note("a", 0.5, "a sentence that is longer than the line");
  narrow.note("a", 0.6, "short");
  expect(lines.slice(2).every((text) => text.startsWith("\r") && text.length <= 40)).toBe(true);
});

test("parseExperimentConfig() narrows an experiment, and says what there is", () => {
  const config = parseExperimentConfig(["proof", "--seeds", "4,5", "--arms", "default", "--jobs", "1"]);
  expect(config).toMatchObject({
    jobs: 1,
    engine: "wasm",
    experiments: [{ seeds: [4, 5], arms: [{ name: "default" }] }],
  });
  const linked = parseExperimentConfig(["proof", "--links", "100/20"]);
  expect(linked).toMatchObject({ experiments: [{ name: "proof-100-20" }] });
  expect(linked === "help" ? [] : linked.experiments[0]?.arms.map(({ links }) => links.upMbitPerS)).toEqual(
    Array(5).fill(100),
  );
  expect(() => parseExperimentConfig(["proof", "--links", "fast"])).toThrow("two numbers");
  expect(() => parseExperimentConfig(["prof"])).toThrow("there are proof,");
  expect(() => parseExperimentConfig(["proof", "--arms", "x"])).toThrow('Cannot run arm "x"');
  expect(() => parseExperimentConfig(["proof", "--jobs", "0"])).toThrow("at least 1");
  expect(parseExperimentConfig([])).toBe("help");
  expect(() => parseExperimentConfig(["proof", "--fresh", "--report"])).toThrow("Cannot use --fresh with --report");
  expect(() => parseExperimentConfig(["proof", "--seeds", "1,1"])).toThrow("twice");
  expect(() => parseExperimentConfig(["proof", "--seeds", ""])).toThrow("need a whole number");
  expect(() => parseExperimentConfig(["proof", "--links", "Infinity/1"])).toThrow("at most");
  expect(parseExperimentConfig(["proof", "proof", "--engine", "auto", "--arms", "single"])).toMatchObject({
    experiments: [{ name: "proof-auto", arms: [{ name: "single" }] }],
    reported: [{ arms: { length: 5 } }],
  });
  expect(parseExperimentConfig(["proof", "--report", "--arms", "single", "--seeds", "2"])).toMatchObject({
    reported: [{ arms: [{ name: "synchronous" }, { name: "single" }], seeds: [2] }],
  });
});

test("units are short", () => {
  expect([0, 999, 1_500, 12_345_678].map(bytesText)).toEqual(["0 B", "999 B", "1.5 kB", "12.3 MB"]);
  expect([500, 90_000, 600_000, 36_000_000].map(timeText)).toEqual(["0.5 s", "90 s", "10 min", "10 h"]);
});

test("processorSOf() grows with rounds, contributors and parameters", () => {
  const arms = EXPERIMENTS.flatMap((each) =>
    each.arms.filter(({ name }) => name === "default").map((arm) => ({ arm, each })),
  );
  const costOf = (name: string): number => processorSOf(arms.find(({ each }) => each.name === name)?.arm ?? ours);
  expect(costOf("larger-iid")).toBeGreaterThan(2 * costOf("sample-iid"));
  expect(costOf("sample-iid")).toBeGreaterThan(20 * costOf("proof"));
  expect(processorSOf({ ...ours, rounds: 2 * ours.rounds })).toBeGreaterThan(1.7 * processorSOf(ours));
});
