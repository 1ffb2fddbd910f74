import { expect, test } from "vitest";
import { digestOf, type ContributionId } from "../base/bytes.ts";
import { exampleHeader } from "../protocol/examples.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { createMemoryStore } from "../store/memory.ts";
import { packUpdate } from "../update/pack.ts";
import type { SparseUpdate } from "../update/unpack.ts";
import type { Contribution } from "./state.ts";
import { Workbench, type WorkbenchOptions } from "./workbench.ts";

const P = 8;
const data = { name: "d", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const charter = sampleCharter([], data);
const { blobs } = createMemoryStore();
const LOSSES = { assignedBefore: 2, assignedAfter: 1, randomBefore: 2, randomAfter: 1 };

async function contribution(value: number): Promise<Contribution> {
  const payload = packUpdate(new Float32Array(P).fill(value), charter.uplink);
  await blobs.put(payload);
  const header = { ...exampleHeader, payload: { digest: digestOf(payload), bytes: payload.length } };
  return { id: `c${value}` as ContributionId, header, norm: 1, verdict: null, improvement: null };
}

test("a workbench measures first what a validator has measured, and not what is not wanted any more", async () => {
  const order: number[] = [];
  const referee = {
    measure: async (_params: Float32Array, { values }: SparseUpdate) => {
      order.push(values[0] as number);
      return LOSSES;
    },
  };
  const base = { params: new Float32Array(P) };
  const bench = new Workbench({ blobs, referee, charter, base, log: () => undefined } as unknown as WorkbenchOptions);
  const [one, two, four] = [await contribution(1), await contribution(2), await contribution(4)];
  const facts = {} as never;
  const measured = await Promise.all([
    bench.measure(() => one, { facts, again: false }),
    bench.measure(() => ({ ...two, verdict: { type: "refused", reason: "busy" } }), { facts, again: false }),
    bench.measure(() => four, { facts, again: true }),
    bench.measure(() => undefined, { facts, again: true }),
  ]);
  expect(measured).toEqual([LOSSES, null, LOSSES, null]);
  expect(order).toEqual([4, 1]);
});
