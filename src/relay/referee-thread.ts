/**
 * The relay's referee, on a thread of its own so that measuring never holds up the relay: it measures losses on the WASM
 * engine, which gives the same numbers on every machine. `referee.ts` is its other end.
 */
import { parentPort } from "node:worker_threads";
import { expose } from "comlink";
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { present } from "../base/assert.ts";
import type { Charter } from "../protocol/charter.ts";
import { createCorpus } from "../data/corpus.ts";
import { createEvaluator } from "../model/evaluator.ts";
import type { MeasureFacts } from "../trust/measure.ts";
import { createReferee, type RefereeWork } from "../trust/referee.ts";
import type { SparseUpdate } from "../update/unpack.ts";
import { createWasmEngine } from "../wasm/engine.ts";
import type { Losses } from "../protocol/messages.ts";

let referee: RefereeWork;

const surface = {
  async open(
    charter: Charter,
    trainShards: readonly Uint8Array[],
    evaluationShards: readonly Uint8Array[],
  ): Promise<void> {
    const [train, evaluation] = [createCorpus(trainShards), createCorpus(evaluationShards)];
    const engine = await createWasmEngine({ threads: 1 });
    const evaluator = await createEvaluator(engine, { model: charter.model, batch: charter.inner.batch });
    referee = createReferee({ evaluator, charter, train, evaluation });
  },

  /** Mean loss of `params` on the charter's evaluation data, nats per byte. */
  evaluate(params: Float32Array): Promise<number> {
    return referee.evaluate(params);
  },

  measure(base: Float32Array, update: SparseUpdate, facts: MeasureFacts): Promise<Losses> {
    return referee.measure(base, update, facts);
  },
};

export type RefereeThread = typeof surface;

expose(surface, nodeEndpoint(present(parentPort, "parent port")));
