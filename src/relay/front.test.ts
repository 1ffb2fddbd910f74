import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { sampleRun } from "../../test/fixtures/ui/samples.ts";
import { digestOf } from "../base/bytes.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { openFront, REQUEST_RATE, type Front } from "./front.ts";

let dist: string;
let front: Front;
async function openOn(store: Store): Promise<void> {
  dist = await mkdtemp(join(tmpdir(), "heddle-dist-"));
  front = await openFront({
    config: { host: "127.0.0.1", port: 0, rtcPort: 0, proxyHeader: "X-Forwarded-For", prefixShare: 0.2 },
    dist,
    store,
    source: {
      attach: () => ({ message: () => undefined, closed: () => undefined }),
      view: () => sampleRun(1),
      isPublic: () => true,
      countDownload: () => undefined,
    },
    onDownload: () => undefined,
  });
}
afterEach(async () => {
  await front.close("The test is over");
  await rm(dist, { recursive: true });
});

function ask(path: string, from: string): Promise<Response> {
  return fetch(`http://127.0.0.1:${front.port}${path}`, { headers: { "x-forwarded-for": from } });
}

test("openFront() makes a network that asks for too much come back later, and no other", async () => {
  await openOn(createMemoryStore());
  let answered = 0;
  let refusal: Response | null = null;
  while (refusal === null && answered < 10 * REQUEST_RATE.burst) {
    const asked = Array.from({ length: 50 }, (_, i) => ask("/api/ledger", `203.0.113.${i}`));
    const responses = await Promise.all(asked);
    answered += responses.filter(({ ok }) => ok).length;
    refusal = responses.find(({ status }) => status === 429) ?? null;
    await Promise.all(responses.map((response) => response.arrayBuffer()));
  }
  expect(answered).toBeGreaterThanOrEqual(REQUEST_RATE.burst);
  expect(Number(refusal?.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await ask("/api/ledger", "198.51.100.7")).ok).toBe(true);
});

test("openFront() charges a network for blobs that are read for the digests of their pieces, as for fetching them", async () => {
  const store = createMemoryStore();
  const large: Store["blobs"] = { ...store.blobs, size: async () => 2 ** 30, slice: async () => undefined };
  await openOn({ ...store, blobs: large });
  const statuses: number[] = [];
  for (let i = 0; i < 20; i += 1) {
    statuses.push((await ask(`/blob/${digestOf(Uint8Array.of(i))}/pieces`, "203.0.113.1")).status);
  }
  const answered = Math.ceil(REQUEST_RATE.burst / (256 + 1));
  expect(statuses.slice(0, answered)).toEqual(Array(answered).fill(404));
  expect(statuses.at(-1)).toBe(429);
  expect((await ask("/api/ledger", "198.51.100.7")).ok).toBe(true);
});
