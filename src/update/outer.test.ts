import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { floatBytes } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import type { Compression } from "../protocol/charter.ts";
import { applyUpdate, deltaOf, updateNorm } from "./delta.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { loadMergeKernel } from "../wasm/merge.ts";
import { createServerState, outerAt, type OuterSettings, serverFromBytes } from "./outer.ts";
import { packUpdate } from "./pack.ts";
import { samples, sparse } from "./samples.fixture.ts";
import { soloCrew } from "./solo.ts";
import { stepOver } from "./step.ts";
import { outerStep } from "./twin.ts";
import { unpackUpdate } from "./unpack.ts";

const crew = soloCrew(await loadMergeKernel())();
const EXACT: Compression = { keep: 4096, bits: 64, beta: 1 };
const SET = { name: "none", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const PLAIN: OuterSettings = { learningRate: 1, momentum: 0, clipToMedian: 1, normPower: 0, stretch: 0 };

describe("outerStep()", () => {
  test("with one contributor, learning rate 1 and no compression gives the contributor's parameters, bit for bit", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.integer({ min: 1, max: 9000 }),
        fc.constantFrom(1e-4, 0.01, 1),
        async (seed, count, step) => {
          const rng = createRng("invariant", seed);
          const before = Float32Array.from({ length: count }, () => rng.normal() * 0.02);
          const after = before.map((value) => value + step * rng.normal());
          const packed = packUpdate(deltaOf(before, after, 64), EXACT);
          const update = unpackUpdate(packed, { parameters: count, keepMax: 4096 });
          if (!update.ok) {
            throw new Error(update.detail);
          }
          const weight = 1 + rng.below(1e6);
          const norm = updateNorm(update.value);
          const one = { id: "a", weight, norm, bytes: packed.length, read: async () => packed };
          const start = { params: before, server: createServerState(count) };
          const { base } = await stepOver(crew, start, [one], { outer: PLAIN, downlink: EXACT });
          expect(floatBytes(base.params)).toEqual(floatBytes(after));
          expect(base.server.residual.every((value) => value === 0)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });

  test("is Nesterov momentum as published, over three steps by hand", () => {
    // μ 0.5, lr 1, merged 1, 0, 2: momentum 1, 0.5, 2.25; steps 1 + 0.5, 0 + 0.25, 2 + 1.125.
    const outer: OuterSettings = { learningRate: 1, momentum: 0.5, clipToMedian: 0, normPower: 0, stretch: 0 };
    let server = createServerState(1);
    const steps: number[] = [];
    for (const merged of [1, 0, 2]) {
      const result = outerStep(server, Float64Array.of(merged), outer, EXACT);
      server = result.server;
      steps.push(result.update.values[0] as number);
    }
    expect(steps).toEqual([1.5, 0.25, 3.125]);
    // Starting from θ 1 with g 0.5, lr 0.1, μ 0.9: θ 0.905 after one step.
    const first = outerStep(
      createServerState(1),
      Float64Array.of(0.5),
      { ...outer, learningRate: 0.1, momentum: 0.9 },
      EXACT,
    );
    expect(1 - (first.update.values[0] as number)).toBeCloseTo(0.905, 12);
  });

  test("keeps in the residual what the broadcast leaves out", () => {
    const parameters = 9000;
    const downlink: Compression = { keep: 200, bits: 2, beta: 1 };
    const merged = Float64Array.from(samples("laplace", parameters));
    let server = createServerState(parameters);
    let base: Float32Array = new Float32Array(parameters);
    for (let round = 0; round < 30; round += 1) {
      const result = outerStep(server, round === 0 ? merged : new Float64Array(parameters), PLAIN, downlink);
      server = result.server;
      base = applyUpdate(base, result.update);
    }
    // Nothing new came after the first round: the base approaches −merged, and together they are it.
    const gaps = merged.map((value, i) => (server.residual[i] as number) - (base[i] as number) - value);
    expect(Math.max(...gaps.map(Math.abs))).toBeLessThan(1e-5);
    expect(updateNorm(sparse(server.residual))).toBeLessThan(0.1 * updateNorm(sparse(merged)));
  });

  test("gives a replayer the same bytes and leaves its input alone", () => {
    const downlink: Compression = { keep: 64, bits: 2, beta: 0.95 };
    const outer: OuterSettings = { learningRate: 0.7, momentum: 0.6, clipToMedian: 1, normPower: 0, stretch: 0 };
    const first = outerStep(createServerState(5000), Float64Array.from(samples("gauss", 5000)), outer, downlink);
    const blob = first.server.bytes.slice();
    const merged = Float64Array.from(samples("gauss", 5000, 2));
    const restored = serverFromBytes(blob, 5000);
    if (!restored.ok) {
      throw new Error(restored.detail);
    }
    const again = outerStep(restored.value, merged, outer, downlink);
    const second = outerStep(first.server, merged, outer, downlink);
    expect(again.broadcast).toEqual(second.broadcast);
    expect(again.server.bytes).toEqual(second.server.bytes);
    expect(first.server.bytes).toEqual(blob);
  });

  test("does not fail on values near the end of f32", () => {
    const merged = Float64Array.of(3e38, -3e38, 1e-44);
    const result = outerStep(
      createServerState(3),
      merged,
      { ...PLAIN, learningRate: 4 },
      { keep: 3, bits: 2, beta: 1 },
    );
    expect([...result.update.values]).toEqual([31 * 2 ** 123, -31 * 2 ** 123]);
  });
});

describe("serverFromBytes()", () => {
  test("refuses what is not the bytes of a state", () => {
    const state = createServerState(2, 2);
    state.residual.set([1, 2]);
    state.momentum?.set([3, 4]);
    const blob = state.bytes;
    const reasonOf = (bytes: Uint8Array, parameters = 2): string => {
      const result = serverFromBytes(bytes, parameters);
      return result.ok ? "ok" : result.reason;
    };
    expect(reasonOf(blob)).toBe("ok");
    expect(reasonOf(blob, 3)).toBe("malformed");
    for (let length = 0; length < blob.length; length += 1) {
      expect(reasonOf(blob.subarray(0, length))).toBe("truncated");
    }
    expect(reasonOf(new Uint8Array([...blob, 0]))).toBe("malformed");
    for (const at of [0, 4, 12]) {
      const copy = blob.slice();
      copy[at] = 9;
      expect(reasonOf(copy)).toBe("malformed");
    }
    const infinite = createServerState(2);
    infinite.residual[1] = Infinity;
    expect(reasonOf(infinite.bytes)).toBe("not-finite");
  });
});

describe("outerAt()", () => {
  const { round, outer: sample } = sampleCharter([], SET);
  const outer = { ...sample, learningRate: 0.5, radialRounds: 0 };

  test("leads the learning rate in a straight line to its end share, whether that is less or more", () => {
    const ends = { ...round, decayRounds: 4 };
    const rates = (endShare: number): number[] =>
      [1, 2, 3, 4, 5, 9].map(
        (version) => outerAt({ outer: { ...outer, endShare }, round: ends }, version).learningRate,
      );
    expect(rates(0.2)).toEqual([0.5, 0.4, 0.3, 0.2, 0.1, 0.1].map((rate) => expect.closeTo(rate, 12)));
    expect(rates(3)).toEqual([0.5, 0.75, 1, 1.25, 1.5, 1.5]);
    expect(outerAt({ outer: { ...outer, endShare: 3 }, round: { ...round, decayRounds: 0 } }, 9).learningRate).toBe(
      0.5,
    );
  });

  test("takes the stretch in a straight line to none, or keeps it, or never has it", () => {
    const stretches = (radial: boolean, radialRounds: number): number[] =>
      [1, 2, 3, 4, 5, 9].map(
        (version) => outerAt({ outer: { ...outer, radial, radialRounds }, round }, version).stretch,
      );
    expect(stretches(true, 4)).toEqual([1, 0.75, 0.5, 0.25, 0, 0]);
    expect(stretches(true, 0)).toEqual([1, 1, 1, 1, 1, 1]);
    expect(stretches(false, 4)).toEqual([0, 0, 0, 0, 0, 0]);
  });
});

describe("deltaOf() and applyUpdate()", () => {
  test("a 64-bit delta gives the new parameters back unless one shrank below 2^-28 of itself", () => {
    const number = fc.float({ noNaN: true, noDefaultInfinity: true });
    fc.assert(
      fc.property(number, number, (b, a) => {
        const [before, after] = [Float32Array.of(b), Float32Array.of(a)];
        const delta = deltaOf(before, after, 64)[0] as number;
        const next = applyUpdate(before, { parameters: 1, indices: Uint32Array.of(0), values: Float64Array.of(delta) });
        if (Math.abs(a) >= Math.abs(b) * 2 ** -28 || a === 0) {
          expect(next[0] === a).toBe(true);
        } else {
          expect(Math.abs((next[0] as number) - a)).toBeLessThanOrEqual(Math.abs(b) * 2 ** -52);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("applyUpdate() divides by any number in f64 and rounds once", () => {
    const values = samples("gauss", 300);
    const base = Float32Array.from(samples("laplace", 300));
    for (const among of [1, 3, 5, 7, 8]) {
      const wanted = base.map((value, i) => Math.fround(value - (values[i] as number) / among));
      expect(applyUpdate(base, sparse(values), among)).toEqual(wanted);
    }
  });

  test("applyUpdate() leaves the base as it is", () => {
    const base = Float32Array.of(1, 2);
    const update = { parameters: 2, indices: Uint32Array.of(1), values: Float32Array.of(0.5) };
    expect([...applyUpdate(base, update)]).toEqual([1, 1.5]);
    expect([...base]).toEqual([1, 2]);
    expect(updateNorm({ ...update, values: Float32Array.of(-4) })).toBe(4);
  });
});
