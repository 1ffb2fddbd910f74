import { once } from "node:events";
import process from "node:process";
import type { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { digestOf } from "../base/bytes.ts";
import { initialParameters } from "../model/layout.ts";
import type { Dataset } from "../protocol/charter.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { startReferee } from "./referee.ts";

const text = Uint8Array.from({ length: 4_000 }, (_, i) => 97 + ((i * i) % 26));
const shards = [{ digest: digestOf(text), bytes: text.length }];
const dataset: Dataset = { name: "letters", licence: "none", category: "fully-open", shards };
const sample = sampleCharter([dataset], dataset);
const model = { ...sample.model, channels: 32, layers: 1, heads: 2, kvHeads: 1, hidden: 64, time: 32 };
const charter = { ...sample, model };

test("startReferee() says when its thread has died, and no call waits for it", async () => {
  const made = once(process, "worker") as Promise<[Worker]>;
  const referee = await startReferee(charter, [text], [text]);
  const params = initialParameters(model);
  expect(await referee.evaluate(params)).toBeCloseTo(Math.log(256), 0);
  const evaluating = referee.evaluate(params);
  const [worker] = await made;
  await Promise.all([worker.terminate(), expect(evaluating).rejects.toThrow("The referee's thread ended")]);
  expect(await referee.died).toMatchObject({ message: "The referee's thread ended with code 1" });
});
