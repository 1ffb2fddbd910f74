/** The benchmarks' arithmetic and the lines they print; nothing is timed here. */
import { describe, expect, test } from "vitest";
import { compileBareLoop, openBareLoop } from "../bench/contest/bare.ts";
import type { Launch, Result } from "../bench/contest/contest.ts";
import { lineOf, tableOf } from "../bench/contest/standings.ts";
import { checkServed, countOf, reportOf, type Arrival } from "../bench/load/arrivals.ts";
import { compare, examine, note } from "../bench/load/oracle.ts";
import { readNames, readWhole, readWholes } from "../bench/load/options.ts";
import type { Told } from "../bench/load/players.ts";
import { ratioOf, spreadPercent, standing, takeRounds } from "../bench/contest/statistics.ts";
import { median, quantile } from "../src/base/statistics.ts";
import type { ContributionId } from "../src/base/bytes.ts";
import { amountOf, faultOf, MATMULS, operand, type MatmulWork } from "../bench/contest/works.ts";

const WORK: MatmulWork = { type: "matmul", name: "matmul 3x2x4", m: 3, n: 2, k: 4 };

describe("statistics", () => {
  test("median() and quantile() interpolate and do not depend on the order", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(quantile([5, 1, 3, 2, 4], 0.25)).toBe(2);
    expect(quantile([7], 0.75)).toBe(7);
    expect(() => median([])).toThrow("there are no values");
  });
  test("spreadPercent() is half the distance between the quartiles over the median", () => {
    expect(spreadPercent([1, 2, 3, 4, 5])).toBeCloseTo(100 / 3);
    expect(spreadPercent([2, 2, 2])).toBe(0);
  });
  test("standing() takes the median of each launch first, so that one bad launch does not count for more", () => {
    expect(standing([[1, 1, 1], [10, 10, 10, 10, 10, 10], [2]]).rate).toBe(2);
  });
  test("ratioOf() divides within a round: a slow spell that hits both sides does not show", () => {
    const { rate, spread } = ratioOf([[20, 2, 40]], [[10, 1, 20]]);
    expect(rate).toBe(2);
    expect(spread).toBe(0);
  });
  test("takeRounds() interleaves, drops the warm-up and says what to expect", async () => {
    let now = 0;
    const seen: string[] = [];
    const runner = (name: string, ms: number) => ({
      name,
      run: async (expectedMs: number) => {
        seen.push(`${name}${expectedMs}`);
        now += ms;
      },
    });
    const samples = await takeRounds([runner("a", 2), runner("b", 5)], { rounds: 2, nowMs: () => now });
    expect(seen).toEqual(["a0", "b0", "b5", "a2", "a2", "b5"]);
    expect([...samples]).toEqual([
      ["a", [2, 2]],
      ["b", [5, 5]],
    ]);
  });
});

describe("options", () => {
  test("readWhole() takes whole numbers within the limits and nothing else", () => {
    expect(readWhole("as many rounds as", "12")).toBe(12);
    expect(readWhole("a delay of", "0", { least: 0 })).toBe(0);
    for (const given of ["", "0", "-1", "1.5", "1e9", "ten", undefined]) {
      expect(() => readWhole("as many rounds as", given)).toThrow("need a whole number from 1 to 1000000");
    }
    expect(readWholes("as many relays as", [], { usual: [1, 3] })).toEqual([1, 3]);
  });
  test("readNames() takes known words in their own order, all where none is given, and names a strange one", () => {
    expect(readNames("part", [], ["train", "memory"])).toEqual(["train", "memory"]);
    expect(readNames("part", ["memory", "train"], ["train", "memory"])).toEqual(["train", "memory"]);
    expect(() => readNames("part", ["train", "menory"], ["train", "memory"])).toThrow(
      'got the part "menory", need one of train, memory',
    );
  });
});

