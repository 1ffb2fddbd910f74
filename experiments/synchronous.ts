/**
 * The baseline: synchronous data parallel training as a plain loop. Each step takes the mean gradient over the batches that
 * the arm's contributors would draw for it (the same seeds, hence the same windows) and one step of AdamW, with the charter's
 * warm-up and the decay of the round that the step falls into. The batches are micro-batches of one Program, so the
 * arithmetic is that of one large batch. With one contributor it is a single worker.
 *
 * Traffic and time are by arithmetic: every contributor sends its gradients and receives their mean, P values as f32 each
 * way and step, without headers; a step lasts as long as the slowest device takes, then the transfers at the links' rates.
 */
import { digestOf, floatBytes } from "../src/base/bytes.ts";
import { trainSeed } from "../src/coordinator/assignment.ts";
import { batchAt, type Batch } from "../src/data/batch.ts";
import { rateShare } from "../src/protocol/decay.ts";
import { createEvaluator } from "../src/model/evaluator.ts";
import { createTrainer } from "../src/model/trainer.ts";
import { heldOutLoss } from "../src/trust/referee.ts";
import { lossesOf, type RunOptions, type Trained } from "./federated.ts";
import type { Point } from "./record.ts";
import { roundSeed } from "./seeds.ts";
import type { Setting } from "./setting.ts";
import { NO_TRAFFIC } from "./wire.ts";

export async function runSynchronous({ setting, seats, onPoint }: RunOptions): Promise<Trained> {
  const { arm, charter, initial, contributors } = setting;
  const { model, inner, round } = charter;
  const evaluator = await createEvaluator(seats.take("relay"), { model, batch: inner.batch });
  const trainer = await createTrainer(seats.take("everyone"), {
    model,
    inner: { ...inner, batch: inner.batch * contributors.length },
    thrift: { accumulate: contributors.length },
  });
  trainer.load(initial);
  const points: Point[] = [];
  const [stepBytes, stepMs] = [stepBytesOf(setting), stepMsOf(setting)];
  const add = async (params: Float32Array<ArrayBuffer>): Promise<void> => {
    const version = points.length;
    const steps = version * round.stepsMax;
    const traffic = { ...NO_TRAFFIC, updates: steps * stepBytes };
    const point: Point = {
      version,
      tokens: steps * trainer.tokensPerStep,
      timeMs: steps * stepMs,
      losses: await lossesOf(evaluator, setting, params),
      loss: await heldOutLoss(evaluator, { charter, evaluation: setting.evaluation, params }),
      up: traffic,
      down: traffic,
      contributions: 0,
      refused: 0,
      digest: digestOf(floatBytes(params)),
    };
    points.push(point);
    onPoint(point);
    await seats.save();
  };
  await add(initial.slice());
  while (points.length <= arm.rounds) {
    for (let step = 0; step < round.stepsMax; step += 1) {
      await trainer.step(stepBatch(setting, points.length, step), rateShare(round, points.length));
    }
    await add(await trainer.parameters());
  }
  const steps = arm.rounds * round.stepsMax * contributors.length;
  return {
    points,
    sums: { steps, accepted: 0, refused: {}, skipped: 0, idleShare: 0, vanished: 0, replicasCompared: 0 },
  };
}

/** What all contributors would train on in one step of a round, one after the other. */
export function stepBatch({ seed, charter, contributors, train }: Setting, round: number, step: number): Batch {
  const { batch } = charter.inner;
  const { time } = charter.model;
  const batches = contributors.map(({ id, own }) => {
    const assigned = trainSeed({ seed: roundSeed(seed, round), round }, id);
    return batchAt(own ?? train, { seed: assigned, round, contributor: id, step, batch, time });
  });
  const rows = batch * time;
  const [tokens, targets] = [new Uint32Array(rows * batches.length), new Uint32Array(rows * batches.length)];
  for (const [i, each] of batches.entries()) {
    tokens.set(each.tokens, i * rows);
    targets.set(each.targets, i * rows);
  }
  return { tokens, targets };
}

/** Of one contributor, each way; alone there is nobody to send to. */
function stepBytesOf({ initial, contributors }: Setting): number {
  return contributors.length === 1 ? 0 : initial.byteLength;
}

function stepMsOf(setting: Setting): number {
  const { links } = setting.arm;
  const slowestMs = Math.max(...setting.contributors.map(({ stepMs }) => stepMs));
  const bits = 8 * stepBytesOf(setting);
  const transferMs = bits / (1_000 * links.upMbitPerS) + bits / (1_000 * links.downMbitPerS);
  return slowestMs + (bits === 0 ? 0 : transferMs + links.delayMs); // two ways at half the longest delay, on average
}
