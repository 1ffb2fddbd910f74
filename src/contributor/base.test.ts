import { describe, expect, test } from "vitest";
import { digestOf, floatBytes, type Bytes } from "../base/bytes.ts";
import { createBlobFetcher } from "../net/http.ts";
import type { VersionInfo } from "../protocol/messages.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { applyUpdate } from "../update/delta.ts";
import { packUpdate } from "../update/pack.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { fetchBase } from "./base.ts";

const data = { name: "d", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const charter = sampleCharter([data], data);
const params = new Float32Array(4096).fill(1);
const held = { digest: digestOf(floatBytes(params)), params };
const packed = packUpdate(params, charter.downlink);
const unpacked = unpackUpdate(packed, { parameters: params.length, keepMax: 4096 });
const next = applyUpdate(params, unpacked.ok ? unpacked.value : (undefined as never));
const head: VersionInfo = {
  version: 1,
  digest: digestOf(floatBytes(next)),
  parent: held.digest,
  update: { digest: digestOf(packed), bytes: packed.length },
  checkpointBytes: next.byteLength,
  evalLoss: 1,
};
const whole = (bytes: Bytes): Response =>
  new Response(bytes, { headers: { "content-length": String(bytes.length) }, status: 200 });

/** Fetches `head` over HTTP from a relay that answers as given for the update, and what was asked for. */
async function fetchFrom(answer: () => Response) {
  const asked: string[] = [];
  const fetchBlob = createBlobFetcher({
    origin: "http://relay",
    wait: () => Promise.resolve(),
    fetch: async (address) => {
      const isUpdate = String(address).endsWith(head.update?.digest as string);
      asked.push(isUpdate ? "update" : "checkpoint");
      return isUpdate ? answer() : whole(floatBytes(next));
    },
  });
  const fetching = fetchBase(head, { held, earlier: [], charter, fetchBlob, fetchCheckpoint: fetchBlob });
  const came = await fetching.catch((error: unknown) => error);
  return { came, asked: new Set(asked) };
}

describe("fetchBase()", () => {
  test("fetches the update alone where it can be had", async () => {
    expect(await fetchFrom(() => whole(packed))).toEqual({ came: next, asked: new Set(["update"]) });
  });

  test.each([
    ["has no room", () => new Response(null, { status: 429, headers: { "retry-after": "1" } })],
    ["is starting", () => new Response(null, { status: 503 })],
    ["is behind a proxy that does not reach it", () => new Response(null, { status: 502 })],
    ["is down", () => Promise.reject(new TypeError("fetch failed")) as never],
  ])("leaves it for another try, and the checkpoint alone, where the relay %s", async (_, answer) => {
    const { came, asked } = await fetchFrom(answer);
    expect(came).toMatchObject({ code: "unreachable" });
    expect(asked).toEqual(new Set(["update"]));
  });

  test.each([
    ["was deleted", () => new Response(null, { status: 404 })],
    ["cannot be read by the relay", () => new Response("Cannot read a blob: EIO", { status: 500 })],
    ["is gone for good", () => new Response(null, { status: 410 })],
    ["has other bytes", () => whole(packed.map((byte) => byte ^ 1))],
    ["is larger than announced", () => whole(new Uint8Array(packed.length + 1))],
  ])("fetches the checkpoint where the update %s", async (_, answer) => {
    expect(await fetchFrom(answer)).toEqual({ came: next, asked: new Set(["update", "checkpoint"]) });
  });
});
