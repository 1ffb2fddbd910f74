import { describe, expect, test } from "vitest";
import { digestOf, type Bytes, type ContributionId, type Digest } from "../base/bytes.ts";
import type { SignedEntry } from "./chain.ts";
import { contributionIdOf, contributorIdOf, encodeHeader } from "./codec.ts";
import { countingBytes, exampleEvents, exampleHeader } from "./examples.ts";
import type { LedgerEvent } from "./ledger.ts";
import { createSeries, inLastHour, readContributions, type RoundRecord } from "./series.ts";

const MINUTE_MS = 60_000;
const started = exampleEvents.find(({ type }) => type === "started") as Extract<LedgerEvent, { type: "started" }>;
const first = { ...started, head: { ...started.head, evalLoss: 5 } };
const device = (n: number): Bytes => countingBytes(32, n);
const nameOf = (n: number) => contributorIdOf(device(n));

/** Entries of `events`, a minute apart. */
function entriesOf(events: readonly LedgerEvent[], from = 0): SignedEntry[] {
  const rest = { previous: digestOf(device(0)), signature: device(0) };
  return events.map((event, i) => ({ ...rest, sequence: from + i, timeMs: (from + i) * MINUTE_MS, event }));
}

function introduce(n: number, agent: string): LedgerEvent {
  return { type: "introduced", contributor: nameOf(n), publicKey: device(n), agent };
}

function contribute(n: number, round: number, changes: Partial<typeof exampleHeader> = {}) {
  const header = encodeHeader({ ...exampleHeader, round, contributor: nameOf(n), tokens: 100, ...changes });
  const contribution = contributionIdOf(header);
  const event: LedgerEvent = {
    type: "contributed",
    contribution,
    header,
    signature: device(9),
    norm: 1,
    wireBytes: 500,
  };
  return { contribution, event };
}

function judge(contribution: ContributionId, reason: "harmful" | null, by: number | null = null): LedgerEvent {
  const verdict = reason === null ? ({ type: "accepted" } as const) : ({ type: "refused", reason } as const);
  return { type: "judged", contribution, verdict, by: by === null ? "relay" : nameOf(by), losses: null };
}

function merge(round: number, version: number, contributions: readonly ContributionId[]): LedgerEvent {
  const head = { ...first.head, version, digest: digestOf(device(version)), evalLoss: 5 - version };
  const sums = { bytesUp: 1_000, bytesDown: 3_000, tokensPerS: 7, contributors: 2, refused: 0 };
  return { type: "merged", round, head, contributions, server: "" as Digest, ...sums };
}

const [one, two, three] = [contribute(1, 1), contribute(2, 1, { privateData: true }), contribute(1, 3)];
const EVENTS: readonly LedgerEvent[] = [
  first,
  introduce(1, "page/0.1.0"),
  introduce(2, "heddle-headless/node"),
  { type: "opened", round: 1, baseVersion: 0, seed: 1 },
  one.event,
  two.event,
  { type: "closed", round: 1 },
  judge(one.contribution, null, 2),
  judge(two.contribution, "harmful"),
  merge(1, 1, [one.contribution]),
  { type: "paused" },
  { type: "resumed" },
  { type: "opened", round: 2, baseVersion: 1, seed: 1 },
  { type: "closed", round: 2 },
  { type: "skipped", round: 2 },
  { type: "banned", contributor: nameOf(2), why: "Sends noise" },
  introduce(3, "widget/0.1.0"),
  { type: "opened", round: 3, baseVersion: 1, seed: 1 },
  three.event,
  { type: "closed", round: 3 },
  judge(three.contribution, null),
  merge(3, 2, [three.contribution]),
];

