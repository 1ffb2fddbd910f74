/**
 * The relay's referee, on a thread of its own so that measuring never holds up the relay: it measures losses on the WASM
 * engine, which gives the same numbers on every machine. `referee.ts` is its other end.
 */
import { parentPort } from "node:worker_threads";
import { expose } from "comlink";
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { present } from "../base/assert.ts";
import type { Charter } from "../protocol/charter.ts";
import { createCorpus, type Corpus } from "../data/corpus.ts";
import { evaluationBatches } from "../data/batch.ts";
import { createEvaluator, type Evaluator } from "../model/evaluator.ts";
import { measureLosses, type MeasureFacts } from "../trust/measure.ts";
import type { SparseUpdate } from "../update/unpack.ts";
import { createWasmEngine } from "../wasm/engine.ts";
import type { Losses } from "../protocol/messages.ts";

/** Batches of held-out text that an evaluation reads. */
const EVALUATION_BATCHES = 8;

let charter: Charter;
let train: Corpus;
let evaluation: Corpus;
let evaluator: Evaluator;

const surface = {
  async open(
    wanted: Charter,
    trainShards: readonly Uint8Array[],
    evaluationShards: readonly Uint8Array[],
  ): Promise<void> {
    charter = wanted;
    train = createCorpus(trainShards);
    evaluation = createCorpus(evaluationShards);
    const engine = await createWasmEngine({ threads: 1 });
    evaluator = await createEvaluator(engine, { model: charter.model, batch: charter.inner.batch });
  },

  /** Mean loss of `params` on the charter's evaluation data, nats per byte. */
  async evaluate(params: Float32Array): Promise<number> {
    evaluator.load(params);
    let sum = 0;
    for (const batch of evaluationBatches(evaluation, {
      batch: charter.inner.batch,
      time: charter.model.time,
      count: EVALUATION_BATCHES,
    })) {
      sum += await evaluator.loss(batch);
    }
    return sum / EVALUATION_BATCHES;
  },

  measure(base: Float32Array, update: SparseUpdate, facts: MeasureFacts): Promise<Losses> {
    return measureLosses({ evaluator, base, update, corpus: train, facts, charter });
  },
};

export type RefereeThread = typeof surface;

expose(surface, nodeEndpoint(present(parentPort, "parent port")));
