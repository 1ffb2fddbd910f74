/**
 * What must hold between the federated path and plain training, exactly where arithmetic says exactly. "Dense": every entry
 * kept, values exact, outer learning rate 1, no momentum, no clipping.
 *
 * With one step a round, dense federated training averages the optimiser's steps; data parallel training takes its step of the
 * averaged gradient. AdamW divides by the gradient's size and Muon makes a step of one length of any (here as in the sample charter
 * Muon trains the layers' matrices and AdamW the rest), so these are not the same, whatever the rounding. What holds:
 * - with one contributor they are the same, bit for bit, whatever the steps a round;
 * - where all contributors see the same text, dense federated training has the bits of one of them alone, and data parallel
 *   training that of one alone but for the rounding of the gradients' sum;
 * - one step a round is the mean of the contributors' own steps, bit for bit for two;
 * - the mean of such steps is 5 % or less of the way from data parallel training's where all is trained with AdamW, made close to
 *   linear (eps much larger than the gradients, no moments), and more than 30 % as the arms train;
 * - who waits for everybody, however late, makes what a round without lateness makes.
 */
import { describe, expect, test } from "vitest";
import { digestOf, floatBytes } from "../src/base/bytes.ts";
import { encode } from "../src/data/text.ts";
import { createTrainer } from "../src/model/trainer.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import type { Arm } from "./experiment.ts";
import { runJob } from "./job.ts";
import type { RunRecord } from "./record.ts";
import { createSetting } from "./setting.ts";
import type { Source } from "./sources.ts";
import { stepBatch } from "./synchronous.ts";
import { sourceOf, toyArm, TOY_SOURCES, type ToyChanges } from "./toy.fixture.ts";

const run = async (arm: Arm, sources: readonly Source[] = TOY_SOURCES): Promise<RunRecord> =>
  runJob({ experiment: "toy", arm, seed: 1 }, { engine: await createWasmEngine({ threads: 1 }), sources });
const digests = ({ points }: RunRecord): string[] => points.map(({ digest }) => digest);

/** The dense federated arm and the synchronous one, alike in all else. */
function pairOf({ charter, ...rest }: ToyChanges): readonly [federated: Arm, synchronous: Arm] {
  const { round, inner } = toyArm("fedavg").charter;
  const changes = {
    devices,
    ...rest,
    charter: { ...charter, inner: { ...inner, ...charter?.inner }, round: { ...round, ...charter?.round } },
  };
  return [toyArm("fedavg", changes), toyArm("synchronous", changes)];
}

const { round, inner } = toyArm("fedavg").charter;
const steps = (stepsMax: number): NonNullable<ToyChanges["charter"]> => ({
  round: { ...round, stepsMax, trainMs: 100_000 },
});
/** So slow that nobody misses a round, be it of one step. */
const devices = { stepMs: 5_000, spread: 1 };

describe("dense federated training equals data parallel training, bit for bit,", () => {
  for (const stepsMax of [1, 3]) {
    test(`with one contributor and ${stepsMax} steps a round`, async () => {
      const [federated, synchronous] = pairOf({ contributors: 1, charter: steps(stepsMax) });
      expect(digests(await run(federated))).toEqual(digests(await run(synchronous)));
    });
  }
});

describe("where all contributors see the same text,", () => {
  // One window of text: every batch of everyone is the same.
  const sources = [sourceOf("moby-dick", encode("Call me Ishmael. "))]; // 16 tokens and the last one's target

  for (const stepsMax of [1, 3]) {
    test(`dense federated training with ${stepsMax} steps a round has the bits of one contributor alone`, async () => {
      const changes = { sources: ["moby-dick"], charter: steps(stepsMax) } as const;
      const alone = digests(await run(pairOf({ ...changes, contributors: 1 })[1], sources));
      expect(digests(await run(pairOf({ ...changes, contributors: 2 })[0], sources))).toEqual(alone);
      // The relay refuses a payload that it has had before: of five alike one counts, which is their mean.
      expect(digests(await run(pairOf({ ...changes, contributors: 5 })[0], sources))).toEqual(alone);
    });

    test(`data parallel training is that but for the rounding of sums, at ${stepsMax} steps a version`, async () => {
      const [federated, synchronous] = pairOf({ contributors: 4, sources: ["moby-dick"], charter: steps(stepsMax) });
      const losses = (record: RunRecord): number[] => record.points.map(({ loss }) => loss);
      const theirs = losses(await run(synchronous, sources));
      expect(losses(await run(federated, sources))).toEqual(theirs.map((loss) => expect.closeTo(loss, 4)));
    });
  }
});

