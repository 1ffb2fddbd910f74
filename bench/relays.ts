/**
 * What a contribution costs the relays when several share a run: `npm run bench relays [-- 1 3]`. For each number it starts a
 * nats-server and that many relays on this machine, has contributors spread over them train a small model for a while, and
 * divides the processor time of all relay processes by the accepted contributions: in all, and beyond what they take when idle.
 * It begins to count when the processes have compiled what they run, which edges, who each have a part of the work, do later.
 * What contributors were told must be what the ledger holds and what was merged, each contribution by its name (`load/oracle.ts`).
 * Prints one JSON line a number. Contributors share this process, whose time does not count; others who use the machine make
 * rounds slower, and work somewhat dearer.
 */
import { join } from "node:path";
import process from "node:process";
import { createRng } from "../src/base/rng.ts";
import { createContributor, type Contributor } from "../src/contributor/run.ts";
import { createDeviceKey, verifySignature } from "../src/net/device-key.ts";
import { createBlobFetcher } from "../src/net/http.ts";
import { systemClock } from "../src/net/system-clock.ts";
import { dialWebSocket } from "../src/net/ws-client.ts";
import { createMemoryStore } from "../src/store/memory.ts";
import { startNats } from "../src/store/nats-server.fixture.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import { readMetrics, type MetricsRead } from "../test/e2e/metrics.ts";
import { isVersion, launchRelay, temporaryFolder, type Running } from "../test/e2e/processes.ts";
import { plainWork } from "../test/fixtures/plain-work.ts";
import { tapped } from "../test/fixtures/tap.ts";
import { examine, note } from "./load/oracle.ts";
import type { Told } from "./load/players.ts";
import { pauseRun, readLedger } from "./load/relay-process.ts";

const CONTRIBUTORS = 12;
const WINDOW_MS = 40_000;
const IDLE_MS = 5_000;
const WARM_VERSIONS = 40;
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
    await pauseRun(leader.dir, leader.origin);
    await settle(started);
    const ledger = await readLedger(leader.origin);
    examine(
      started.map(({ told }) => told),
      ledger,
    );
    await Promise.all(started.map(({ contributor }) => contributor.stop()));
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
      toldAndInLedger: ledger.accepted.size,
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

/** Until everybody was told a verdict on each contribution. Who never is, the oracle finds. */
async function settle(started: readonly Started[]): Promise<void> {
  const isOpen = ({ told }: Started): boolean => told.taken.length > told.accepted.length + told.refused.length;
  for (const endMs = performance.now() + SETTLE_MS; started.some(isOpen) && performance.now() < endMs;) {
    await new Promise((wait) => setTimeout(wait, 200));
  }
}

interface Started {
  readonly contributor: Contributor;
  readonly told: Told;
}

/** A contributor of the production path, in this process. */
async function startContributor(origin: string, index: number): Promise<Started> {
  const told: Told = { taken: [], accepted: [], refused: [] };
  const url = `${origin.replace("http", "ws")}/link`;
  const engine = await createWasmEngine({ threads: 1 });
  const contributor = createContributor({
    dial: (attach) => dialWebSocket({ url, attach: tapped(attach, { received: (message) => note(told, message) }) }),
    fetchBlob: createBlobFetcher({ origin }),
    store: createMemoryStore(),
    clock: systemClock,
    rng: createRng("bench relays", index),
    verify: verifySignature,
    key: await createDeviceKey(),
    engine: { kind: "wasm", device: "bench", sentence: "" },
    createWork: plainWork(engine, systemClock),
    agent: "bench relays",
  });
  contributor.start();
  return { contributor, told };
}

function rounded(value: number, digits: number): number {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
