/**
 * Pairs of assignment and result on one relay process: sessions over WebSocket from driver processes, of which each version's
 * round has as many as a round takes. A pair is a training assignment, a small signed update that is checked, stored and
 * entered, another session's signed report on it, and the verdict. The relay's referee audits nothing, so that the relay is
 * measured and not its arithmetic; it evaluates each version. What was told must be what the ledger holds and what was merged.
 */
import { assert } from "../../src/base/assert.ts";
import { quantile } from "../../src/base/statistics.ts";
import { startDriver, lookAt, type Driver, type Seen } from "./drivers.ts";
import { readLedger, sleep, startMeasured, type LedgerSums } from "./relay-process.ts";

export interface PairsOptions {
  readonly sessions: number;
  readonly seconds: number;
  readonly drivers: number;
  /** Of all sessions, how many are in a round. */
  readonly active: number;
  /** Contributions come within half of this to this after the assignment, reports within half of `judgeMs` to `judgeMs`. */
  readonly trainMs: number;
  readonly judgeMs: number;
}

/** About 7,000 parameters: updates of some hundred bytes. */
const CHARTER = {
  model: { channels: 16, layers: 1, heads: 2, kvHeads: 1, hidden: 32, time: 16 },
  inner: { batch: 2 },
  uplink: { keep: 32, bits: 2, beta: 0.2, together: 0 },
  trust: { auditShare: 0 },
};
const WARM_MS = 5_000;
const SETTLE_MS = 20_000;

export type Outcome = Readonly<Record<string, number | string | Readonly<Record<string, number>>>>;

export async function measurePairs(options: PairsOptions, say: (sentence: string) => void): Promise<Outcome> {
  const { sessions, seconds, drivers: count, trainMs, judgeMs } = options;
  const active = Math.min(options.active, sessions);
  const round = { trainMs: 2 * trainMs + 10_000, graceMs: 10_000, judgeMs: judgeMs + 20_000, stepsMax: 10, quorum: 1 };
  await using relay = await startMeasured({ ...CHARTER, round });
  const drivers = Array.from({ length: count }, startDriver);
  try {
    const empty = await relay.metrics();
    say(`Opening ${sessions} sessions, at most 95 a second …`);
    const [own, ownActive] = [Math.floor(sessions / count), Math.floor(active / count)];
    const open = { type: "open", origin: relay.origin, sessions: own, active: ownActive, trainMs, judgeMs } as const;
    const opened = await Promise.all(drivers.map((driver) => driver.ask(open)));
    const welcomesMs = opened.flatMap((answer) => (answer.type === "done" ? answer.welcomesMs : []));
    const full = await relay.metrics();
    say(`Playing for ${seconds} s, after ${WARM_MS / 1_000} s to warm up …`);
    await all(drivers, "begin");
    await sleep(WARM_MS);
    const before = await relay.metrics();
    await all(drivers, "mark");
    const beginMs = performance.now();
    await sleep(1_000 * seconds);
    const after = await relay.metrics();
    const played = await lookAt(drivers);
    const playedS = (performance.now() - beginMs) / 1_000;
    say("Letting the last round end, and comparing what was told with the ledger …");
    await relay.pause();
    const settled = await settle(drivers);
    const ledger = await readLedger(relay.origin);
    compare(settled, ledger);
    await all(drivers, "end");
    const waits = (name: keyof Seen["waits"]): Readonly<Record<string, number>> => {
      const values = played.flatMap((seen) => seen.waits[name]);
      const at = (share: number): number => (values.length === 0 ? Number.NaN : rounded(quantile(values, share), 1));
      return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
    };
    const gained = (name: string, label?: string): number => after(name, label) - before(name, label);
    const pairs = gained("heddle_contributions_total", 'verdict="accepted"');
    const resident = "process_resident_memory_bytes";
    return {
      sessions,
      activeInARound: active,
      drivers: count,
      seconds: rounded(playedS, 1),
      pairs,
      pairsPerS: rounded(pairs / playedS, 1),
      rounds: gained("heddle_version"),
      welcomeMs: { p50: rounded(quantile(welcomesMs, 0.5), 1), p99: rounded(quantile(welcomesMs, 0.99), 1) },
      assignmentMs: waits("assigned"),
      receiptMs: waits("taken"),
      reportToVerdictMs: waits("judged"),
      contributionToVerdictMs: waits("verdict"),
      contributionToNextAssignmentMs: waits("next"),
      relayProcessorS: rounded(gained("process_cpu_seconds_total"), 2),
      driversProcessorS: rounded(
        played.reduce((sum, seen) => sum + seen.processorS, 0),
        2,
      ),
      relayProcessorMsPerPair: rounded((1_000 * gained("process_cpu_seconds_total")) / pairs, 2),
      ledgerWritesPerPair: rounded(gained("heddle_ledger_write_seconds_count") / pairs, 3),
      eventLoopP99Ms: rounded(1_000 * after("nodejs_eventloop_lag_p99_seconds"), 1),
      residentMBEmpty: rounded(empty(resident) / 1e6, 1),
      residentMBConnected: rounded(full(resident) / 1e6, 1),
      residentMBPlaying: rounded(after(resident) / 1e6, 1),
      residentKBPerSession: rounded((full(resident) - empty(resident)) / 1e3 / sessions, 1),
      refused: settled.reduce((sum, seen) => sum + seen.told.refused.length, 0),
      toldAndInLedger: ledger.accepted.size,
    };
  } finally {
    await Promise.all(drivers.map((driver) => driver.stop()));
  }
}

async function all(drivers: readonly Driver[], type: "begin" | "mark" | "end"): Promise<void> {
  await Promise.all(drivers.map((driver) => driver.ask({ type })));
}

/** What was seen when every contribution has its verdict. */
async function settle(drivers: readonly Driver[]): Promise<Seen[]> {
  for (const endMs = performance.now() + SETTLE_MS; ; await sleep(200)) {
    const seen = await lookAt(drivers);
    if (seen.every(({ open }) => open === 0)) {
      return seen;
    }
    assert(performance.now() < endMs, "Contributions stay without a verdict");
  }
}

/** The ledger was checked by itself; here the clients' word is compared with it. */
function compare(seen: readonly Seen[], { contributed, accepted, merged }: LedgerSums): void {
  const told = (list: (one: Seen["told"]) => readonly string[]): string =>
    seen
      .flatMap((one) => list(one.told))
      .sort()
      .join();
  const held = (ids: ReadonlySet<string>): string => [...ids].sort().join();
  assert(told(({ taken }) => taken) === held(contributed), "Receipts that were told are not what the ledger holds");
  assert(told((one) => one.accepted) === held(accepted), "Verdicts that were told are not what the ledger holds");
  assert(held(accepted) === held(merged), "What was accepted is not what was merged");
}

function rounded(value: number, digits: number): number {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
