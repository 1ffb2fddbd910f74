import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Compression } from "../protocol/charter.ts";
import { accumulate, createResidual, settle, shareLeft } from "./feedback.ts";
import { packUpdate } from "./pack.ts";
import { densified, samples } from "./samples.fixture.ts";
import { unpackUpdate } from "./unpack.ts";

function decoded(values: Float32Array | Float64Array, compression: Compression) {
  const result = unpackUpdate(packUpdate(values, compression), {
    parameters: values.length,
    keepMax: compression.keep,
  });
  if (!result.ok) {
    throw new Error(result.detail);
  }
  return result.value;
}

describe("error feedback", () => {
  test("conserves: what was sent and the residual add up to the decayed sum of the deltas", () => {
    const rounds = fc.array(fc.boolean(), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(rounds, fc.constantFrom(1, 0.95), fc.constantFrom<2 | 64>(2, 64), (acknowledged, beta, bits) => {
        const parameters = 4500;
        const residual = createResidual(parameters, bits);
        const expected = new Float64Array(parameters);
        for (const [round, settled] of acknowledged.entries()) {
          const delta = samples("laplace", parameters, round);
          accumulate(residual, delta, beta);
          const sent = decoded(residual, { keep: 40, bits, beta });
          if (settled) {
            settle(residual, sent);
          }
          // The reference carries what is left, in f64: β·(expected − sent so far) + delta, kept as one sum.
          const dense = settled ? densified(sent) : null;
          for (let i = 0; i < parameters; i += 1) {
            expected[i] = beta * (expected[i] as number) + (delta[i] as number) - (dense?.[i] ?? 0);
          }
        }
        const gaps = expected.map((value, i) => Math.abs((residual[i] as number) - value));
        expect(Math.max(...gaps)).toBeLessThan(bits === 64 ? 1e-12 : 2e-5);
      }),
      { numRuns: 30 },
    );
  });

  test("without decay, all sent updates and the residual add up to all deltas", () => {
    const parameters = 5000;
    const residual = createResidual(parameters, 2);
    const total = new Float64Array(parameters);
    const sum = new Float64Array(parameters);
    for (let round = 0; round < 20; round += 1) {
      const delta = samples("gauss", parameters, round);
      accumulate(residual, delta, 1);
      const sent = decoded(residual, { keep: 64, bits: 2, beta: 1 });
      settle(residual, sent);
      const dense = densified(sent);
      for (let i = 0; i < parameters; i += 1) {
        total[i] = (total[i] as number) + (delta[i] as number);
        sum[i] = (sum[i] as number) + (dense[i] as number);
      }
    }
    const gaps = total.map((value, i) => Math.abs((sum[i] as number) + (residual[i] as number) - value));
    expect(Math.max(...gaps)).toBeLessThan(2e-5);
  });

  test("settle() leaves nothing of an exact update", () => {
    const residual = createResidual(300, 64);
    accumulate(
      residual,
      Float64Array.from(samples("gauss", 300), (value) => value / 3),
      1,
    );
    settle(residual, decoded(residual, { keep: 4096, bits: 64, beta: 1 }));
    expect(residual).toEqual(new Float64Array(300));
  });

  test("shareLeft() is beta, and for each missed round beta or 0.9 times it, whichever is less", () => {
    expect(shareLeft({ beta: 0.5, missed: 0 })).toBe(0.5);
    expect(shareLeft({ beta: 0.5, missed: 3 })).toBe(0.0625);
    expect(shareLeft({ beta: 1, missed: 0 })).toBe(1);
    expect(shareLeft({ beta: 1, missed: 2 })).toBeCloseTo(0.81, 12);
    expect(shareLeft({ beta: 1, missed: 2 ** 40 })).toBeLessThan(1e-300);
  });

  test("vectors of another length are a bug", () => {
    expect(() => accumulate(new Float32Array(3), new Float32Array(4), 1)).toThrow(/need 3/);
    expect(() => settle(new Float32Array(3), decoded(Float32Array.of(1), { keep: 1, bits: 2, beta: 1 }))).toThrow(
      /need 3/,
    );
  });
});
