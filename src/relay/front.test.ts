import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { sampleRun } from "../../test/fixtures/ui/samples.ts";
import { createMemoryStore } from "../store/memory.ts";
import { openFront, REQUEST_RATE } from "./front.ts";

test("openFront() makes a network that asks for too much come back later, and no other", async () => {
  const dist = await mkdtemp(join(tmpdir(), "heddle-dist-"));
  const front = await openFront({
    config: { host: "127.0.0.1", port: 0, rtcPort: 0, proxyHeader: "X-Forwarded-For", prefixShare: 0.2 },
    dist,
    store: createMemoryStore(),
    source: {
      attach: () => ({ message: () => undefined, closed: () => undefined }),
      view: () => sampleRun(1),
      isPublic: () => true,
      countDownload: () => undefined,
    },
    onDownload: () => undefined,
  });
  const ask = async (from: string): Promise<Response> =>
    fetch(`http://127.0.0.1:${front.port}/api/ledger`, { headers: { "x-forwarded-for": from } });
  let answered = 0;
  let refusal: Response | null = null;
  while (refusal === null && answered < 10 * REQUEST_RATE.burst) {
    const responses = await Promise.all(Array.from({ length: 50 }, (_, i) => ask(`203.0.113.${i}`)));
    answered += responses.filter(({ ok }) => ok).length;
    refusal = responses.find(({ status }) => status === 429) ?? null;
    await Promise.all(responses.map((response) => response.arrayBuffer()));
  }
  expect(answered).toBeGreaterThanOrEqual(REQUEST_RATE.burst);
  expect(Number(refusal?.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await ask("198.51.100.7")).ok).toBe(true);
  await front.close("The test is over");
  await rm(dist, { recursive: true });
});
