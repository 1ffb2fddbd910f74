/**
 * A relay, or several of one run, and driver processes whose sessions play rounds there: what the loads that do so have in common.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { HeddleError } from "../../src/base/assert.ts";
import type { MetricsRead } from "../../test/e2e/metrics.ts";
import type { Counted } from "./arrivals.ts";
import type { Answer, Order } from "./driver.ts";
import { lookAt, startDriver, type Seen } from "./drivers.ts";
import { LOADS, type LoadName } from "./loads.ts";
import { examine } from "./oracle.ts";
import { readLedger, startMeasured, viewOf, type LedgerSums, type Relays } from "./relay-process.ts";

export interface GameOptions {
  readonly drivers: number;
  /** Of all sessions, how many are in a round. */
  readonly active: number;
  /** Contributions come within half of this to this after the assignment, reports within half of `judgeMs` to `judgeMs`. */
  readonly trainMs: number;
  readonly judgeMs: number;
  /** What is played; "light" where nothing is said. */
  readonly load?: LoadName;
}

/** What was seen from one moment to another. */
export interface Stretch {
  readonly seconds: number;
  readonly before: MetricsRead;
  readonly after: MetricsRead;
  /** Waits and processor time are this stretch's. */
  readonly seen: readonly Seen[];
  /** What a counter of the relay has gained. */
  gained(name: string, label?: string): number;
}

export interface Game {
  /** Of the first relay. */
  readonly origin: string;
  metrics(): Promise<MetricsRead>;
  /** Opens so many sessions and returns how long each waited for its welcome, in milliseconds. */
  open(sessions: number): Promise<readonly number[]>;
  /** Has them play, and resolves when they are in their stride. */
  begin(): Promise<void>;
  /** Has so many more come, evenly spread over `withinMs`. Resolves at once. */
  join(sessions: number, withinMs: number): Promise<void>;
  /** How far those are. */
  count(): Promise<Counted>;
  /** Sessions as the relay's page tells them. */
  connected(): Promise<number>;
  /** What the relay did, and the sessions saw, while `act` ran. */
  during(act: () => Promise<void>): Promise<Stretch>;
  /** Has the round that is under way end, with no other after it. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Lets the last round end and compares what was told with the ledger. Throws HeddleError "integrity" when a result was lost. */
  finish(): Promise<{ readonly seen: readonly Seen[]; readonly ledger: LedgerSums }>;
  [Symbol.asyncDispose](): Promise<void>;
}

const WARM_MS = 5_000;
const SETTLE_MS = 20_000;

/** `startRelays` starts what is measured, with the charter that it gets; each driver's sessions are at one of its origins. */
export async function startGame(
  { drivers: count, active, trainMs, judgeMs, load = "light" }: GameOptions,
  startRelays: (charter: object) => Promise<Relays> = startMeasured,
): Promise<Game> {
  const round = { trainMs: 2 * trainMs + 10_000, graceMs: 10_000, judgeMs: judgeMs + 20_000, stepsMax: 10, quorum: 1 };
  const relays = await startRelays({ ...LOADS[load].charter, round });
  const { metrics, origins, pause, resume } = relays;
  const originOf = (driver: number): string => origins[driver % origins.length] as string;
  const origin = originOf(0);
  const drivers = Array.from({ length: count }, startDriver);
  const tell = (orderOf: (driver: number) => Order): Promise<readonly Answer[]> =>
    Promise.all(drivers.map((driver, i) => driver.ask(orderOf(i))));
  const shareOf = (all: number, driver: number): number => Math.floor((all + driver) / count);
  /** What was seen when every contribution has its verdict. */
  const settle = async (): Promise<readonly Seen[]> => {
    for (const endMs = performance.now() + SETTLE_MS; ; await sleep(200)) {
      const seen = await lookAt(drivers);
      const open = seen.reduce((sum, one) => sum + one.open, 0);
      if (open === 0) {
        return seen;
      }
      if (performance.now() >= endMs) {
        throw new HeddleError("integrity", `A result was lost: ${open} contributions stay without a verdict`);
      }
    }
  };
  return {
    origin,
    metrics,
    open: async (sessions) => {
      const opened = await tell((driver) => {
        const [own, ownActive] = [shareOf(sessions, driver), shareOf(active, driver)];
        return { type: "open", origin: originOf(driver), sessions: own, active: ownActive, trainMs, judgeMs, load };
      });
      return opened.flatMap((answer) => (answer.type === "done" ? answer.welcomesMs : []));
    },
    begin: async () => {
      await tell(() => ({ type: "begin" }));
      await sleep(WARM_MS);
    },
    join: async (sessions, withinMs) => {
      await tell((driver) => ({ type: "join", sessions: shareOf(sessions, driver), withinMs }));
    },
    count: async () => {
      const counted = (await tell(() => ({ type: "count" }))).filter((answer) => answer.type === "counted");
      const sum = (name: keyof Counted): number => counted.reduce((all, one) => all + one[name], 0);
      return { served: sum("served"), unanswered: sum("unanswered") };
    },
    connected: async () => (await viewOf(origin)).connected,
    during: async (act) => {
      await tell(() => ({ type: "mark" }));
      const before = await metrics();
      const beginMs = performance.now();
      await act();
      const after = await metrics();
      const seconds = (performance.now() - beginMs) / 1_000;
      const gained = (name: string, label?: string): number => after(name, label) - before(name, label);
      return { seconds, before, after, gained, seen: await lookAt(drivers) };
    },
    pause,
    resume,
    finish: async () => {
      await pause();
      const seen = await settle();
      const ledger = await readLedger(origin);
      examine(
        seen.map(({ told }) => told),
        ledger,
      );
      await tell(() => ({ type: "end" }));
      return { seen, ledger };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(drivers.map((driver) => driver.stop()));
      await relays[Symbol.asyncDispose]();
    },
  };
}
