/**
 * From launches to what is printed: per work and backend our rate, the best peer that was right, and the ratio between them;
 * as a readable table or as one JSON line per work.
 */
import type { Backend } from "./contender.ts";
import type { Launch } from "./contest.ts";
import { OURS, OURS_EXACT } from "./ours.ts";
import { ratioOf, rounded, standing, type Launches } from "./statistics.ts";
import type { Counts } from "./watch.ts";
import { amountOf, unitOf, type Work } from "./works.ts";

/** Everything that was measured at one place on one backend. */
export interface Session {
  readonly host: string;
  readonly backend: Backend;
  readonly launches: readonly Launch[];
}

/** One JSON line. `ours` and `best` are rates in `unit`; `spread` is that of the ratio, or of `ours` where nobody compares. */
export interface Line {
  readonly work: string;
  readonly engine: string;
  readonly adapter: string;
  readonly host: string;
  readonly unit: string;
  readonly ours: number;
  readonly best: number | null;
  readonly bestPeer: string | null;
  readonly ratio: number | null;
  readonly spread: number;
  readonly verified: true;
  readonly launches: number;
  /** Rates of all that were right. */
  readonly rates: Readonly<Record<string, number>>;
  /** Our rate over that of a multiply-add loop on the adapter, or on every WASM thread, in percent, for products. */
  readonly loopPercent?: number;
  /** What one training step asks of WebGPU, by contender. */
  readonly counts?: Readonly<Record<string, Counts>>;
  /** Those that were not timed, and why. */
  readonly faults: Readonly<Record<string, string>>;
}

export function engineName(backend: Backend): string {
  return backend.type === "webgpu" ? "webgpu" : `wasm ${backend.threads} thread${backend.threads === 1 ? "" : "s"}`;
}

/** The line of `work`; throws with the reason when our own engine has no figure. */
export function lineOf(work: Work, { host, backend, launches }: Session): Line {
  const results = launches.map((launch) => launch.results.filter((result) => result.work === work.name));
  const names = [...new Set(results.flat().map(({ contender }) => contender))];
  const ratesOf = (name: string): Launches =>
    results.map((one) =>
      one.flatMap(({ contender, ms }) => (contender === name ? ms.map((each) => (1000 * amountOf(work)) / each) : [])),
    );
  const faults = Object.fromEntries(
    results.flat().flatMap(({ contender, fault }) => (fault === undefined ? [] : [[contender, fault]])),
  );
  if (faults[OURS] !== undefined || !names.includes(OURS)) {
    throw new Error(`Cannot compare "${work.name}": our engine gave no figure: ${faults[OURS] ?? "it took no part"}`);
  }
  const counts = Object.fromEntries(
    results.flat().flatMap(({ contender, counts: one }) => (one === undefined ? [] : [[contender, one]])),
  );
  const right = names.filter((name) => faults[name] === undefined);
  const standings = right.map((name) => ({ name, ...standing(ratesOf(name)) }));
  const ours = standings.find(({ name }) => name === OURS) ?? { rate: 0, spread: 0 };
  const [best] = standings
    .filter(({ name }) => name !== OURS && name !== OURS_EXACT)
    .toSorted((a, b) => b.rate - a.rate);
  const loopShare = work.type === "matmul" ? loopShareOf(ratesOf(OURS), launches, work) : undefined;
  const ratio = best === undefined ? undefined : ratioOf(ratesOf(OURS), ratesOf(best.name));
  return {
    work: work.name,
    engine: engineName(backend),
    adapter: launches[0]?.adapter ?? "",
    host,
    unit: unitOf(work),
    ours: rounded(ours.rate),
    best: best === undefined ? null : rounded(best.rate),
    bestPeer: best?.name ?? null,
    ratio: ratio === undefined ? null : rounded(ratio.rate),
    spread: rounded((ratio ?? ours).spread),
    verified: true,
    launches: launches.length,
    rates: Object.fromEntries(standings.map(({ name, rate }) => [name, rounded(rate)])),
    ...(loopShare === undefined ? {} : { loopPercent: rounded(100 * loopShare) }),
    ...(Object.keys(counts).length === 0 ? {} : { counts }),
    faults,
  };
}

/** Our rate over that of the multiply-add loop: on WASM within the rounds, on WebGPU over that of the launches. */
function loopShareOf(ours: Launches, launches: readonly Launch[], work: Work): number | undefined {
  const loops = launches.map(({ results, peak }, launch) => {
    const inRounds = results.find((result) => result.work === work.name && result.loopGflops)?.loopGflops;
    return inRounds ?? (peak && ours[launch]?.map(() => peak.loopGflops));
  });
  return loops.every((loop) => loop !== undefined) ? ratioOf(ours, loops).rate : undefined;
}

/** One row a work: rates of everybody, the ratio to the best peer with its spread. */
export function tableOf(lines: readonly Line[]): string {
  const peers = [...new Set(lines.flatMap(({ rates, faults }) => [...Object.keys(rates), ...Object.keys(faults)]))];
  const head = ["work", "engine", "host", "unit", ...peers, "ours / best", "spread", "of loop"];
  const rows = lines.map(({ work, engine, host, unit, rates, faults, ratio, bestPeer, spread, loopPercent }) => [
    work,
    engine,
    host,
    unit,
    ...peers.map((name) => rates[name]?.toString() ?? (faults[name]?.startsWith("WRONG") === true ? "WRONG" : "-")),
    ratio === null ? "-" : `${ratio} x ${bestPeer}`,
    `${spread} %`,
    loopPercent === undefined ? "-" : `${loopPercent} %`,
  ]);
  const adapters = [...new Set(lines.map(({ host, adapter }) => `${host}: ${adapter}`))];
  const notes = lines.flatMap(({ work, host, faults }) =>
    Object.entries(faults).map(([name, fault]) => `not timed: ${name}, ${work}, ${host}: ${fault.split("\n")[0]}`),
  );
  const counted = lines.flatMap(({ work, host, counts = {} }) =>
    Object.entries(counts).map(([name, { peakBytes, ...calls }]) => [
      work,
      host,
      name,
      ...Object.values(calls).map(String),
      (peakBytes / 1e6).toFixed(1),
    ]),
  );
  const steps = counted.length === 0 ? [] : ["", "one step in the steady state:", ...aligned([COUNTED, ...counted])];
  return [...adapters, "", ...aligned([head, ...rows]), ...steps, "", ...notes, ""].join("\n");
}

const COUNTED = [
  "work",
  "host",
  "contender",
  "dispatches",
  "passes",
  "submits",
  "writes",
  "maps",
  "new buffers",
  "new bind groups",
  "new shaders",
  "peak MB",
];

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
