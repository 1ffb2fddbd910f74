/**
 * What an operator watches, for Prometheus (prom-client): counters fed from the ledger's entries and the host's facts, gauges
 * read from the host when somebody asks, and Node's own numbers (event-loop lag, memory, garbage collection). Names and what
 * to alert on are in docs/operating.md. It only looks: nothing here changes the run.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Fact } from "../coordinator/fact.ts";
import type { CoordinatorHost, Referee } from "../coordinator/host.ts";
import type { SignedEntry } from "../protocol/chain.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { Log, Store } from "../store/store.ts";

/** Rounds and measurements take from milliseconds with a toy to an hour with a large model. */
const WORK_BUCKETS_S = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3_600];
const WRITE_BUCKETS_S = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5];

export interface Metrics {
  /** Of `text`, for the HTTP header. */
  readonly contentType: string;
  /** Everything in Prometheus' text format. */
  text(): Promise<string>;
  /** Says whether this relay leads the run. */
  lead(leads: boolean): void;
  /** Reads sessions, round and version from `host` from now on. */
  watch(host: Watched): void;
  entry(entry: SignedEntry): void;
  fact(fact: Fact): void;
  /** Bytes of blobs that went out over HTTP. */
  download(bytes: number): void;
  /** The same store, with its failures counted and its ledger's writes timed. */
  watchStore<S extends Store>(store: S): S;
  /** The same referee, with its work timed. */
  watchReferee<R extends Referee>(referee: R): R;
  close(): void;
}

/** What the gauges are read from. */
export type Watched = Pick<CoordinatorHost, "view" | "operatorView" | "lanes" | "countTraffic">;

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  let host: Watched | null = null;
  const gauge = (name: string, help: string, read: (host: Watched) => number | undefined): void => {
    const made: Gauge = new Gauge({
      name,
      help,
      registers,
      collect: () => {
        const value = host === null ? undefined : read(host);
        if (value === undefined) {
          made.remove(); // not known yet is not zero
        } else {
          made.set(value);
        }
      },
    });
  };
  const leading = new Gauge({
    name: "heddle_leading",
    help: "1 while this relay leads the run, 0 while another does or it has been deposed",
    registers,
  });
  gauge("heddle_round", "Number of the round that is under way, or else the next one", (of) => of.view().round);
  gauge("heddle_version", "Version of the shared base", (of) => of.view().versions.at(-1)?.version);
  gauge(
    "heddle_eval_loss",
    "Evaluation loss of the shared base, nats per byte",
    (of) => of.view().versions.at(-1)?.evalLoss,
  );
  gauge("heddle_last_version_timestamp_seconds", "When the last version was written, Unix time", (of) => {
    const timeMs = of.view().versions.at(-1)?.timeMs;
    return timeMs === undefined ? undefined : timeMs / 1_000;
  });
  gauge("heddle_paused", "1 while the operator has paused the run", (of) => (of.operatorView().paused ? 1 : 0));
  gauge("heddle_banned_devices", "Devices that the operator has excluded", (of) => of.operatorView().banned.length);
  const sessions: Gauge<"lane"> = new Gauge({
    name: "heddle_sessions",
    help: "Open sessions by the lane that carries their updates, those being let in or turned away included",
    labelNames: ["lane"],
    registers,
    collect: () => {
      if (host !== null) {
        const { ws, rtc } = host.lanes();
        sessions.set({ lane: "ws" }, ws);
        sessions.set({ lane: "rtc" }, rtc);
      }
    },
  });
  const bytes: Counter<"direction" | "lane"> = new Counter({
    name: "heddle_bytes_total",
    help: "Bytes carried: up is from contributors, down is to them; the lane http serves blobs",
    labelNames: ["direction", "lane"],
    registers,
    collect: () => host?.countTraffic(),
  });
  const assignments = counter("heddle_assignments_total", "Assignments given", "work");
  const contributions = counter(
    "heddle_contributions_total",
    "Contributions by verdict: accepted, or the reason why not",
    "verdict",
  );
  const refusals = counter("heddle_refused_messages_total", "Messages and sessions refused, by reason", "reason");
  const meetings = counter(
    "heddle_meetings_total",
    "Contributors introduced to each other, by what they say came of it",
    "outcome",
  );
  const peerBytes = new Counter({
    name: "heddle_peer_bytes_total",
    help: "Bytes of checkpoints that contributors say they got from each other, not from this relay",
    registers,
  });
  const rounds = counter("heddle_rounds_total", "Rounds that ended, by outcome: merged or skipped", "outcome");
  const storeErrors = counter("heddle_store_errors_total", "Failed calls of the store, by its part", "part");
  const phases = histogram("heddle_round_phase_seconds", "How long the phases of rounds took", WORK_BUCKETS_S, "phase");
  const refereeing = histogram("heddle_referee_seconds", "Work of the relay's referee", WORK_BUCKETS_S, "work");
  const writes = new Histogram({
    name: "heddle_ledger_write_seconds",
    help: "Time to make the ledger entries of one decision durable",
    buckets: WRITE_BUCKETS_S,
    registers,
  });
  for (const part of ["log", "keys", "blobs"]) {
    storeErrors.inc({ part }, 0); // the first failure has to show as an increase
  }
  const observePhases = followRounds((phase, ms) => phases.observe({ phase }, ms / 1_000));

  function counter<L extends string>(name: string, help: string, label: L): Counter<L> {
    return new Counter({ name, help, labelNames: [label], registers });
  }

  function histogram<L extends string>(name: string, help: string, buckets: number[], label: L): Histogram<L> {
    return new Histogram({ name, help, buckets, labelNames: [label], registers });
  }

  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    lead: (leads) => leading.set(leads ? 1 : 0),
    watch: (watched) => {
      host = watched;
    },
    entry: (entry) => {
      observePhases(entry);
      const { event } = entry;
      if (event.type === "judged") {
        contributions.inc({ verdict: event.verdict.type === "accepted" ? "accepted" : event.verdict.reason });
      } else if (event.type === "merged" || event.type === "skipped") {
        rounds.inc({ outcome: event.type });
      }
    },
    fact: (fact) => {
      switch (fact.type) {
        case "assigned":
          assignments.inc({ work: fact.work });
          return;
        case "rejected":
          contributions.inc({ verdict: fact.reason });
          return;
        case "refused":
          refusals.inc({ reason: fact.reason });
          return;
        case "carried":
          bytes.inc({ direction: "up", lane: fact.lane }, fact.up);
          bytes.inc({ direction: "down", lane: fact.lane }, fact.down);
          return;
        case "met":
          meetings.inc({ outcome: fact.outcome });
          peerBytes.inc(fact.bytes);
          return;
        default:
          fact satisfies never;
      }
    },
    download: (count) => bytes.inc({ direction: "down", lane: "http" }, count),
    watchStore: (store) => ({
      ...store,
      log: counted(timedLog(store.log, writes), () => storeErrors.inc({ part: "log" })),
      keys: counted(store.keys, () => storeErrors.inc({ part: "keys" })),
      blobs: counted(store.blobs, () => storeErrors.inc({ part: "blobs" })),
    }),
    watchReferee: (referee) => ({
      ...referee,
      evaluate: (params) => timed(refereeing.startTimer({ work: "evaluate" }), referee.evaluate(params)),
      measure: (base, update, facts) =>
        timed(refereeing.startTimer({ work: "measure" }), referee.measure(base, update, facts)),
    }),
    close: () => registry.clear(),
  };
}

