import { expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import type { ContributorId, Digest } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { createStop } from "../base/stop.ts";
import { batchAt } from "../data/batch.ts";
import { createCorpus } from "../data/corpus.ts";
import { createPace } from "../engines/pace.ts";
import { initialParameters } from "../model/layout.ts";
import { createTrainer } from "../model/trainer.ts";
import { sampleCharter } from "../protocol/sample.ts";
import type { TrainAssignment } from "../protocol/messages.ts";
import type { Engine } from "../tensor/engine.ts";
import { createTwin } from "../tensor/twin.ts";
import { packUpdate } from "../update/pack.ts";
import { packOnHost, type Packed } from "./packing.ts";
import { createWork, type LocalRun, type OnEngine } from "./work.ts";

const evaluation = { name: "e", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const sample = sampleCharter([], evaluation);
const charter = {
  ...sample,
  model: { ...sample.model, channels: 8, layers: 1, heads: 2, kvHeads: 1, hidden: 8, time: 8 },
  inner: { ...sample.inner, batch: 2 },
  // What travels exactly is packed by the host, so that a run comes with its parameters.
  uplink: { keep: 4096, bits: 64, beta: 0, together: 0, carry: false },
} as const;
const corpus = createCorpus([Uint8Array.from({ length: 500 }, (_, i) => 97 + (i % 26))]);
const contributor = "c".repeat(64) as ContributorId;
const assignment: TrainAssignment = {
  type: "train",
  id: "a",
  round: 3,
  baseVersion: 0,
  baseDigest: "0".repeat(64) as Digest,
  seed: 7,
  stepsMax: 4,
  keep: 4096,
  trainMs: 1000,
};

/** A clock on which waiting is instant and each reading takes 5 ms, with a record of the waits. */
function ticking(): Clock & { readonly waits: number[] } {
  let now = 0;
  const waits: number[] = [];
  return {
    waits,
    nowMs: () => (now += 5),
    after: (delayMs, wake) => {
      waits.push(delayMs);
      now += delayMs;
      void Promise.resolve().then(wake);
      return () => {};
    },
  };
}
const free = { deadlineMs: 1e9, signal: createStop(), onStep: () => {} };

test("createWork() trains on the batches that the assignment names, as the trainer does", async () => {
  const base = initialParameters(charter.model);
  const work = await createWork({
    engine: createTwin(),
    charter,
    contributor,
    corpus,
    clock: ticking(),
    pace: { work: (run) => run() },
  });
  const run = await work.train(assignment, base, free);

  const trainer = await createTrainer(createTwin(), charter);
  trainer.load(base);
  const losses: number[] = [];
  for (let step = 0; step < 4; step += 1) {
    const place = { seed: 7, round: 3, contributor, step, batch: 2, time: 8 };
    losses.push((await trainer.step(batchAt(corpus, place))).loss);
  }
  expect(run).toEqual({ after: await trainer.parameters(), losses, steps: 4, tokens: 64 });
  expect((await work.moments())?.t).toBe(4);
});

test("createWork() trains at the share of the learning rate that the charter has for the round", async () => {
  const base = initialParameters(charter.model);
  const falling = { ...charter, round: { ...charter.round, decayRounds: 4, decayTo: 0 } };
  const options = {
    engine: createTwin(),
    contributor,
    corpus,
    clock: ticking(),
    pace: { work: <T>(run: () => Promise<T>) => run() },
  };
  const [kept, fallen] = [
    await createWork({ ...options, charter }),
    await createWork({ ...options, engine: createTwin(), charter: falling }),
  ];
  const one = { ...assignment, stepsMax: 1 };
  const moved = ({ after }: LocalRun): number => Math.abs(((after as Float32Array)[0] as number) - (base[0] as number));
  const [whole, half] = [await kept.train(one, base, free), await fallen.train({ ...one, round: 3 }, base, free)];
  expect(moved(await fallen.train({ ...one, round: 5 }, base, free))).toBe(0);
  expect(moved(half)).toBeLessThan(0.75 * moved(whole));
});

test("createWork() does one step when the deadline has passed, none when it was stopped before", async () => {
  const base = initialParameters(charter.model);
  const work = await createWork({
    engine: createTwin(),
    charter,
    contributor,
    corpus,
    clock: ticking(),
    pace: { work: (run) => run() },
  });
  expect((await work.train(assignment, base, { ...free, deadlineMs: 0 })).steps).toBe(1);
  const signal = createStop();
  signal.abort();
  expect((await work.train(assignment, base, { ...free, signal })).steps).toBe(0);
});

test("createWork() stops within a step", async () => {
  const base = initialParameters(charter.model);
  const work = await createWork({
    engine: createTwin(),
    charter,
    contributor,
    corpus,
    clock: ticking(),
    pace: { work: (run) => run() },
  });
  const signal = createStop();
  const onStep = ({ step }: { step: number }): void => {
    if (step === 2) {
      signal.abort();
    }
  };
  expect((await work.train(assignment, base, { ...free, signal, onStep })).steps).toBe(2);
});

test("createWork() rests so that a quarter of the time is work", async () => {
  const base = initialParameters(charter.model);
  const clock = ticking();
  const work = await createWork({
    engine: createTwin(),
    charter,
    contributor,
    corpus,
    clock,
    pace: createPace({ clock, duty: () => 0.25 }),
  });
  await work.train(assignment, base, free);
  // A look at this clock takes 5 ms: each rest was that much longer than asked for, and the next one is shorter.
  // Waits of nothing let the event loop turn.
  expect(clock.waits.filter((ms) => ms > 0)).toEqual([15, 10, 10, 10]);
  expect(clock.waits.filter((ms) => ms === 0)).toHaveLength(4);
});

test("createWork() ends a round at its deadline, not after the rest that is owed by then", async () => {
  const base = initialParameters(charter.model);
  const clock = ticking();
  const pace = createPace({ clock, duty: () => 0.05 });
  const work = await createWork({ engine: createTwin(), charter, contributor, corpus, clock, pace });
  const run = await work.train(assignment, base, { ...free, deadlineMs: 60 });
  // Without the deadline the rest after the first step would have taken 95 ms.
  expect(run.steps).toBe(1);
  const rests = clock.waits.filter((waitMs) => waitMs > 0);
  expect(rests.length).toBe(1);
  expect(rests[0]).toBeLessThan(60);
});

test.each([1, 2, 3, 4] as const)(
  "createWork() packs with %i bits on the engine what the host would pack, and trains on undisturbed",
  async (bits) => {
    const uplink = { keep: 64, bits, beta: 0.9, together: 0, carry: false } as const;
    const base = initialParameters(charter.model);
    const pace = { work: <T>(run: () => Promise<T>) => run() };
    const options = { contributor, corpus, clock: ticking(), pace };
    const packing = await createWork({ ...options, engine: createTwin(), charter: { ...charter, uplink } });
    const plain = await createWork({ ...options, engine: createTwin(), charter });
    let last: Packed | undefined;
    for (const round of [3, 5]) {
      const { after } = await packing.train({ ...assignment, round }, base, free);
      const reference = await plain.train({ ...assignment, round }, base, free);
      const feed = { start: base, residual: last?.residual ?? null, rounds: last === undefined ? 0 : 1, uplink };
      const onHost = packOnHost(feed, reference.after as Float32Array);
      const packed = await (after as OnEngine).pack(feed);
      expect(packed.payload).toEqual(packUpdate(packed.residual, uplink));
      packed.residual.forEach((value, i) => expect(value).toBeCloseTo(onHost.residual[i] as number, 8));
      if (last === undefined) {
        expect(packed).toEqual(onHost);
      }
      last = packed;
    }
  },
);

test("createWork() packs on the host when the engine has no room", async () => {
  const uplink = { keep: 64, bits: 2, beta: 0.9, together: 0, carry: false } as const;
  const base = initialParameters(charter.model);
  const twin = createTwin();
  const engine: Engine = {
    ...twin,
    compile: async (program) => {
      if (program.name === "pack") {
        throw new HeddleError("model-too-big", "No room");
      }
      return twin.compile(program);
    },
  };
  const pace = { work: <T>(run: () => Promise<T>) => run() };
  const work = await createWork({
    engine,
    charter: { ...charter, uplink },
    contributor,
    corpus,
    clock: ticking(),
    pace,
  });
  const { after } = await work.train(assignment, base, free);
  const feed = { start: base, residual: null, rounds: 0, uplink };
  const packed = await (after as OnEngine).pack(feed);
  expect(packed).toEqual(packOnHost(feed, await twin.readState("params")));
});
