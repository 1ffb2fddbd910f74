/**
 * What a contribution costs the relays when several share a run: `npm run bench relays [-- 1 3] [--load sample] [--rounds 6]
 * [--active 240] [--seconds 12]`. For each number it starts a nats-server and that many relays on this machine, and sessions spread over
 * them, of which `active` play each round (`load/game.ts`), a load of `load/loads.ts`. When all processes have compiled what they run,
 * the runs take turns of so many seconds, one going on while the others are paused, and the processor time of all relay processes is
 * divided by the accepted contributions: in all, as it was, and beyond what they take while paused. Of that second figure, and of what is
 * made of it, the referee's audits are counted as if just the charter's share of contributions had been audited: which are is drawn. A turn
 * begins and ends with a version. In each round the first number's cost is what the others' is compared with: the machine is no quieter
 * for one than for the other.
 * What sessions were told must be what the ledger holds and what was merged, each contribution by its name. Prints one JSON line a number.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { assert, HeddleError } from "../src/base/assert.ts";
import { median } from "../src/base/statistics.ts";
import { SESSIONS_MAX } from "../src/protocol/limits.ts";
import { startNats } from "../src/store/nats-server.fixture.ts";
import { readMetrics, type MetricsRead } from "../test/e2e/metrics.ts";
import { launchRelay, temporaryFolder } from "../test/e2e/processes.ts";
import { rounded } from "./contest/statistics.ts";
import { startGame, type Game } from "./load/game.ts";
import { LOADS, type LoadName } from "./load/loads.ts";
import { readWhole, readWholes } from "./load/options.ts";
import { pauseRun, resumeRun, viewOf, type Relays } from "./load/relay-process.ts";

/** As many for one relay as for several. */
const DRIVERS = 3;
const WARM_MS = 20_000;
const IDLE_MS = 4_000;
/** After each beginning: until everybody takes part again. */
const BEGUN_MS = 4_000;
const PACE = { trainMs: 1_600, judgeMs: 800 };
/** How many play, and for how long, where nothing else is asked: a referee has its time for audits. */
const USUAL = { light: { active: 240, seconds: 12 }, sample: { active: 24, seconds: 45 } } as const;
const LOOK_MS = 200;
const ROUND_MS_MAX = 60_000;
/** Ticks of `/proc` in a second. */
const TICKS_PER_S = 100;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    load: { type: "string", default: "light" },
    rounds: { type: "string", default: "6" },
    active: { type: "string" },
    seconds: { type: "string" },
  },
});
const load = readLoad(values.load);
const numbers = readWholes("as many relays as", positionals, { usual: [1, 3], most: 16 });
const active = readWhole("--active", values.active ?? USUAL[load].active, { most: SESSIONS_MAX });
const windowMs = 1_000 * readWhole("--seconds", values.seconds ?? USUAL[load].seconds);
const roundsMax = readWhole("--rounds", values.rounds, { most: 1_000 });
await using stack = new AsyncDisposableStack();
const clusters: Cluster[] = [];
for (const count of numbers) {
  const cluster = await startCluster(count, stack);
  clusters.push(cluster);
  await cluster.game.open(active);
  await cluster.game.begin();
  await sleep(WARM_MS);
  await cluster.game.pause();
}
const rounds: Turn[][] = [];
for (let round = 0; round < roundsMax; round += 1) {
  const turns: Turn[] = [];
  for (const cluster of clusters) {
    turns.push(await takeTurn(cluster));
  }
  rounds.push(turns);
}
for (const [i, { game, count }] of clusters.entries()) {
  const { ledger } = await game.finish();
  const turns = rounds.map((round) => round[i] as Turn);
  const ratios = rounds.map((round) => (round[i] as Turn).beyondIdleMs / (round[0] as Turn).beyondIdleMs);
  const of = (read: (turn: Turn) => number): number => rounded(median(turns.map(read)));
  const line = {
    load,
    relays: count,
    active,
    turns: turns.length,
    contributionsPerS: of(({ perS }) => perS),
    processorMsPerContribution: of(({ processorMs }) => processorMs),
    beyondIdleMsPerContribution: of(({ beyondIdleMs }) => beyondIdleMs),
    timesTheFirst: rounded(median(ratios)),
    timesTheFirstEach: ratios.map(rounded),
    leaderMsPerContribution: of(({ leaderMs }) => leaderMs),
    edgesMsPerContribution: of(({ edgesMs }) => edgesMs),
    refereeMsPerContribution: of(({ refereeMs }) => refereeMs),
    auditsPerContributionEach: turns.map(({ audited }) => rounded(audited)),
    idlePercentEach: of(({ idlePercent }) => idlePercent / count),
    residentMB: turns.at(-1)?.residentMB,
    toldAndInLedger: ledger.accepted.size,
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function readLoad(given: string): LoadName {
  if (!Object.hasOwn(LOADS, given)) {
    const known = Object.keys(LOADS).join(", ");
    throw new HeddleError("bad-input", `Cannot measure the load "${given}": the loads are ${known}`);
  }
  return given as LoadName;
}

interface Cluster {
  readonly count: number;
  readonly game: Game;
  readonly auditShare: number;
  /** Of each relay; the first leads. */
  readonly metrics: () => Promise<MetricsRead[]>;
  /** Processor seconds of the leader's referee. */
  readonly refereeS: () => number;
}

/** `count` relays of a run of their own, and drivers. */
async function startCluster(count: number, ending: AsyncDisposableStack): Promise<Cluster> {
  const folder = ending.use(temporaryFolder());
  const nats = ending.use(await startNats({ dir: folder.path }));
  const dirs = Array.from({ length: count }, (_, i) => join(folder.path, `relay-${i}`));
  const metricsOf = (dir: string): Promise<MetricsRead> => readMetrics(join(dir, "relay"));
  const [first = ""] = dirs;
  let leader = 0;
  const startRelays = async (charter: object): Promise<Relays> => {
    await using starting = new AsyncDisposableStack(); // ends those that run where another does not start
    const origins: string[] = [];
    for (const dir of dirs) {
      const relay = launchRelay({ dir, args: ["--nats", nats.url(), "--no-contributor"], charter });
      starting.defer(async () => void (await relay.stop("SIGTERM")));
      origins.push(String((await relay.waitFor(({ event }) => event === "listening")).url));
      leader ||= relay.pid;
    }
    const running = starting.move();
    return {
      origins,
      metrics: () => metricsOf(first),
      pause: () => pauseRun(first, origins[0] as string),
      resume: () => resumeRun(first),
      [Symbol.asyncDispose]: () => running.disposeAsync(),
    };
  };
  const game = ending.use(await startGame({ drivers: DRIVERS, active, load, ...PACE }, startRelays));
  const { auditShare } = (await viewOf(game.origin)).charter.trust;
  const metrics = (): Promise<MetricsRead[]> => Promise.all(dirs.map(metricsOf));
  return { count, game, auditShare, metrics, refereeS: () => threadSeconds(leader, "referee") };
}

/** Processor time of the thread with this name, as Linux counts it. */
function threadSeconds(pid: number, name: string): number {
  const threads = readdirSync(`/proc/${pid}/task`).map((id) => `/proc/${pid}/task/${id}`);
  const named = threads.filter((thread) => readFileSync(`${thread}/comm`, "utf8").trim() === name);
  assert(named.length === 1, `Cannot measure: process ${pid} has ${named.length} threads named "${name}"`);
  const fields = readFileSync(`${named[0]}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S; // utime and stime, the 14th and 15th of the line
}

/** A turn of one run, while the others are paused; times are for each accepted contribution. */
interface Turn {
  readonly perS: number;
  readonly processorMs: number;
  readonly beyondIdleMs: number;
  /** Beyond idle, as the next. */
  readonly leaderMs: number;
  readonly edgesMs: number;
  /** As much of it as the charter's share of audits takes the referee. */
  readonly refereeMs: number;
  readonly audited: number;
  readonly idlePercent: number;
  readonly residentMB: readonly number[];
}

/** Of a run that is paused, before and after. */
async function takeTurn(cluster: Cluster): Promise<Turn> {
  const { game } = cluster;
  const idle = await during(cluster, IDLE_MS);
  await game.resume();
  await sleep(BEGUN_MS);
  await nextVersion(game);
  const busy = await during(cluster, windowMs, () => nextVersion(game));
  await game.pause();
  const audited = busy.audits / busy.accepted;
  const auditsMs = (1_000 * Math.max(0, busy.refereeS - busy.evaluatedS)) / busy.accepted;
  const refereeMs = (1_000 * busy.refereeS) / busy.accepted;
  const usualMs = audited === 0 ? refereeMs : refereeMs - auditsMs + (auditsMs * cluster.auditShare) / audited;
  const beyond = busy.processorSeconds.map(
    (seconds, i) =>
      (1_000 * (seconds - ((idle.processorSeconds[i] ?? 0) * busy.seconds) / idle.seconds)) / busy.accepted +
      (i === 0 ? usualMs - refereeMs : 0),
  );
  const sum = (times: readonly number[]): number => times.reduce((total, time) => total + time, 0);
  const [leaderMs = 0, ...edges] = beyond;
  return {
    perS: busy.accepted / busy.seconds,
    processorMs: (1_000 * sum(busy.processorSeconds)) / busy.accepted,
    beyondIdleMs: sum(beyond),
    leaderMs,
    edgesMs: sum(edges),
    refereeMs: usualMs,
    audited,
    idlePercent: (100 * sum(idle.processorSeconds)) / idle.seconds,
    residentMB: busy.residentMB,
  };
}

interface Spent {
  readonly seconds: number;
  readonly accepted: number;
  readonly audits: number;
  /** Seconds of evaluating versions, which waits for nothing. */
  readonly evaluatedS: number;
  readonly refereeS: number;
  /** Of each relay, as the next. */
  readonly processorSeconds: readonly number[];
  readonly residentMB: readonly number[];
}

/** Resolves when a round has been merged. */
async function nextVersion({ origin }: Game): Promise<void> {
  const version = async (): Promise<number> => (await viewOf(origin)).versions.at(-1)?.version ?? 0;
  const endMs = performance.now() + ROUND_MS_MAX;
  for (const now = await version(); (await version()) === now;) {
    assert(performance.now() < endMs, "Cannot measure: the round does not end");
    await sleep(LOOK_MS);
  }
}

/** What the relays do in the next `ms`, and until `ends`. */
async function during(
  { metrics, refereeS }: Cluster,
  ms: number,
  ends: () => Promise<void> = async () => undefined,
): Promise<Spent> {
  const beginMs = performance.now();
  const [before, refereeBeforeS] = [await metrics(), refereeS()];
  await sleep(ms);
  await ends();
  const [after, refereeAfterS] = [await metrics(), refereeS()];
  const gained = (i: number, name: string, label?: string): number =>
    (after[i]?.(name, label) ?? 0) - (before[i]?.(name, label) ?? 0);
  return {
    seconds: (performance.now() - beginMs) / 1_000,
    accepted: gained(0, "heddle_contributions_total", 'verdict="accepted"'),
    audits: gained(0, "heddle_referee_seconds_count", 'work="measure"'),
    evaluatedS: gained(0, "heddle_referee_seconds_sum", 'work="evaluate"'),
    refereeS: refereeAfterS - refereeBeforeS,
    processorSeconds: after.map((_, i) => gained(i, "process_cpu_seconds_total")),
    residentMB: after.map((read) => Math.round(read("process_resident_memory_bytes") / 1e6)),
  };
}
