/** What is measured: a relay as a process of its own, or several, what it has used, and its ledger as anybody reads it. */
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { assert } from "../../src/base/assert.ts";
import type { Bytes, ContributionId } from "../../src/base/bytes.ts";
import { beginCheck, checkPage } from "../../src/coordinator/check.ts";
import { verifySignature } from "../../src/net/device-key.ts";
import { createLedgerFetcher } from "../../src/net/ledger.ts";
import { decodeEntry } from "../../src/protocol/chain.ts";
import type { LedgerEvent } from "../../src/protocol/ledger.ts";
import type { RunView } from "../../src/protocol/run-view.ts";
import { readMetrics, type MetricsRead } from "../../test/e2e/metrics.ts";
import { adminOf, startRelay, temporaryFolder } from "../../test/e2e/processes.ts";

/** Relays of one run. */
export interface Relays {
  /** Where they are reached; the first leads. */
  readonly origins: readonly string[];
  /** Of the first. */
  metrics(): Promise<MetricsRead>;
  /** Has the round that is under way end, with no other after it. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Stops them and deletes their folders. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface RelayProcess extends Relays {
  readonly origin: string;
  readonly pid: number;
  /** Has it collect its garbage, all of it. */
  collect(): void;
}

const PAUSE_MS_MAX = 60_000;
/** Read by Node in the relay's process. */
const COLLECTS = { NODE_OPTIONS: "--expose-gc --import data:text/javascript,process.on('SIGUSR2',()=>gc())" };

/** A relay of the sample data and `charter`'s changes, in a new folder. */
export async function startMeasured(charter: object): Promise<RelayProcess> {
  const folder = temporaryFolder();
  const relay = await startRelay({ dir: folder.path, charter, args: ["--no-contributor"], env: COLLECTS });
  return {
    origin: relay.origin,
    pid: relay.pid,
    origins: [relay.origin],
    metrics: () => readMetrics(join(folder.path, "relay")),
    collect: () => void process.kill(relay.pid, "SIGUSR2"),
    pause: () => pauseRun(folder.path, relay.origin),
    resume: () => resumeRun(folder.path),
    [Symbol.asyncDispose]: async () => {
      await relay.stop("SIGTERM");
      folder[Symbol.dispose]();
    },
  };
}

/** Has the round that is under way at the relay in `dir` end, with no other after it; one that is paused stays so. */
export async function pauseRun(dir: string, origin: string): Promise<void> {
  if ((await viewOf(origin)).phase === "paused") {
    return;
  }
  assert((await adminOf(dir)("pause")).code === 0, "Cannot measure: the run could not be paused");
  for (const endMs = performance.now() + PAUSE_MS_MAX; (await viewOf(origin)).phase !== "paused";) {
    assert(performance.now() < endMs, "Cannot measure: the last round does not end");
    await sleep(200);
  }
}

/** Has the run of the relay in `dir` go on. */
export async function resumeRun(dir: string): Promise<void> {
  assert((await adminOf(dir)("resume")).code === 0, "Cannot measure: the run could not be resumed");
}

export async function viewOf(origin: string): Promise<RunView> {
  return (await (await fetch(`${origin}/api/run`)).json()) as RunView;
}

export interface LedgerSums {
  readonly entries: number;
  readonly versions: number;
  readonly contributed: ReadonlySet<ContributionId>;
  readonly accepted: ReadonlySet<ContributionId>;
  readonly merged: ReadonlySet<ContributionId>;
}

/** Reads the whole ledger and checks it as anybody can: chain, signatures of the relay and of authors, merges against verdicts. */
export async function readLedger(origin: string): Promise<LedgerSums> {
  const fetchPage = createLedgerFetcher(origin);
  // A connection that rested while a page was checked may be closed just as it is asked again.
  const fetchLedger = (from: number): ReturnType<typeof fetchPage> => fetchPage(from).catch(() => fetchPage(from));
  const events: LedgerEvent[] = [];
  let check = beginCheck();
  for (let page = await fetchLedger(0); page.entries.length > 0; page = await fetchLedger(events.length)) {
    const checked = await checkPage(check, page.entries, verifySignature);
    assert(checked.ok, `The ledger does not hold: ${checked.ok ? "" : checked.fault.detail}`);
    check = checked.value;
    events.push(...page.entries.map(eventIn));
  }
  const merges = events.filter((event) => event.type === "merged");
  return {
    entries: events.length,
    versions: merges.length,
    contributed: new Set(events.flatMap((event) => (event.type === "contributed" ? [event.contribution] : []))),
    accepted: new Set(
      events.flatMap((event) =>
        event.type === "judged" && event.verdict.type === "accepted" ? [event.contribution] : [],
      ),
    ),
    merged: new Set(merges.flatMap(({ contributions }) => contributions)),
  };
}

function eventIn(bytes: Bytes): LedgerEvent {
  const entry = decodeEntry(bytes);
  assert(entry.ok, "Cannot read an entry that was checked");
  return entry.value.event;
}
