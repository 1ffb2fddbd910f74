import { expect, test } from "vitest";
import { sampleCharter } from "../protocol/sample.ts";
import { packUpdate } from "../update/pack.ts";
import { payloadBytesMax, unpackPayload } from "./base.ts";

const P = 10_000;
const data = { name: "d", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const sample = sampleCharter([], data);
const regular = { ...sample, uplink: { ...sample.uplink, together: 0 } };
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
