/**
 * Hundreds of seeds of the simulation, a thousand in `npm run sweep`, and proof that its oracle can fail. To look at one seed:
 *
 *     SEED=42 npm test -- test/sim.test.ts
 */
import { decode } from "@msgpack/msgpack";
import { describe, expect, test } from "vitest";
import type { Bytes } from "../src/base/bytes.ts";
import { entries } from "../src/coordinator/ledger.fixture.ts";
import { decodeEntry } from "../src/protocol/chain.ts";
import { decodeHeader } from "../src/protocol/codec.ts";
import type { LedgerEvent } from "../src/protocol/ledger.ts";
import { createKeyRegistry } from "../src/sim/keys.ts";
import { LIES } from "../src/sim/liar.ts";
import { examine, type Evidence } from "../src/sim/oracle.ts";
import { CALM, optionsOf, runSimulation, type Outcome, type SimulationOptions } from "../src/sim/simulation.ts";
import { soloCrew } from "../src/update/solo.ts";
import { loadMergeKernel } from "../src/wasm/merge.ts";

const SEEDS = process.env["HEDDLE_SWEEP"] === "1" ? 1_000 : 250;
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const openCrew = soloCrew(await loadMergeKernel());
const run = (options: Omit<SimulationOptions, "openCrew">): Promise<Outcome> =>
  runSimulation({ ...options, openCrew, settle });
const only = process.env["SEED"];

describe("runSimulation()", () => {
  test("without faults every contribution is accepted and the loss falls", async () => {
    const outcome = await run({ seed: 1, contributors: 3, rounds: 3, faults: CALM });
    expect(outcome.findings).toEqual([]);
    expect(outcome.refused).toBe(0);
    expect(outcome.accepted).toBeGreaterThanOrEqual(9);
    expect(outcome.lossLast).toBeLessThan(0.8 * outcome.lossFirst);
  });

  test("gives the same history to the last byte for the same seed, and another for another", async () => {
    const [a, b, c] = [await run(optionsOf(7)), await run(optionsOf(7)), await run(optionsOf(8))];
    expect(a.evidence.disk.entries).toEqual(b.evidence.disk.entries);
    expect(a.wakes).toBe(b.wakes);
    expect(a.evidence.disk.entries).not.toEqual(c.evidence.disk.entries);
  });

  for (const [number, lie] of LIES.entries()) {
    test(`a liar of kind "${lie}" is refused and the honest go on`, async () => {
      const seed = 8 * 100 + number;
      const outcome = await run({ seed, contributors: 3, rounds: 3, faults: { ...CALM, liars: 1 } });
      expect(outcome.findings).toEqual([]);
      expect(outcome.lossLast).toBeLessThan(outcome.lossFirst);
    });
  }

  const cases: readonly (readonly [seed: number, what: string])[] = [
    [75, "a contributor is away for so long that the relay has forgotten its round, and still gets its verdict"],
    [195, "a contributor is killed after it heard its verdict and before it noted it, and sends again while training"],
    [371, "an update is offered by a liar who could read it only once it was public"],
  ];
  for (const [seed, what] of cases) {
    test(`seed ${seed}: ${what}`, async () => {
      const options = optionsOf(seed);
      const faults = { ...options.faults, operator: false }; // whose commands would make it another history
      expect((await run({ ...options, faults })).findings).toEqual([]);
    });
  }

  test("an operator who pauses, bans and drains leaves nothing wrong, and everybody is back in the end", async () => {
    const types = new Set<string>();
    let drained = 0;
    for (let seed = 0; seed < 40; seed += 1) {
      const outcome = await run({ seed, contributors: 3, rounds: 3, faults: { ...CALM, operator: true } });
      expect(outcome.findings, `seed ${seed}`).toEqual([]);
      drained += outcome.kills; // nothing else ends a process here
      for (const bytes of outcome.evidence.disk.entries) {
        const entry = decodeEntry(bytes);
        types.add(entry.ok ? entry.value.event.type : "unreadable");
      }
    }
    expect(drained).toBe(40);
    expect([...types]).toEqual(expect.arrayContaining(["paused", "resumed", "banned", "unbanned"]));
  });

  test("contributors who exchange checkpoints, with liars, broken links and killed machines among them, leave nothing wrong", async () => {
    let bytes = 0;
    const sentences = new Set<string>();
    for (let seed = 0; seed < SEEDS / 60; seed += 1) {
      const options = optionsOf(seed);
      const outcome = await run({ ...options, contributors: options.contributors + 2, peers: true });
      expect(outcome.findings, `seed ${seed}`).toEqual([]);
      bytes += outcome.peers.bytesFetched;
      outcome.peers.sentences.forEach((sentence) => sentences.add(sentence));
    }
    expect(bytes).toBeGreaterThan(1_000);
    expect([...sentences].join(" ")).toMatch(/with another digest.*Fetched|Fetched.*with another digest/s);
  });

  test(`${SEEDS} seeds of broken links, killed machines and liars leave nothing wrong`, async () => {
    const seeds = only === undefined ? Array.from({ length: SEEDS }, (_, seed) => seed) : [Number(only)];
    const wrong: unknown[] = [];
    let [kills, accepted, refused, resumed, late] = [0, 0, 0, 0, 0];
    for (const seed of seeds) {
      const outcome = await run(optionsOf(seed));
      kills += outcome.kills;
      accepted += outcome.accepted;
      refused += outcome.refused;
      resumed += outcome.resumed;
      late += outcome.late;
      if (outcome.findings.length > 0) {
        wrong.push({ seed, options: optionsOf(seed), findings: outcome.findings });
      }
    }
    expect(wrong).toEqual([]);
    if (only === undefined) {
      expect(resumed).toBeGreaterThan(SEEDS / 10);
      expect(late).toBeGreaterThan(SEEDS / 25);
      expect({ kills, accepted, refused }).toSatisfy((sums: object) =>
        Object.values(sums).every((sum) => sum > SEEDS / 4),
      );
    }
  }, 300_000);
});

