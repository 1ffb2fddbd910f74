/**
 * With nothing left out (every entry kept, values exact), one contributor, outer learning rate 1 and no momentum, federated
 * training is plain AdamW, or Muon: the base after k rounds has the bits that the trainer alone computes. Any loss in the delta, the
 * codec, the residual, the merge or the outer step would show here as a changed bit. (training.md §6.3, i)
 */
import { describe, expect, test } from "vitest";
import { digestOf, floatBytes } from "../src/base/bytes.ts";
import { batchAt } from "../src/data/batch.ts";
import { createTrainer } from "../src/model/trainer.ts";
import type { TrainAssignment } from "../src/protocol/messages.ts";
import { createTwin } from "../src/tensor/twin.ts";
import { littleCharter, nameOf, startLittleRun } from "./fixtures/little-run.ts";

const ROUNDS = 4;

describe("one contributor without compression takes the steps of one worker", () => {
  for (const [beta, matrixRate] of [
    [0, 0],
    [1, 0],
    [1, 0.01],
  ] as const) {
    const way = matrixRate === 0 ? "AdamW" : "Muon";
    test(`bit for bit over ${ROUNDS} rounds, with error feedback β = ${beta} and ${way}`, async () => {
      const exact = { keep: 4096, bits: 64, beta } as const;
      const charter = littleCharter({
        uplink: { ...exact, together: 0, carry: false },
        downlink: exact,
        outer: {
          learningRate: 1,
          momentum: 0,
          clipToMedian: 0,
          normPower: 0,
          radial: false,
          radialRounds: 0,
          endShare: 1,
        },
        // Every contribution counts, even a step that made the loss a little worse.
        trust: { ...littleCharter().trust, normMax: 0, improvementMin: -1, harmMax: 1 },
        inner: { ...littleCharter().inner, matrixRate },
      });
      const run = await startLittleRun(charter);
      run.contributor.start();
      await run.until(() => run.host.head().version >= ROUNDS);

      const trainer = await createTrainer(createTwin(), { model: charter.model, inner: charter.inner });
      trainer.load(run.initial);
      for (const { seed, round, stepsMax } of trainingOf(
        run.down.flatMap((each) => (each.type === "assign" ? [each.assignment] : [])),
      )) {
        for (let step = 0; step < stepsMax; step += 1) {
          const place = {
            seed,
            round,
            contributor: nameOf(run),
            step,
            batch: charter.inner.batch,
            time: charter.model.time,
          };
          await trainer.step(batchAt(run.corpus, place));
        }
        const version = run.host.view().versions[round];
        expect(digestOf(floatBytes(await trainer.parameters()))).toBe(version?.digest);
      }
    });
  }
});

/** The first rounds' training assignments, in order. */
function trainingOf(assignments: readonly { readonly type: string }[]): TrainAssignment[] {
  const training = assignments.filter((each): each is TrainAssignment => each.type === "train").slice(0, ROUNDS);
  expect(training.map(({ round }) => round)).toEqual(Array.from({ length: ROUNDS }, (_, i) => i + 1));
  return training;
}
