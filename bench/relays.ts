/**
 * What a contribution costs the relays when several share a run: `npm run bench relays [-- 1 3]`. For each number it starts a
 * nats-server and that many relays on this machine, has contributors spread over them train a small model for a while, and
 * divides the processor time of all relay processes by the accepted contributions: in all, and beyond what they take when idle.
 * What contributors were told was accepted must be what the ledger holds. Prints one JSON line a number. Contributors share this
 * process, whose time does not count; others who use the machine make rounds slower, and work somewhat dearer.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { assert } from "../src/base/assert.ts";
import { createRng } from "../src/base/rng.ts";
import { createContributor, type Contributor } from "../src/contributor/run.ts";
import { createPair, deviceKeyOf, verifySignature } from "../src/net/device-key.ts";
import { createBlobFetcher } from "../src/net/http.ts";
import { systemClock } from "../src/net/system-clock.ts";
import { dialWebSocket } from "../src/net/ws-client.ts";
import { createMemoryStore } from "../src/store/memory.ts";
import type { NatsAddress } from "../src/store/nats-address.ts";
import { openNatsStore } from "../src/store/nats.ts";
import { startNats } from "../src/store/nats-server.fixture.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import { tallyContributors } from "../src/relay/tally.ts";
import { entriesOf } from "../src/store/store.ts";
import { readMetrics, type MetricsRead } from "../test/e2e/metrics.ts";
import { adminOf, isVersion, launchRelay, temporaryFolder, type Running } from "../test/e2e/processes.ts";
import { plainWork } from "../test/fixtures/plain-work.ts";

const CONTRIBUTORS = 12;
const WINDOW_MS = 20_000;
const IDLE_MS = 5_000;
const WARM_VERSIONS = 3;
const SETTLE_MS = 15_000;
const CHARTER = {
  model: { channels: 64, layers: 2, heads: 4, kvHeads: 2, hidden: 192, time: 64 },
  inner: { batch: 4, learningRate: 5e-3 },
  round: { trainMs: 5_000, stepsMax: 4, graceMs: 5_000, judgeMs: 5_000 },
};

const numbers = process.argv.slice(2).map(Number);
for (const relays of numbers.length === 0 ? [1, 3] : numbers) {
  process.stdout.write(`${JSON.stringify(await measure(relays))}\n`);
}

interface Relay extends Running {
  readonly dir: string;
  readonly origin: string;
}

async function measure(count: number): Promise<object> {
  using folder = temporaryFolder();
  await using nats = await startNats({ dir: folder.path });
  const launched: Running[] = [];
  const relays: Relay[] = [];
  try {
    for (let i = 0; i < count; i += 1) {
      const dir = join(folder.path, `relay-${i}`);
      mkdirSync(dir);
      const relay = launchRelay({ dir, args: ["--nats", nats.url(), "--no-contributor"], charter: CHARTER });
      launched.push(relay);
      const { url } = await relay.waitFor(({ event }) => event === "listening");
      relays.push({ ...relay, dir, origin: String(url) });
    }
    const leader = relays[0] as Relay;
    const idle = await during(relays, IDLE_MS);
    const contributors = Array.from({ length: CONTRIBUTORS }, (_, i) => (relays[i % count] as Relay).origin);
    const started = await Promise.all(contributors.map(startContributor));
    await leader.waitFor(isVersion(WARM_VERSIONS), 120_000);
    const busy = await during(relays, WINDOW_MS);
    assert((await adminOf(leader.dir)("pause")).code === 0, "Cannot measure: the run could not be paused");
    const told = await settledSum(started, nats.address());
    await Promise.all(started.map((contributor) => contributor.stop()));
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    return {
      relays: count,
      contributors: CONTRIBUTORS,
      seconds: rounded(busy.seconds, 1),
      accepted: busy.accepted,
      versions: busy.versions,
      processorMsPerContribution: rounded((1_000 * sum(busy.processorSeconds)) / busy.accepted, 1),
      beyondIdleMsPerContribution: rounded(
        (1_000 * (sum(busy.processorSeconds) - (sum(idle.processorSeconds) * busy.seconds) / idle.seconds)) /
          busy.accepted,
        1,
      ),
      relayProcessorSeconds: busy.processorSeconds.map((one) => rounded(one, 2)),
      idleProcessorPercent: idle.processorSeconds.map((one) => rounded((100 * one) / idle.seconds, 1)),
      residentMB: busy.residentMB,
      toldAndInLedger: told,
    };
  } finally {
    await Promise.all(launched.map((relay) => relay.stop("SIGTERM")));
  }
}

interface Spent {
  readonly seconds: number;
  readonly accepted: number;
  readonly versions: number;
  /** Of each relay, as the rest; the first leads. */
  readonly processorSeconds: readonly number[];
  readonly residentMB: readonly number[];
}

/** What the relays do in the next `ms`. */
async function during(relays: readonly Relay[], ms: number): Promise<Spent> {
  const readAll = (): Promise<MetricsRead[]> => Promise.all(relays.map(({ dir }) => readMetrics(join(dir, "relay"))));
  const beginMs = performance.now();
  const before = await readAll();
  await new Promise((settle) => setTimeout(settle, ms));
  const after = await readAll();
  const gained = (i: number, name: string, label?: string): number =>
    (after[i]?.(name, label) ?? 0) - (before[i]?.(name, label) ?? 0);
  return {
    seconds: (performance.now() - beginMs) / 1_000,
    accepted: gained(0, "heddle_contributions_total", 'verdict="accepted"'),
    versions: gained(0, "heddle_version"),
    processorSeconds: relays.map((_, i) => gained(i, "process_cpu_seconds_total")),
    residentMB: after.map((read) => Math.round(read("process_resident_memory_bytes") / 1e6)),
  };
}

/**
 * Accepted contributions of all, of which each contributor was told as many as the ledger has of it. The ledger may end a moment
 * later than the window: the round that was open is judged.
 */
async function settledSum(contributors: readonly Contributor[], address: NatsAddress): Promise<number> {
  const store = await openNatsStore(address);
  try {
    for (const endMs = performance.now() + SETTLE_MS; ; await new Promise((settle) => setTimeout(settle, 200))) {
      const tallies = await tallyContributors(entriesOf(store.log));
      const inLedger = new Map(tallies.map(({ contributor, accepted }) => [contributor as string, accepted]));
      const views = contributors.map((contributor) => contributor.view());
      if (views.every(({ contributor, accepted }) => accepted === inLedger.get(String(contributor)))) {
        return views.reduce((sum, { accepted }) => sum + accepted, 0);
      }
      assert(performance.now() < endMs, "What contributors were told is not what the ledger holds");
    }
  } finally {
    await store.close();
  }
}

/** A contributor of the production path, in this process. */
async function startContributor(origin: string, index: number): Promise<Contributor> {
  const engine = await createWasmEngine({ threads: 1 });
  const contributor = createContributor({
    dial: (attach) => dialWebSocket({ url: `${origin.replace("http", "ws")}/link`, attach }),
    fetchBlob: createBlobFetcher({ origin }),
    store: createMemoryStore(),
    clock: systemClock,
    rng: createRng("bench relays", index),
    verify: verifySignature,
    key: await deviceKeyOf(await createPair(false)),
    engine: { kind: "wasm", device: "bench", sentence: "" },
    createWork: plainWork(engine, systemClock),
    agent: "bench relays",
  });
  contributor.start();
  return contributor;
}

function rounded(value: number, digits: number): number {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