describe("createSeries()", () => {
  test("makes a record of each round that has ended, with sums since the start", () => {
    const series = createSeries();
    entriesOf(EVENTS).forEach((entry) => series.take(entry));
    const { rounds, moments } = series.drain();
    expect(rounds.map(({ round, version, merged, from, to }) => [round, version, merged, from, to])).toEqual([
      [0, 0, false, 0, 1],
      [1, 1, true, 1, 10],
      [2, 1, false, 10, 15],
      [3, 2, true, 15, 22],
    ]);
    expect(rounds[1]).toMatchObject({
      contributors: { page: 1, widget: 0, headless: 1, other: 0 },
      privateData: 1,
      accepted: 1,
      refused: 1,
      tokens: 100,
      bytesUp: 1_000,
      evalLoss: 4,
      openedMs: 3 * MINUTE_MS,
      endedMs: 9 * MINUTE_MS,
    });
    expect(rounds[2]).toMatchObject({ accepted: 0, refused: 0, evalLoss: 4, totals: { skipped: 1, tokens: 100 } });
    expect(rounds[3]?.totals).toEqual({
      accepted: 2,
      refused: { harmful: 1 },
      refusals: 1,
      tokens: 200,
      bytesUp: 2_000,
      bytesDown: 6_000,
      devices: { page: 1, widget: 1, headless: 1, other: 0 },
      judgedByValidators: 1,
      skipped: 1,
    });
    expect(moments.map(({ round, event }) => [round, event.type])).toEqual([
      [0, "started"],
      [2, "paused"],
      [2, "resumed"],
      [3, "banned"],
    ]);
    expect(series.drain()).toEqual({ rounds: [], moments: [] });
  });

  test("gives the same records however the ledger is cut, and folds 10,000 rounds", () => {
    const series = createSeries();
    const all: RoundRecord[] = [];
    entriesOf(EVENTS).forEach((entry) => {
      series.take(entry);
      all.push(...series.drain().rounds);
    });
    const long = entriesOf(EVENTS.slice(0, 10));
    const many = createSeries();
    long.forEach((entry) => many.take(entry));
    for (let round = 2; round <= 10_000; round += 1) {
      const { contribution, event } = { ...one, contribution: `${round}` as ContributionId };
      const events: LedgerEvent[] = [
        { type: "opened", round, baseVersion: round - 1, seed: 1 },
        event,
        judge(contribution, null),
        merge(round, round, [contribution]),
      ];
      entriesOf(events, 10 + 4 * round).forEach((entry) => many.take(entry));
    }
    const { rounds } = many.drain();
    expect(rounds.length).toBe(10_001);
    expect(inLastHour(rounds, 10_000).contributions).toBe(15);
    const whole = createSeries();
    entriesOf(EVENTS).forEach((entry) => whole.take(entry));
    expect(all).toEqual(whole.drain().rounds);
  });
});

test("inLastHour() counts what was judged in the hour before a round's end, or since the start", () => {
  const series = createSeries();
  entriesOf(EVENTS).forEach((entry) => series.take(entry));
  const { rounds } = series.drain();
  expect(inLastHour(rounds, 3)).toEqual({ contributions: 3, tokens: 200, ms: 21 * MINUTE_MS });
  expect(inLastHour(rounds, 1)).toEqual({ contributions: 2, tokens: 100, ms: 9 * MINUTE_MS });
  const later = rounds.map((record, i) => (i === 3 ? { ...record, endedMs: record.endedMs + 55 * MINUTE_MS } : record));
  expect(inLastHour(later, 3)).toMatchObject({ contributions: 1, tokens: 100, ms: 60 * MINUTE_MS });
  expect(inLastHour([], 0)).toEqual({ contributions: 0, tokens: 0, ms: 0 });
});

test("readContributions() joins contributions of a round with their verdicts", () => {
  const rows = readContributions(entriesOf(EVENTS).slice(1, 10), () => "page");
  expect(rows.map(({ contribution, judged }) => [contribution, judged?.verdict, judged?.by])).toEqual([
    [one.contribution, { type: "accepted" }, nameOf(2)],
    [two.contribution, { type: "refused", reason: "harmful" }, "relay"],
  ]);
  expect(rows[1]).toMatchObject({ entry: 5, header: { privateData: true, tokens: 100 }, wireBytes: 500 });
});
