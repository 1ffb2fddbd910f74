import { expect, test } from "vitest";
import { assert } from "../base/assert.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { packUpdate } from "../update/pack.ts";
import { firstOutOfTurn, payloadBytesMax, unpackPayload } from "./base.ts";

const P = 10_000;
const data = { name: "d", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const regular = {
  ...sampleCharter([], data),
  uplink: { keep: 128, bits: 2, beta: 0.2, turns: 1, together: 0, carry: false },
} as const;
const sample = { ...regular, uplink: { ...regular.uplink, together: 1024 } };
const dense = packUpdate(
  Float32Array.from({ length: P }, (_, i) => Math.sin(i * i)),
  { ...sample.uplink, keep: 1024 },
);

test("unpackPayload() takes as many entries as one who is alone may send, or a newcomer, and no more", () => {
  const alone = (together: number) => ({ ...sample, uplink: { ...sample.uplink, together } });
  expect(unpackPayload(dense, P, alone(1024)).ok).toBe(true);
  expect(unpackPayload(dense, P, alone(1023))).toMatchObject({ reason: "oversized" });
  const charter = { ...regular, newcomers: { contributions: 1, keep: 1024 } };
  expect(unpackPayload(dense, P, charter).ok).toBe(true);
  expect(dense.length).toBeLessThanOrEqual(payloadBytesMax(P, charter));
  expect(unpackPayload(dense, P, { ...charter, newcomers: { contributions: 1, keep: 1023 } })).toMatchObject({
    reason: "oversized",
  });
  expect(unpackPayload(dense, P, regular)).toMatchObject({ ok: false, reason: "oversized" });
});

test("firstOutOfTurn() finds entries of chunks that wait", () => {
  const values = new Float32Array(P);
  values[4_096] = 1; // chunk 1
  const unpacked = unpackPayload(packUpdate(values, sample.uplink), P, sample);
  assert(unpacked.ok, "packed here");
  const found = [3, 4, 5].map((round) => firstOutOfTurn(unpacked.value, { round, turns: 3 }));
  expect(found).toEqual([4_096, undefined, 4_096]);
  expect(firstOutOfTurn(unpacked.value, { round: 3, turns: 1 })).toBeUndefined();
});
