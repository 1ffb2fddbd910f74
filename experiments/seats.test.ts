/** Several trainers on one engine, taking turns, against each on an engine of its own. */
import { expect, test } from "vitest";
import { createCorpus } from "../src/data/corpus.ts";
import { batchAt } from "../src/data/batch.ts";
import { createEvaluator } from "../src/model/evaluator.ts";
import { initialParameters } from "../src/model/layout.ts";
import { createTrainer, type Trainer } from "../src/model/trainer.ts";
import type { Engine } from "../src/tensor/engine.ts";
import { createTwin } from "../src/tensor/twin.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import { createIdle } from "./idle.ts";
import { shareEngine } from "./seats.ts";
import { toyArm, TOY_SOURCES } from "./toy.fixture.ts";

const { model, inner } = toyArm("default").charter;
const corpus = createCorpus(TOY_SOURCES.flatMap(({ train }) => train.shards));
const batchOf = (who: number, step: number) =>
  batchAt(corpus, { seed: 1, round: 1, contributor: String(who), step, batch: inner.batch, time: model.time });

/** Three trainers step by step in turns, one of them read and loaded meanwhile, an evaluator between them. */
async function trainInTurns(engineOf: (who: number) => Promise<Engine>) {
  const trainers: Trainer[] = [];
  for (let who = 0; who < 3; who += 1) {
    trainers.push(await createTrainer(await engineOf(who), { model, inner }));
    trainers[who]?.load(initialParameters({ ...model, seed: who }));
  }
  const evaluator = await createEvaluator(await engineOf(3), { model, batch: inner.batch });
  evaluator.load(initialParameters(model));
  const seen: unknown[] = [];
  for (let step = 0; step < 4; step += 1) {
    seen.push(await Promise.all(trainers.map((trainer, who) => trainer.step(batchOf(who, step)))));
    seen.push(await evaluator.loss(batchOf(9, step)));
    if (step === 1) {
      seen.push(await trainers[1]?.parameters());
      trainers[1]?.load(initialParameters({ ...model, seed: 7 }));
    }
  }
  for (const trainer of trainers) {
    seen.push(await trainer.parameters(), await trainer.moments());
  }
  return seen;
}

for (const [name, create] of [
  ["WASM", () => createWasmEngine({ threads: 1 })],
  ["the twin", async () => createTwin()],
] as const) {
  test(`shareEngine() gives each seat the bits that it would get alone, on ${name}`, async () => {
    const seats = shareEngine({ engine: await create(), idle: createIdle() });
    const shared = await trainInTurns(async (who) => seats.take(String(who)));
    expect(shared).toEqual(await trainInTurns(create));
  });
}

test("createIdle().settle() waits for what is tracked, and for what follows from it", async () => {
  const idle = createIdle();
  const order: string[] = [];
  const wait = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
  void idle.track(wait()).then(() => {
    order.push("first");
    return idle.track(wait()).then(() => order.push("second"));
  });
  await idle.settle();
  order.push("settled");
  expect(order).toEqual(["first", "second", "settled"]);
});
