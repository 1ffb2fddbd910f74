/**
 * From launches to what is printed: per work and backend our rate, the best peer that was right, and the ratio between them;
 * as a readable table or as one JSON line per work.
 */
import type { Backend } from "./contender.ts";
import type { Launch } from "./contest.ts";
import { OURS } from "./ours.ts";
import { ratioOf, rounded, standing, type Launches } from "./statistics.ts";
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
  const right = names.filter((name) => faults[name] === undefined);
  const standings = right.map((name) => ({ name, ...standing(ratesOf(name)) }));
  const ours = standings.find(({ name }) => name === OURS) ?? { rate: 0, spread: 0 };
  const [best] = standings.filter(({ name }) => name !== OURS).toSorted((a, b) => b.rate - a.rate);
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
    faults,
  };
}

/** One row a work: rates of everybody, the ratio to the best peer with its spread. */
export function tableOf(lines: readonly Line[]): string {
  const peers = [...new Set(lines.flatMap(({ rates, faults }) => [...Object.keys(rates), ...Object.keys(faults)]))];
  const head = ["work", "engine", "host", "unit", ...peers, "ours / best", "spread"];
  const rows = lines.map(({ work, engine, host, unit, rates, faults, ratio, bestPeer, spread }) => [
    work,
    engine,
    host,
    unit,
    ...peers.map((name) => rates[name]?.toString() ?? (faults[name]?.startsWith("WRONG") === true ? "WRONG" : "-")),
    ratio === null ? "-" : `${ratio} x ${bestPeer}`,
    `${spread} %`,
  ]);
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const text = (row: readonly string[]): string =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd();
  const adapters = [...new Set(lines.map(({ host, adapter }) => `${host}: ${adapter}`))];
  const notes = lines.flatMap(({ work, host, faults }) =>
    Object.entries(faults).map(([name, fault]) => `not timed: ${name}, ${work}, ${host}: ${fault.split("\n")[0]}`),
  );
  return [...adapters, "", text(head), ...rows.map(text), "", ...notes, ""].join("\n");
}