test("who is always a little too late ends training earlier, and is in time", async () => {
  const { findings, accepted } = await run(optionsOf(504)); // beside a liar who makes the quorum, and it alone for ever
  expect([findings, accepted > 0]).toEqual([[], true]);
});

/** The oracle's findings on a good run's evidence after a change to it. */
async function findingsAfter(
  change: (evidence: Evidence, events: LedgerEvent[]) => Evidence | LedgerEvent[],
): Promise<string[]> {
  const outcome = await run({ seed: 5, contributors: 3, rounds: 3, faults: CALM });
  const { evidence } = outcome;
  const events = evidence.disk.entries.map((bytes) => {
    const entry = decodeEntry(bytes);
    expect(entry.ok).toBe(true);
    return entry.ok ? entry.value.event : (undefined as never);
  });
  const changed = change(evidence, events);
  const next = Array.isArray(changed)
    ? {
        ...evidence,
        disk: { ...evidence.disk, entries: await entries(changed, createKeyRegistry().create("relay", 5)) },
      }
    : changed;
  return (await examine(next)).map(({ rule }) => rule);
}

describe("examine() finds", () => {
  const mergedAt = (events: readonly LedgerEvent[]): number => events.findIndex((event) => event.type === "merged");

  test("nothing in a ledger that was only copied", async () => {
    expect(await findingsAfter((_, events) => events)).toEqual([]);
  });
  test("a contribution that is merged late where the charter takes none", async () => {
    let outcome = await run(optionsOf(1));
    for (let seed = 2; outcome.late === 0 && seed <= SEEDS; seed += 1) {
      outcome = await run(optionsOf(seed));
    }
    const { evidence, late } = outcome;
    expect(late).toBeGreaterThan(0);
    const { round } = evidence.charter;
    const findings = await examine({
      ...evidence,
      charter: { ...evidence.charter, round: { ...round, lateShare: 0 } },
    });
    expect(findings.map(({ rule }) => rule)).toContain(
      "a contribution is received in its own round or, where the charter lets it, in the next",
    );
  });
  test("a changed byte", async () => {
    const rules = await findingsAfter((evidence) => {
      const entries = evidence.disk.entries.map((entry) => entry.slice());
      const last = entries.at(-1) as Bytes;
      last[last.length - 1] = (last.at(-1) ?? 0) ^ 1;
      return { ...evidence, disk: { ...evidence.disk, entries } };
    });
    expect(rules).toEqual(["the ledger is one signed chain"]);
  });
  test("a contribution that is counted twice", async () => {
    const rules = await findingsAfter((_, events) => {
      const at = mergedAt(events);
      const merged = events[at] as Extract<LedgerEvent, { type: "merged" }>;
      const twice = { ...merged, contributions: [...merged.contributions, ...merged.contributions.slice(0, 1)] };
      return events.with(at, twice);
    });
    expect(rules).toContain("no contribution is merged twice");
  });
  test("an accepted contribution that is lost", async () => {
    const rules = await findingsAfter((_, events) => {
      const at = mergedAt(events);
      const merged = events[at] as Extract<LedgerEvent, { type: "merged" }>;
      return events.with(at, { ...merged, contributions: merged.contributions.slice(1) });
    });
    expect(rules).toContain("no accepted contribution is lost");
    expect(rules).toContain("replaying the merges gives the head's digest");
  });
  test("a verdict that differs from what was told", async () => {
    const rules = await findingsAfter((_, events) => {
      const at = events.findIndex((event) => event.type === "judged");
      const judged = events[at] as Extract<LedgerEvent, { type: "judged" }>;
      return events.with(at, { ...judged, verdict: { type: "refused", reason: "harmful" } });
    });
    expect(rules).toContain("who was told that it is accepted is accepted in the ledger");
    expect(rules).toContain("only accepted contributions are merged");
  });
  test("a residual that kept what was accepted", async () => {
    const rules = await findingsAfter((evidence) => {
      const waits = ({ value }: { readonly value: Bytes }): boolean =>
        (decode(value) as { readonly signed: unknown }).signed !== null;
      const diaries = evidence.diaries.map((diary) => ({ ...diary, pages: diary.pages.filter(waits) }));
      return { ...evidence, diaries };
    });
    expect(new Set(rules)).toEqual(new Set(["a residual gives up exactly what was accepted"]));
  });
  test("an acceptance that was told before it was written", async () => {
    const rules = await findingsAfter((evidence) => ({
      ...evidence,
      told: evidence.told.map((each) => ({ ...each, written: false })),
    }));
    expect(new Set(rules)).toEqual(new Set(["nobody is told of what is not yet written"]));
  });
  test("a liar in the base", async () => {
    const rules = await findingsAfter((evidence) => ({
      ...evidence,
      liars: new Set(evidence.final.map((one) => one.contributor)),
    }));
    expect(rules).toContain("no liar's contribution is in the base");
  });
  test("a round that was opened while the run was paused, and a contribution of somebody banned", async () => {
    const rules = await findingsAfter((_, events) => {
      const sent = events.find((event) => event.type === "contributed");
      const header = decodeHeader(sent?.type === "contributed" ? sent.header : new Uint8Array());
      const contributor = header.ok ? header.value.contributor : (undefined as never);
      return events.toSpliced(1, 0, { type: "paused" }, { type: "banned", contributor, why: "a test" });
    });
    expect(rules).toContain("no round is opened while the run is paused");
    expect(rules).toContain("nobody who is banned contributes");
  });
  test("a replica that differs", async () => {
    const rules = await findingsAfter((evidence) => ({
      ...evidence,
      used: evidence.used.map((one, i) => (i === 0 ? { ...one, version: one.version + 1 } : one)),
      final: evidence.final.map((one, i) => (i === 0 ? { ...one, version: one.version - 1 } : one)),
    }));
    expect(rules).toEqual(["every base in use is a version of the ledger", "in the end every replica is the head"]);
  });
  test("a contributor that was never told", async () => {
    expect(await findingsAfter((evidence) => ({ ...evidence, told: [] }))).toContain(
      "every judged contribution's author is told",
    );
  });
});
