/** The harness at toy size: the same seed gives the same record, interrupted or not, and one engine serves all. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Engine } from "../src/tensor/engine.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import type { Arm } from "./experiment.ts";
import { runJob, type JobOptions } from "./job.ts";
import { openJournal } from "./journal.ts";
import type { RunRecord } from "./record.ts";
import { recordText } from "./results.ts";
import { toyArm, TOY_SOURCES, type ToyChanges } from "./toy.fixture.ts";
import { roundBytes } from "./wire.ts";

const run = async (arm: Arm, seed = 1, options: Partial<JobOptions> = {}): Promise<RunRecord> =>
  runJob(
    { experiment: "toy", arm, seed },
    { engine: await createWasmEngine({ threads: 1 }), sources: TOY_SOURCES, ...options },
  );

/** Contributors vanish, return, and differ in speed: every path that a run may take. */
const STORMY: ToyChanges = { contributors: 5, rounds: 5, vanishShare: 0.4, devices: { stepMs: 200, spread: 10 } };

describe("runJob()", () => {
  for (const name of ["default", "diloco", "synchronous"]) {
    test(`gives the same record for the same seed, and another for another: ${name}`, async () => {
      const [a, b, c] = [await run(toyArm(name)), await run(toyArm(name)), await run(toyArm(name), 2)];
      expect(recordText(a)).toBe(recordText(b));
      expect(a.points.map(({ digest }) => digest)).not.toEqual(c.points.map(({ digest }) => digest));
      expect(a.points.at(-1)?.loss).toBeLessThan(a.points[0]?.loss ?? 0);
    });
  }

  test("trains on, whoever vanishes and however slow some are, and every replica is the ledger's", async () => {
    const record = await run(toyArm("default", STORMY), 3);
    expect(record.points).toHaveLength(6);
    expect(record.sums.vanished).toBeGreaterThan(2);
    expect(record.sums.replicasCompared).toBeGreaterThan(record.sums.accepted);
  });

  test("loses the share of contributions that the arm says, and lets nobody come back before the round is over", async () => {
    const arm = toyArm("fedavg", { contributors: 8, rounds: 12, vanishShare: 0.3 });
    const { points, sums } = await run(arm, 2);
    const contributions = points.reduce((sum, point) => sum + point.contributions, 0);
    expect(sums.vanished / 96).toBeGreaterThan(0.2);
    expect(sums.vanished / 96).toBeLessThan(0.4);
    expect(contributions).toBeLessThanOrEqual(96 - sums.vanished);
    expect(contributions).toBeGreaterThan(96 - 1.2 * sums.vanished); // some come back too late for the next round
  });

  test("counts a checkpoint that is fetched again as a round's traffic, and the last version's way to everyone", async () => {
    const [steady, stormy] = [
      await run(toyArm("default")),
      await run(toyArm("default", { vanishShare: 0.5, rounds: 5 })),
    ];
    const joined = (record: RunRecord): number | undefined => record.points.at(-1)?.down.joining;
    expect(joined(stormy)).toBe(joined(steady));
    const updates = steady.points.map(({ down }) => down.updates);
    const last = (updates[3] ?? 0) - (updates[2] ?? 0);
    expect(last).toBeGreaterThan(1.5 * ((updates[2] ?? 0) - (updates[1] ?? 0)));
  });

  test.each(["training", "noise"] as const)("%s ahead fills the time that a narrow link takes", async (work) => {
    const links = { upMbitPerS: 0.02, downMbitPerS: 0.05, delayMs: 40 };
    const { round } = toyArm("default").charter;
    const at = (aheadMax: number): Arm =>
      toyArm("default", { work, links, rounds: 4, charter: { round: { ...round, stepsMax: 6, aheadMax } } });
    const [waits, ahead] = [await run(at(0)), await run(at(5))];
    const last = (record: RunRecord) => record.points[4] as RunRecord["points"][number];
    expect(waits.sums.idleShare).toBeGreaterThan(0.2);
    expect(ahead.sums.idleShare).toBeLessThan(waits.sums.idleShare - 0.1);
    expect(last(ahead).timeMs).toBeLessThan(last(waits).timeMs);
    expect(last(ahead).tokens).toBe(last(waits).tokens);
    expect(roundBytes(last(ahead).up) / roundBytes(last(waits).up)).toBeCloseTo(1, 1);
  });

  test("ends with the first version that enough tokens went into", async () => {
    const { points } = await run(toyArm("default", { rounds: 9, tokensMax: 500 }));
    expect(points.findIndex(({ tokens }) => tokens >= 500)).toBe(points.length - 1);
  });

  test("members train on one source each, and every source's loss is in the record", async () => {
    const record = await run(toyArm("default", { split: "by-source" }));
    expect(Object.keys(record.points[0]?.losses ?? {})).toEqual(["moby-dick", "state-of-the-union", "node-types"]);
    expect(record.sums.accepted).toBeGreaterThan(0);
  });

  test("counts what is sent once apart from what each round sends", async () => {
    const { points } = await run(toyArm("default"));
    const ups = points.map(({ up }) => roundBytes(up));
    expect(ups.every((bytes, i) => i === 0 || bytes > (ups[i - 1] ?? 0))).toBe(true);
    expect(points[1]?.down.joining).toBe(points[3]?.down.joining);
  });
});

/** Fails after so many of the engine's answers, as a machine does that is switched off. */
function failing(engine: Engine, answers: number): Engine {
  let left = answers;
  const spend = (): void => {
    left -= 1;
    if (left < 0) {
      throw new Error("Switched off");
    }
  };
  return {
    ...engine,
    compile: async (program) => {
      const plan = await engine.compile(program);
      const runPlan: typeof plan.run = async (outputs) => {
        spend();
        return plan.run(outputs);
      };
      return { ...plan, run: runPlan };
    },
  };
}

describe("openJournal()", () => {
  for (const [what, arm, seed] of [
    ["in peace", toyArm("default"), 1],
    ["in a storm", toyArm("default", STORMY), 3],
    ["in data parallel training", toyArm("synchronous"), 1],
  ] as const) {
    test(`lets a run that was switched off again and again end as one that was not: ${what}`, async () => {
      const dir = mkdtempSync(join(tmpdir(), "heddle-journal-"));
      try {
        const whole = await run(arm, seed);
        let [lives, remembered] = [0, 0];
        let record: RunRecord | undefined;
        for (; record === undefined && lives < 40; lives += 1) {
          const journal = openJournal(dir);
          const engine = failing(await createWasmEngine({ threads: 1 }), 300);
          record = await run(arm, seed, { engine, journal }).catch(() => undefined);
          remembered = journal.remembered;
          journal.close({ remove: false });
        }
        expect(lives).toBeGreaterThan(1);
        expect(remembered).toBeGreaterThan(0);
        expect(record && recordText(record)).toBe(recordText(whole));
      } finally {
        rmSync(dir, { recursive: true, force: true });
      }
    });
  }
});