describe("dense federated training with one step a round", () => {
  const [federated] = pairOf({ contributors: 4, rounds: 1, charter: steps(1) });

  /** The parameters after the optimiser's first step (Muon's for matrices) from the initial ones, [P], for each contributor by itself. */
  async function stepsApart(arm: Arm): Promise<Float32Array[]> {
    const setting = createSetting(arm, 1, TOY_SOURCES);
    const rows = arm.charter.inner.batch * arm.charter.model.time;
    const { tokens, targets } = stepBatch(setting, 1, 0);
    const after: Float32Array[] = [];
    for (let i = 0; i < arm.contributors; i += 1) {
      const trainer = await createTrainer(await createWasmEngine({ threads: 1 }), setting.charter);
      trainer.load(setting.initial);
      const own = [i * rows, (i + 1) * rows] as const;
      await trainer.step({ tokens: tokens.subarray(...own), targets: targets.subarray(...own) });
      after.push(await trainer.parameters());
    }
    return after;
  }

  test("is the mean of the contributors' Muon and AdamW steps, bit for bit for two of them", async () => {
    const two = { ...federated, contributors: 2 };
    const { initial } = createSetting(two, 1, TOY_SOURCES);
    const after = await stepsApart(two);
    // Exact in f64, as the merge is for two: a third of a number would have to be rounded.
    const mean = initial.map((value, p) => {
      const moved = after.reduce((sum, own) => sum + (value - (own[p] as number)), 0) / after.length;
      return Math.fround(value - moved);
    });
    const record = await run(two);
    expect(record.points[1]?.digest).toBe(digestOf(floatBytes(mean as Float32Array<ArrayBuffer>)));
  });

  test("is not data parallel training (by over 0.3 of the way), and within 0.05 of it with AdamW alone, made close to linear", async () => {
    const linear = { ...inner, learningRate: 0.1, beta1: 0, beta2: 0, eps: 1, weightDecay: 0, clip: 0, matrixRate: 0 };
    const far = await distance(pairOf({ contributors: 4, rounds: 1, charter: steps(1) }));
    const near = await distance(pairOf({ contributors: 4, rounds: 1, charter: { ...steps(1), inner: linear } }));
    expect(far).toBeGreaterThan(0.3);
    expect(near).toBeLessThan(0.05);
  });

  /** How far apart the two first versions are, as a share of the way from the initial parameters. */
  async function distance([one, other]: readonly [Arm, Arm]): Promise<number> {
    const setting = createSetting(other, 1, TOY_SOURCES);
    const after = await stepsApart(one);
    const trainer = await createTrainer(await createWasmEngine({ threads: 1 }), {
      model: setting.charter.model,
      inner: { ...setting.charter.inner, batch: setting.charter.inner.batch * 4 },
      thrift: { accumulate: 4 },
    });
    trainer.load(setting.initial);
    await trainer.step(stepBatch(setting, 1, 0));
    const together = await trainer.parameters();
    let [apart, way] = [0, 0];
    for (const [p, value] of setting.initial.entries()) {
      const mean = after.reduce((sum, own) => sum + (own[p] as number), 0) / after.length;
      apart += (mean - (together[p] as number)) ** 2;
      way += ((together[p] as number) - value) ** 2;
    }
    return Math.sqrt(apart / way);
  }
});

test("the order of arrival changes no bit of any version", async () => {
  const { trust } = toyArm("diloco").charter;
  const arm = (links: Arm["links"], spread: number): Arm =>
    toyArm("default", {
      contributors: 4,
      links,
      devices: { stepMs: 100, spread },
      charter: { trust, round: { ...round, trainMs: 60_000, stepsMax: 3 } },
    });
  const quick = await run(arm({ upMbitPerS: 1_000, downMbitPerS: 1_000, delayMs: 0 }, 1));
  const slow = await run(arm({ upMbitPerS: 0.05, downMbitPerS: 1, delayMs: 700 }, 12));
  expect(digests(slow)).toEqual(digests(quick));
  expect(slow.points.at(-1)?.timeMs).toBeGreaterThan(2 * (quick.points.at(-1)?.timeMs ?? 0));
});

test("waiting for whatever comes late gives the bits of rounds in which nothing does", async () => {
  const { trust } = toyArm("diloco").charter;
  const arm = (upMbitPerS: number, changes: Partial<typeof round>): Arm =>
    toyArm("default", {
      contributors: 4,
      links: { upMbitPerS, downMbitPerS: 10, delayMs: 0 },
      devices: { stepMs: 100, spread: 1 },
      charter: { trust, round: { ...round, trainMs: 1_000, stepsMax: 3, quorum: 1, ...changes } },
    });
  const synchronous = await run(arm(1_000, { lateShare: 0 }));
  const waiting = await run(arm(0.002, { graceMs: 600_000, lateShare: 0.5 }));
  expect(digests(waiting)).toEqual(digests(synchronous));
  expect(waiting.sums.accepted).toBe(synchronous.sums.accepted);
  // Every round's updates did come after its time for training.
  const roundMs = waiting.points.slice(1).map(({ timeMs }, i) => timeMs - (waiting.points[i]?.timeMs ?? 0));
  expect(Math.min(...roundMs)).toBeGreaterThan(2_000);
});