/** Calls `observe` with the phases of each round that began after this: training, judging, and merging unless it was skipped. */
function followRounds(
  observe: (phase: "training" | "judging" | "merging", ms: number) => void,
): (entry: { readonly event: LedgerEvent; readonly timeMs: number }) => void {
  let openedMs: number | null = null;
  let closedMs: number | null = null;
  let judgedMs: number | null = null;
  return ({ event, timeMs }) => {
    if (event.type === "opened") {
      openedMs = timeMs;
    } else if (event.type === "closed") {
      if (openedMs !== null) {
        observe("training", timeMs - openedMs);
      }
      [openedMs, closedMs, judgedMs] = [null, timeMs, timeMs];
    } else if (event.type === "judged") {
      judgedMs = timeMs;
    } else if ((event.type === "merged" || event.type === "skipped") && closedMs !== null && judgedMs !== null) {
      observe("judging", Math.max(0, judgedMs - closedMs));
      if (event.type === "merged") {
        observe("merging", timeMs - judgedMs);
      }
      [closedMs, judgedMs] = [null, null];
    }
  };
}

/** Calls `done` when `work` has ended well; what failed has no duration. */
async function timed<T>(done: () => unknown, work: Promise<T>): Promise<T> {
  const result = await work;
  done();
  return result;
}

function timedLog(log: Log, writes: Histogram): Log {
  return {
    length: () => log.length(),
    append: (after, entries) => timed(writes.startTimer(), log.append(after, entries)),
    read: (from, count) => log.read(from, count),
  };
}

/** `part` with its rejected calls counted. */
function counted<T extends object>(part: T, failed: () => void): T {
  return new Proxy(part, {
    get: (target, name, receiver) => {
      const method: unknown = Reflect.get(target, name, receiver);
      return typeof method !== "function"
        ? method
        : async (...args: readonly unknown[]) => {
            try {
              return await (Reflect.apply(method, target, args) as Promise<unknown>);
            } catch (error) {
              failed();
              throw error;
            }
          };
    },
  });
}