describe("works", () => {
  test("faultOf() passes a right product and names a wrong, a missing and a NaN one", () => {
    const [a, b] = [operand("a", 12), operand("b", 8)];
    const c = Float32Array.from({ length: 6 }, (_, at) =>
      [0, 1, 2, 3].reduce((sum, i) => sum + (a[4 * (at >> 1) + i] ?? 0) * (b[2 * i + (at & 1)] ?? 0), 0),
    );
    expect(faultOf(WORK, { c })).toBeUndefined();
    expect(faultOf(WORK, { c: c.map((value) => value * 1.001) })).toContain("is off by");
    expect(faultOf(WORK, { c: c.fill(Number.NaN) })).toContain("is off by");
    expect(faultOf(WORK, {})).toBe('there is no output "c"');
  });
  test("amountOf() counts a multiplication and an addition", () => {
    expect(MATMULS.map(amountOf)).toEqual([0.268435456, 2.147483648, 1.207959552, 1.207959552, 1.207959552]);
  });
});

describe("lines", () => {
  const result = (contender: string, ms: readonly number[], fault?: string): Result =>
    fault === undefined ? { work: WORK.name, contender, ms } : { work: WORK.name, contender, ms, fault };
  const launch = (...results: readonly Result[]): Launch => ({ adapter: "a device", results });
  const session = (launches: readonly Launch[]) => ({ host: "node", backend: { type: "webgpu" } as const, launches });
  const three = [1, 2, 3].map((scale) =>
    launch(
      result("heddle", [1 * scale, 1 * scale]),
      result("slow", [8 * scale, 8 * scale]),
      result("fast", [2 * scale, 2 * scale]),
      result("broken", [], "WRONG: all zero"),
    ),
  );
  test("lineOf() compares with the fastest peer that was right", () => {
    const line = lineOf(WORK, session(three));
    expect(JSON.parse(JSON.stringify(line))).toEqual({
      work: "matmul 3x2x4",
      engine: "webgpu",
      adapter: "a device",
      host: "node",
      unit: "GFLOP/s",
      ours: 0.000024,
      best: 0.000012,
      bestPeer: "fast",
      ratio: 2,
      spread: 0,
      verified: true,
      launches: 3,
      rates: { heddle: 0.000024, slow: 0.000003, fast: 0.000012 },
      faults: { broken: "WRONG: all zero" },
    });
    expect(tableOf([line])).toContain("2 x fast");
    expect(tableOf([line])).toContain("WRONG");
  });
  test("lineOf() sets a product beside the adapter's loop, and tells what a step asks for", () => {
    const peak = { loopGflops: 0.000048, unrolledGflops: 0.0001 };
    const counts = {
      dispatches: 92,
      passes: 1,
      submits: 1,
      writes: 5,
      maps: 1,
      buffers: 0,
      bindGroups: 0,
      shaders: 0,
      peakBytes: 61_500_000,
    };
    const line = lineOf(WORK, session([{ ...launch({ ...result("heddle", [1]), counts }), peak }]));
    expect(line.loopPercent).toBe(100);
    expect(line.counts).toEqual({ heddle: counts });
    expect(tableOf([line])).toMatch(/heddle +92 +1 +1 +5 +1 +0 +0 +0 +61\.5/);
  });
  test("lineOf() sets a product on WASM beside the bare loop of the same round", () => {
    const rate = (ms: number): number => (1000 * amountOf(WORK)) / ms;
    // The machine was twice as slow in the second round; the loop has 1.25 times our speed in both.
    const ours = { ...result("heddle", [1, 2]), loopGflops: [1.25 * rate(1), 1.25 * rate(2)] };
    const wasm = { host: "node", backend: { type: "wasm", threads: 1 } as const };
    const line = lineOf(WORK, {
      ...wasm,
      launches: [{ adapter: "processor", results: [ours, result("fast", [1, 2])] }],
    });
    expect(line.loopPercent).toBe(80);
    expect(tableOf([line])).toMatch(/matmul 3x2x4 +wasm 1 thread .* 80 %/);
  });
  test("openBareLoop() computes what it says on every thread", async () => {
    const loop = await openBareLoop(await compileBareLoop(), 2);
    expect(() => loop.run()).not.toThrow();
    expect(loop.gflopsOf(10)).toBe(50);
  });
  test("lineOf() without peers has our figure alone", () => {
    const line = lineOf(WORK, session([launch(result("heddle", [2, 2]))]));
    expect([line.best, line.bestPeer, line.ratio]).toEqual([null, null, null]);
  });
  test("lineOf() gives no line when our own output is wrong", () => {
    const wrong = session([launch(result("heddle", [], "WRONG: nothing"), result("fast", [1]))]);
    expect(() => lineOf(WORK, wrong)).toThrow("our engine gave no figure: WRONG: nothing");
  });
});

