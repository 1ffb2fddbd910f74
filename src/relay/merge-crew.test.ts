import { once } from "node:events";
import process from "node:process";
import type { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { digestOf, floatBytes } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { type Base, type Crew, WORKERS_MAX } from "../update/crew.ts";
import { updateNorm } from "../update/delta.ts";
import { serverBytesOf } from "../protocol/capacity.ts";
import { createServerState } from "../update/outer.ts";
import { packUpdate } from "../update/pack.ts";
import { soloCrew } from "../update/solo.ts";
import { stepOver } from "../update/step.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { loadMergeKernel } from "../wasm/merge.ts";
import { startCrew, workersFor } from "./merge-crew.ts";

const P = 5 * 4096 - 9;
const data = { name: "none", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const sample = sampleCharter([data], data);
const settings = {
  outer: { learningRate: 1, momentum: 0.5, clipToMedian: 1, normPower: 0, stretch: 1 },
  downlink: sample.downlink,
};
const sent = ([2, 64] as const).map((bits, i) => {
  const rng = createRng("crew", i);
  const bytes = packUpdate(
    Float32Array.from({ length: P }, () => rng.normal()),
    { keep: 64, bits, beta: 1 },
  );
  const update = unpackUpdate(bytes, { parameters: P, keepMax: 64 });
  const norm = update.ok ? updateNorm(update.value) : 0;
  return { id: `id ${i}`, weight: 1 + i, norm, bytes: bytes.length, read: async () => bytes };
});

function startOf({ memory }: Crew): Base {
  const server = createServerState(P, 1, memory.take(serverBytesOf(P, 1)));
  server.residual.fill(0.25);
  return { params: new Float32Array(memory.take(P * 4)).fill(1), server };
}

/** Two steps, and the digests of all that is stored of the second. */
async function runOf(crew: Crew) {
  const start = startOf(crew);
  const first = await stepOver(crew, start, sent, settings);
  crew.memory.give(start.params.buffer);
  const { base, broadcast } = await stepOver(crew, first.base, sent, settings);
  const sealed = await crew.seal(base.server.bytes);
  expect(sealed.digest ?? digestOf(sealed.bytes)).toBe(digestOf(base.server.bytes));
  expect(base.params.buffer === start.params.buffer).toBe("died" in crew); // what is given back is used again
  return [digestOf(floatBytes(base.params)), digestOf(sealed.bytes), digestOf(broadcast)];
}

test("startCrew() gives threads that make the step of one in this process, and says when one of them has died", async () => {
  const made: Worker[] = [];
  const onWorker = (worker: Worker): unknown => made.push(worker);
  process.on("worker", onWorker);
  const crew = await startCrew(2);
  process.off("worker", onWorker);
  expect(await runOf(crew)).toEqual(await runOf(soloCrew(await loadMergeKernel())()));
  const damaged = sent.map((each) => ({ ...each, read: async () => new Uint8Array(each.bytes) }));
  await expect(stepOver(crew, startOf(crew), damaged, settings)).rejects.toMatchObject({
    code: "integrity",
    message: 'Cannot merge updates: the payload of "id 0" is damaged',
  });
  const [, worker] = made as [Worker, Worker];
  let reads = 0;
  const dying = sent.map((each) => ({
    ...each,
    read: async () => {
      reads += 1;
      await worker.terminate();
      return each.read();
    },
  }));
  const ended = once(worker, "exit");
  await expect(stepOver(crew, startOf(crew), dying, settings)).rejects.toThrow(
    "merge worker's thread ended with code 1",
  );
  await ended;
  expect(reads).toBeGreaterThan(0);
  expect(String(await crew.died)).toContain("nothing can be merged any more");
  await expect(stepOver(crew, startOf(crew), sent, settings)).rejects.toThrow("nothing can be merged any more");
  await crew.close();
});

test("workersFor() gives a small model one worker, and no model more than there are cores, or than the limit", () => {
  expect(workersFor(17_600, 8)).toBe(1);
  expect(workersFor(600_000, 8)).toBe(2);
  expect(workersFor(25_000_000, 8)).toBe(8);
  expect(workersFor(25_000_000, 64)).toBe(WORKERS_MAX);
});
