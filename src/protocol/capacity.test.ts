import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parameterLayout } from "../model/layout.ts";
import { BLOB_STORED_BYTES_MAX } from "../store/store.ts";
import { CHUNK } from "../update/format.ts";
import { createServerState } from "../update/outer.ts";
import { packUpdate } from "../update/pack.ts";
import { samples, updateValues } from "../update/samples.fixture.ts";
import { packedBytesMax, parametersOf, serverBytesOf } from "./capacity.ts";
import { checkCharter } from "./charter-codec.ts";
import type { ModelConfig } from "./charter.ts";
import { exampleCharter } from "./examples.ts";
import { BLOB_BYTES_MAX } from "./limits.ts";

const BITS = [1, 2, 3, 4, 64] as const;

test("parametersOf() counts as the layout does, padding included", () => {
  const sizes = fc.record({
    kvHeads: fc.integer({ min: 1, max: 3 }),
    groups: fc.integer({ min: 1, max: 3 }),
    half: fc.integer({ min: 1, max: 9 }),
    layers: fc.integer({ min: 1, max: 3 }),
    hidden: fc.integer({ min: 1, max: 99 }),
    vocabulary: fc.integer({ min: 2, max: 99 }),
    tied: fc.boolean(),
  });
  fc.assert(
    fc.property(sizes, ({ groups, half, ...rest }) => {
      const heads = rest.kvHeads * groups;
      const model = { ...exampleCharter.model, ...rest, heads, channels: heads * 2 * half };
      expect(parametersOf(model)).toBe(parameterLayout(model).size);
    }),
  );
});

test("serverBytesOf() is what an outer state has, and blobs that may be named may be stored", () => {
  expect(createServerState(5).bytes.length).toBe(serverBytesOf(5, 1));
  expect(createServerState(5, 2).bytes.length).toBe(serverBytesOf(5, 2));
  expect(BLOB_STORED_BYTES_MAX).toBe(BLOB_BYTES_MAX);
});

describe("packedBytesMax()", () => {
  const keeps = fc.constantFrom(1, 2, 3, 17, 64, 256, 4_095, 4_096);
  test("is no less than any update has", () => {
    fc.assert(
      fc.property(updateValues(), keeps, fc.constantFrom(...BITS), (values, keep, bits) => {
        const { length } = packUpdate(values, { keep, bits, beta: 1 });
        expect(length).toBeLessThanOrEqual(packedBytesMax(values.length, { keep, bits }));
      }),
      { numRuns: 150 },
    );
  });

  test("is what a dense exact update has", () => {
    for (const P of [1, 4_095, 4_096, 4_097, 9_001]) {
      const form = { keep: 4_096, bits: 64, beta: 1 } as const;
      expect(packUpdate(new Float64Array(P), form).length).toBe(packedBytesMax(P, form));
    }
  });

  test("is little more than chunks have of which one value is zero", () => {
    const values = samples("gauss", 20 * CHUNK).map((value, i) => (i % CHUNK === 0 ? 0 : value));
    for (const keep of [64, 256, 2_048, 4_095, 4_096]) {
      for (const bits of BITS) {
        const { length } = packUpdate(values, { keep, bits, beta: 1 });
        expect(length).toBeGreaterThan(0.93 * packedBytesMax(values.length, { keep, bits }));
      }
    }
  });
});

describe("checkCharter() refuses what cannot be carried, and says which setting makes it so large:", () => {
  const { model, uplink, outer } = exampleCharter;
  const exact = { keep: 4_096, bits: 64, beta: 0 } as const;
  const sparse = { ...uplink, keep: 1, bits: 64, together: 0 } as const;
  const besides = parametersOf({ ...model, vocabulary: 2 }) - 2 * model.channels;
  /** The model with the largest vocabulary that has at most P parameters, and the one after. */
  const around = (P: number): readonly [ModelConfig, ModelConfig] => {
    const vocabulary = Math.floor((P - besides) / model.channels);
    return [
      { ...model, vocabulary },
      { ...model, vocabulary: vocabulary + 1 },
    ];
  };
  const uplinkMax = 8_388_573; // 20 bytes, one for each 8 chunks, 8 a parameter: 67,108,860
  test.each([
    ["model", 134_217_726, {}],
    ["outer.momentum", 67_108_863, { outer: { ...outer, momentum: 0.9 } }],
    ["uplink.keep", uplinkMax, { uplink: { ...uplink, ...exact } }],
    ["uplink.together", uplinkMax, { uplink: { ...sparse, together: 4_096 } }],
    ["newcomers.keep", uplinkMax, { uplink: sparse, newcomers: { contributions: 1, keep: 4_096 } }],
    ["downlink", 134_217_213, { downlink: exact }],
  ] as const)("%s", (setting, P, changes) => {
    const [fits, not] = around(P);
    expect(checkCharter({ ...exampleCharter, ...changes, model: fits })).toMatchObject({ ok: true });
    const refused = checkCharter({ ...exampleCharter, ...changes, model: not });
    expect(refused).toMatchObject({ ok: false, reason: "malformed" });
    const of = `of ${parametersOf(not)} parameters`;
    expect(refused.ok ? "" : refused.detail).toMatch(
      new RegExp(`^Cannot read charter\\.${setting}: ${of} .* can have \\d+ bytes, at most \\d+ fit$`),
    );
  });

  test("what nobody may keep does not count", () => {
    const newcomers = { contributions: 0, keep: 4_096 };
    const [dense] = around(uplinkMax * 2);
    expect(checkCharter({ ...exampleCharter, uplink: sparse, newcomers, model: dense }).ok).toBe(true);
  });
});