describe("a load's oracle", () => {
  const [first, second] = ["a", "b"] as unknown as readonly [ContributionId, ContributionId];
  const both = new Set([first, second]);
  const told = { taken: [second, first], accepted: [first, second], refused: [] };
  const ledger = { entries: 9, versions: 1, contributed: both, accepted: both, merged: both };
  test("compare() passes what is the same on all sides, whoever was told", () => {
    expect(() => compare([told], ledger)).not.toThrow();
    expect(() =>
      compare(
        [
          { ...told, taken: [first], accepted: [] },
          { ...told, taken: [second] },
        ],
        ledger,
      ),
    ).not.toThrow();
  });
  test.each([
    ["a receipt without an entry", told, { ...ledger, contributed: new Set([first]) }, "receipts that were told"],
    ["an entry without a receipt", { ...told, taken: [first] }, ledger, "receipts that were told"],
    [
      "a verdict that is not in the ledger",
      told,
      { ...ledger, accepted: new Set([second]) },
      "verdicts that were told",
    ],
    ["a verdict that nobody was told", { ...told, accepted: [first] }, ledger, "verdicts that were told"],
    ["what was accepted and not merged", told, { ...ledger, merged: new Set([first]) }, "is not what was merged"],
  ])("compare() finds %s", (_, seen, held, fault) => {
    expect(() => compare([seen], held)).toThrow(fault);
    expect(() => examine([seen], held)).toThrow(fault);
  });
  test("examine() compares, and again with a contribution missing; it takes no run in which nothing was accepted", () => {
    expect(() => examine([told], ledger)).not.toThrow();
    const none = new Set<ContributionId>();
    const nothing = { entries: 1, versions: 0, contributed: none, accepted: none, merged: none };
    expect(() => examine([{ taken: [], accepted: [], refused: [] }], nothing)).toThrow("nothing was accepted");
  });
  test("note() reads off a link what a contributor is told", () => {
    const heard: Told = { taken: [], accepted: [], refused: [] };
    note(heard, { type: "have", contribution: first, pieces: 1 });
    note(heard, { type: "have", contribution: second, pieces: 1 });
    note(heard, { type: "verdict", contribution: first, verdict: { type: "accepted" } });
    note(heard, { type: "verdict", contribution: second, verdict: { type: "refused", reason: "late" } });
    note(heard, { type: "ping" });
    expect(heard).toEqual({
      taken: [first, second],
      accepted: [first],
      refused: [{ contribution: second, reason: "late" }],
    });
    expect(() => compare([heard], ledger)).toThrow("verdicts that were told");
  });
});

describe("those who come in a surge", () => {
  const [served, told, lost]: readonly [Arrival, Arrival, Arrival] = [
    { servedMs: 20, told: [], lost: ["The connection was lost"] },
    { servedMs: null, told: [{ type: "told", reason: "busy", retryMs: 30_000 }], lost: [] },
    { servedMs: null, told: [], lost: ["The relay has no room", "The connection was lost"] },
  ];
  test("checkServed() passes when everybody was served, or told when to come back because there is no room", () => {
    expect(() => checkServed([served, served], 9)).not.toThrow();
    expect(() => checkServed([served, told], 1)).not.toThrow();
  });
  test("checkServed() finds who was neither served nor told, and who was put off though there is room", () => {
    expect(() => checkServed([served, told, lost], 1)).toThrow(
      "1 of 3 who came were neither served nor told when to come back; the first of them lost 2 links, the last: The connection was lost",
    );
    expect(() => checkServed([served, told], 2)).toThrow(
      "told when to come back and not served, though there was room",
    );
  });
  test("countOf() and reportOf() tell how they fared", () => {
    const back: Arrival = { ...told, servedMs: 40_000 };
    expect(countOf([served, told, lost])).toEqual({ served: 1, unanswered: 1 });
    expect(reportOf([served, told, back])).toMatchObject({
      came: 3,
      served: 2,
      toldWhenToComeBack: 2,
      toldAndNotServedYet: 1,
      dialToWelcomeOfThoseToldMs: { max: 40_000 },
      refusals: { busy: 2 },
      linksLost: 1,
    });
  });
});
