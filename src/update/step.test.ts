import * as fc from "fast-check";
import { expect, test } from "vitest";
import { digestOf, floatBytes, type Bytes } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import type { Compression } from "../protocol/charter.ts";
import { loadMergeKernel } from "../wasm/merge.ts";
import { rangesOf, type Base } from "./crew.ts";
import { applyUpdate, updateNorm } from "./delta.ts";
import { createServerState, type OuterSettings } from "./outer.ts";
import { packUpdate } from "./pack.ts";
import { samples } from "./samples.fixture.ts";
import { soloCrew } from "./solo.ts";
import { stepOver } from "./step.ts";
import { mergeUpdates, outerStep } from "./twin.ts";
import { unpackUpdate, type SparseUpdate } from "./unpack.ts";

const openKernel = await loadMergeKernel();
const crews = [1, 2, 3, 7].map((count) => soloCrew(openKernel, count)());

function unpacked(bytes: Bytes, parameters: number): SparseUpdate {
  const update = unpackUpdate(bytes, { parameters, keepMax: 4096 });
  if (!update.ok) {
    throw new Error(update.detail);
  }
  return update.value;
}

const digests = ({ params, server }: Base, broadcast: Bytes) => ({
  params: digestOf(floatBytes(params)),
  server: digestOf(server.bytes),
  broadcast: digestOf(broadcast),
});

test("stepOver() has the digests of its twin with 1, 2, 3 and 7 ranges, over two steps", async () => {
  const form = fc.record({
    keep: fc.constantFrom(1, 64, 700, 4096),
    bits: fc.constantFrom<Compression["bits"]>(1, 2, 3, 4, 64),
    beta: fc.constantFrom(1, 0.9),
  });
  const run = fc.record({
    parameters: fc.constantFrom(1, 4095, 4096, 4097, 5 * 4096 - 3, 9 * 4096, 9 * 4096 + 1),
    uplinks: fc.array(form, { maxLength: 4 }),
    downlink: form,
    outer: fc.record<OuterSettings>({
      learningRate: fc.constantFrom(1, 0.7),
      momentum: fc.constantFrom(0, 0.6),
      clipToMedian: fc.constantFrom(0, 1),
      normPower: fc.constantFrom(0, 5),
      stretch: fc.constantFrom(0, 0.3, 1),
    }),
    packedBytesMax: fc.constantFrom(1, 2 ** 30),
    seed: fc.nat({ max: 1_000 }),
  });
  await fc.assert(
    fc.asyncProperty(run, async ({ parameters, uplinks, downlink, outer, packedBytesMax, seed }) => {
      const rng = createRng("steps", seed);
      const round = uplinks.map((uplink, i) => {
        // Chunks of very different fullness, so that no range has all that its header says.
        const dense = samples("laplace", parameters, seed + i).map((value, at) =>
          rng.float() < ((at >> 12) + i) / 9 ? 0 : value,
        );
        const bytes = packUpdate(dense, uplink);
        return { id: `id ${i}`, bytes, weight: 1 + rng.below(1_000), update: unpacked(bytes, parameters) };
      });
      const sent = round.map(({ id, bytes, weight, update }) => {
        return { id, weight, norm: updateNorm(update), bytes: bytes.length, read: async () => bytes };
      });
      const start: Base = { params: samples("gauss", parameters, seed), server: createServerState(parameters) };
      let plain = start;
      const bases: Base[] = crews.map(() => start);
      for (let step = 0; step < 2; step += 1) {
        const merged = mergeUpdates(round, { parameters, ...outer });
        const { server, broadcast, update } = outerStep(plain.server, merged, outer, downlink);
        plain = { params: applyUpdate(plain.params, update), server };
        const wanted = digests(plain, broadcast);
        for (const [i, crew] of crews.entries()) {
          const settings = { outer, downlink, packedBytesMax };
          const taken = await stepOver(crew, bases[i] as Base, sent, settings);
          expect(digests(taken.base, taken.broadcast)).toEqual(wanted);
          bases[i] = taken.base;
        }
      }
    }),
    { numRuns: 8 },
  );
});

test("rangesOf() gives whole chunks, all of them, to no more workers than there are chunks", () => {
  expect(rangesOf(1, 7)).toEqual([{ from: 0, to: 1 }]);
  expect(rangesOf(3 * 4096 - 1, 2)).toEqual([
    { from: 0, to: 4096 },
    { from: 4096, to: 3 * 4096 - 1 },
  ]);
  expect(rangesOf(2 * 4096, 16)).toHaveLength(2);
});
