/**
 * Two headless contributors that both agreed to exchange checkpoints: the second gets the shared base from the first, over a
 * WebRTC link of their own, and the relay sends it nothing but the data.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { RunView } from "../../src/protocol/run-view.ts";
import { readMetrics, type MetricsRead } from "./metrics.ts";
import { QUICK_CHARTER, startContributor, startRelay, temporaryFolder, type Running } from "./processes.ts";

/** Large enough for several parts, and one round that outlasts the test: everybody needs version 0. */
const CHARTER = {
  ...QUICK_CHARTER,
  model: { ...QUICK_CHARTER.model, channels: 64, hidden: 256, layers: 2 },
  round: { ...QUICK_CHARTER.round, trainMs: 120_000, stepsMax: 100_000 },
};
const folder = temporaryFolder();
const running: Running[] = [];
let relay: Awaited<ReturnType<typeof startRelay>>;

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path, charter: CHARTER, args: ["--no-contributor"] });
});
afterAll(async () => {
  await Promise.all(running.map((one) => one.stop("SIGKILL")));
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

/** Starts a contributor and waits until it trains. */
async function join(
  name: string,
  args: readonly string[],
): Promise<{ http: number; read: MetricsRead; joined: Running }> {
  const dir = `${folder.path}/relay`;
  const http = (read: MetricsRead): number => read("heddle_bytes_total", 'direction="down",lane="http"');
  const before = http(await readMetrics(dir));
  const joined = startContributor(relay.origin, `${folder.path}/${name}`, [
    "--engine",
    "wasm",
    "--threads",
    "1",
    ...args,
  ]);
  running.push(joined);
  await joined.waitFor(({ status }) => status === "training", 30_000);
  const read = await readMetrics(dir);
  return { http: http(read) - before, read, joined };
}

test("a contributor gets the shared base from another where both agreed", async () => {
  const { parameters } = (await (await fetch(`${relay.origin}/api/run`)).json()) as RunView;
  const checkpoint = 4 * parameters;
  const first = await join("first", ["--peers"]);
  const data = first.http - checkpoint;
  // On a busy machine the seconds that a peer is given may pass; whoever comes next may have more luck.
  let second = await join("second", ["--peers"]);
  for (let more = 0; more < 3 && second.http > data; more += 1) {
    second = await join(`second-${more}`, ["--peers"]);
  }
  expect(second.http).toBe(data);
  expect(await second.joined.waitFor(({ event }) => event === "peers")).toMatchObject({ bytesFetched: checkpoint });
  expect(second.read("heddle_peer_bytes_total")).toBe(checkpoint);
  expect(second.read("heddle_meetings_total", 'outcome="fetched"')).toBe(1);
});
