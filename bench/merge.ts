/**
 * Speed of the merge and what it leaves of the relay's main loop: `npm run bench merge`, or with a number of parameters (default
 * 25,000,000), of contributions (default 64; of eight kinds), of workers and of entries kept of 4,096:
 * `npm run bench merge 4812032 8 --workers 1,2 --keep 64` (default 1 and as many as there are cores, 64 and 256). Prints JSON.
 *
 * `merge` decodes and adds up packed updates of 2 bits a value, from memory to the means, on a relay's crew of threads. A step
 * of every crew was found to have the bits of the plain twin before. Runs of all crews alternate, with those of this thread alone,
 * which sends no messages; speeds are in million coded entries for each second of processor time, all threads together, so that
 * others on the machine count little, and for each second that passed. `skip` is the pass that finds where the ranges of a payload
 * begin.
 *
 * `round` is a whole one, as the coordinator makes it, with an embedded store on this disk and a referee that has nothing to do.
 * `stallMs` is the longest delay of the main loop as Node's monitor sees it, waiting for a core included; `turnMs` the most
 * processor time that the main thread used between two turns of a timer, which neighbours do not change; `idle` is both while this
 * process does nothing.
 */
import { hash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import process from "node:process";
import { parseArgs } from "node:util";
import { digestOf, floatBytes, type Bytes, type ContributionId, type Digest } from "../src/base/bytes.ts";
import { createRng } from "../src/base/rng.ts";
import { median, quantile } from "../src/base/statistics.ts";
import { mergeRound } from "../src/coordinator/base.ts";
import type { Contribution, DurableState } from "../src/coordinator/state.ts";
import { sampleCharter } from "../src/protocol/sample.ts";
import { startCrew, type CrewHandle } from "../src/relay/merge-crew.ts";
import { openEmbeddedStore } from "../src/store/embedded.ts";
import { rangesOf, type Base, type Crew } from "../src/update/crew.ts";
import { applyUpdate, updateNorm } from "../src/update/delta.ts";
import { mergePacked, type PackedContribution } from "../src/update/merge.ts";
import { serverBytesOf } from "../src/protocol/capacity.ts";
import { createServerState, outerAt } from "../src/update/outer.ts";
import { packUpdate } from "../src/update/pack.ts";
import { RangeWork } from "../src/update/range.ts";
import { soloCrew } from "../src/update/solo.ts";
import { stepOver } from "../src/update/step.ts";
import { mergeUpdates, outerStep } from "../src/update/twin.ts";
import { unpackUpdate } from "../src/update/unpack.ts";
import { loadMergeKernel } from "../src/wasm/merge.ts";
import { takeRounds } from "./contest/statistics.ts";
import { readWhole } from "./load/options.ts";

const ROUNDS = 7;
const KINDS = 8;
const SKIP_RUNS = 5;
const IDLE_MS = 5_000;
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    workers: { type: "string", default: `1,${availableParallelism()}` },
    keep: { type: "string", default: "64,256" },
  },
});
const [givenParameters = 25_000_000, givenContributions = 64] = positionals;
const parameters = readWhole("as many parameters as", givenParameters, { most: 1e9 });
const contributions = readWhole("as many contributions as", givenContributions, { most: 4_096 });
const counts = [
  ...new Set(flags.workers.split(",").map((given) => readWhole("as many workers as", given, { most: 256 }))),
];
const keeps = flags.keep.split(",").map((given) => readWhole("as many values kept as", given, { most: 4_096 }));
const data = { name: "none", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
const charter = sampleCharter([data], data);
const settings = { outer: outerAt(charter, 1), downlink: charter.downlink };
const limits = { parameters, clipToMedian: 1, normPower: 0 };

interface Sent extends PackedContribution {
  readonly packed: Bytes;
}

const rng = createRng("merge bench");
const values = Float32Array.from(
  { length: parameters },
  () => (rng.float() < 0.5 ? 1 : -1) * Math.log(1 - rng.float()),
);
const crews = new Map<number, CrewHandle>();
for (const count of counts) {
  crews.set(count, await startCrew(count));
}
const rounds = keeps.map((keep) => ({ keep, ...prepare(keep) }));
for (const { sent, plain } of rounds) {
  for (const crew of crews.values()) {
    await compare(crew, sent, plain);
  }
}
const wall = new Map<string, number[]>();
const solo = soloCrew(await loadMergeKernel())();
const teams = new Map<number | "this thread", Crew>([["this thread", solo], ...crews]);
const runners = rounds.flatMap(({ keep, sent }) =>
  [...teams].map(([count, crew]) => {
    const name = `${keep} ${count}`;
    const run = async (): Promise<void> => {
      const begin = performance.now();
      await mergePacked(crew, sent, limits);
      wall.set(name, [...(wall.get(name) ?? []), performance.now() - begin]);
    };
    return { name, run };
  }),
);
const samples = await takeRounds(runners, { rounds: ROUNDS, nowMs: processorMs });
const merge = rounds.flatMap(({ keep, entries }) =>
  [...teams.keys()].map((workers) => {
    const speeds = (samples.get(`${keep} ${workers}`) ?? []).map((ms) => entries / ms / 1000);
    const passed = (wall.get(`${keep} ${workers}`) ?? []).map((ms) => entries / ms / 1000);
    const quartiles = [rounded(quantile(speeds, 0.25)), rounded(quantile(speeds, 0.75))];
    const perCoreS = { median: rounded(median(speeds)), quartiles };
    return { keep, workers, entries, entriesMPerCoreS: perCoreS, entriesMPerS: rounded(median(passed)) };
  }),
);
const skip = await Promise.all(rounds.map(measureSkip));
const round = [];
for (const crew of crews.values()) {
  round.push(await measureRound(crew, (rounds[0] as (typeof rounds)[number]).sent));
}
const { result: _, ...idle } = await watched(() => new Promise((settle) => setTimeout(settle, IDLE_MS)));
for (const crew of crews.values()) {
  await crew.close();
}
const machine = { cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length, node: process.version };
process.stdout.write(`${JSON.stringify({ machine, parameters, contributions, merge, skip, round, idle }, null, 2)}\n`);

/** Contributions, and the digests of the step that the twin makes of them from parameters and a state of zeros. */
function prepare(keep: number) {
  const kinds = Array.from({ length: Math.min(KINDS, contributions) }, (_, i) =>
    packUpdate(rotated(i), { keep, bits: 2, beta: 1 }),
  );
  const all = Array.from({ length: contributions }, (_, i) => {
    const packed = kinds[i % kinds.length] as Bytes;
    const update = unpackUpdate(packed, { parameters, keepMax: keep });
    if (!update.ok) {
      throw new Error(update.detail);
    }
    return { id: `contribution ${i}`, weight: 1000 + 7 * i, packed, update: update.value };
  });
  const merged = mergeUpdates(all, { ...limits, stretch: settings.outer.stretch });
  const { server, broadcast, update } = outerStep(
    createServerState(parameters),
    merged,
    settings.outer,
    settings.downlink,
  );
  const params = applyUpdate(new Float32Array(parameters), update);
  const sent = all.map(({ id, weight, packed, update: own }): Sent => {
    return { id, weight, norm: updateNorm(own), packed, bytes: packed.length, read: async () => packed };
  });
  const entries = all.reduce((sum, { update: own }) => sum + own.indices.length, 0);
  return { sent, entries, plain: digestsOf({ params, server }, broadcast) };
}

/** The values, begun somewhere else for each contribution. */
function rotated(contribution: number): Float32Array {
  const from = (contribution * 1_000_003) % parameters;
  const turned = new Float32Array(parameters);
  turned.set(values.subarray(from));
  turned.set(values.subarray(0, from), parameters - from);
  return turned;
}

function digestsOf({ params, server }: Base, broadcast: Bytes): string {
  return [floatBytes(params), server.bytes, broadcast].map((bytes) => hash("sha256", bytes, "hex")).join();
}

function zeros({ memory }: CrewHandle): Base {
  const params = new Float32Array(memory.take(parameters * 4)).fill(0);
  const server = createServerState(parameters, 1, memory.take(serverBytesOf(parameters, 1)));
  server.residual.fill(0);
  return { params, server };
}

function giveBack({ memory }: CrewHandle, ...bases: readonly Base[]): void {
  for (const { params, server } of bases) {
    memory.give(params.buffer);
    memory.give(server.bytes.buffer);
  }
}

async function compare(crew: CrewHandle, sent: readonly Sent[], plain: string): Promise<void> {
  const before = zeros(crew);
  const { base, broadcast } = await stepOver(crew, before, sent, settings);
  if (digestsOf(base, broadcast) !== plain) {
    throw new Error(`Cannot time the merge: ${crew.workers.length} workers do not have the bits of the twin`);
  }
  giveBack(crew, before, base);
}

/** Million entries a second over which a cut into two ranges passes, on this thread. */
async function measureSkip({ keep, sent }: { readonly keep: number; readonly sent: readonly Sent[] }) {
  const work = new RangeWork((await loadMergeKernel())());
  const ranges = rangesOf(parameters, 2);
  const starts = ranges.map(({ from }) => from);
  const speeds: number[] = [];
  for (let run = 0; run < SKIP_RUNS; run += 1) {
    const begin = processorMs();
    let entries = 0;
    for (const { packed } of sent) {
      work.begin({ from: 0, to: parameters, payloadsMax: 1 });
      const place = { number: 0, scale: 1 };
      const pieces = work.cut(packed, { parameters, starts, own: 1 }, place);
      entries += typeof pieces === "string" ? 0 : (pieces[0]?.entries ?? 0);
    }
    speeds.push(entries / (processorMs() - begin) / 1000);
  }
  return { keep, entriesMPerCoreS: rounded(Math.max(...speeds)) };
}

/** A round from the payloads in a store to the next version in it. */
async function measureRound(crew: CrewHandle, sent: readonly Sent[]) {
  const dir = await mkdtemp(join(tmpdir(), "heddle-merge-"));
  const store = await openEmbeddedStore(join(dir, "store"));
  const all = new Map<ContributionId, Contribution>();
  for (const { id, weight, norm, packed } of sent) {
    const payload = { digest: await store.blobs.put(packed), bytes: packed.length };
    const contribution = { id, norm, header: { tokens: weight, payload } } as unknown as Contribution;
    all.set(id as ContributionId, contribution);
  }
  const head = { version: 0, digest: digestOf(new Uint8Array(0)) };
  const durable = { head, contributions: all } as unknown as DurableState;
  const options = { blobs: store.blobs, charter, durable, crew, contributions: [...all.keys()] };
  const referee = { evaluate: async () => 1, measure: () => Promise.reject(new Error("Nothing is measured here")) };
  const base = zeros(crew);
  const runs = [];
  for (let run = 0; run < 3; run += 1) {
    const { result: next, ...figures } = await watched(() => mergeRound({ ...options, base, referee }));
    runs.push(figures);
    giveBack(crew, next.base);
    for (const digest of [next.head.digest, next.server, next.head.update?.digest as Digest]) {
      await store.blobs.delete(digest);
    }
  }
  giveBack(crew, base);
  await store.close();
  await rm(dir, { recursive: true });
  const residentMB = rounded(process.memoryUsage().rss / 1e6);
  return { workers: crew.workers.length, runs, residentMB };
}

/** Does some work, and says how long it took and how long the main loop stood still meanwhile. */
async function watched<T>(work: () => Promise<T>) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const endTurns = watchTurns();
  delay.enable();
  const begin = performance.now();
  const result = await work();
  const ms = rounded(performance.now() - begin);
  delay.disable();
  return { result, ms, stallMs: rounded(delay.max / 1e6), turnMs: rounded(endTurns()) };
}

/** Returns what ends the watch and gives the most processor time of this thread, in ms, between two turns of the loop. */
function watchTurns(): () => number {
  const used = (): number => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  };
  let last = used();
  let most = 0;
  const turn = (): void => {
    const now = used();
    most = Math.max(most, now - last);
    last = now;
  };
  const timer = setInterval(turn, 1);
  return () => {
    clearInterval(timer);
    turn();
    return most;
  };
}

/** Milliseconds of processor time that this process has used. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
