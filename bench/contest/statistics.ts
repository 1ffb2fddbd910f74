/**
 * The statistics that every benchmark here uses: samples are taken interleaved, round by round, so that a disturbance of the
 * machine hits everybody; a figure is a median, over the rounds of a launch and then over launches; the spread is half the
 * distance between the quartiles, in percent of the median. Ratios are formed within a round, where both sides met the same
 * machine, and only then summarised. `docs/benchmarks.md` says why.
 */
import { median, spread } from "../../src/base/statistics.ts";

/** Half the distance between the quartiles, in percent of the median. */
export function spreadPercent(values: readonly number[]): number {
  return 100 * spread(values);
}

/** Three figures are all that a benchmark on a shared machine has. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

/** Who takes part in a comparison: one call of `run` is one sample. */
export interface Runner {
  readonly name: string;
  /** Does the work once and resolves when it is done; `expectedMs` is the least that it has taken. */
  run(expectedMs: number): Promise<unknown>;
}

/** Milliseconds of `rounds` samples of each runner, interleaved; each round begins with another one. */
export async function takeRounds(
  runners: readonly Runner[],
  { rounds, nowMs }: { readonly rounds: number; readonly nowMs: () => number },
): Promise<Map<string, number[]>> {
  const samples = new Map(runners.map(({ name }) => [name, [] as number[]]));
  const sample = async ({ name, run }: Runner): Promise<void> => {
    const taken = samples.get(name) as number[];
    const begin = nowMs();
    await run(taken.length === 0 ? 0 : Math.min(...taken));
    taken.push(nowMs() - begin);
  };
  // The first round warms up and tells how long to expect the others to take.
  for (let round = 0; round <= rounds; round += 1) {
    const first = round % Math.max(1, runners.length);
    for (const runner of [...runners.slice(first), ...runners.slice(0, first)]) {
      await sample(runner);
    }
  }
  return new Map([...samples].map(([name, taken]) => [name, taken.slice(1)]));
}

/** Rates of one work by one contender: one list of samples per launch, all in the same order of rounds. */
export type Launches = readonly (readonly number[])[];

export interface Standing {
  /** Median over launches of each launch's median rate. */
  readonly rate: number;
  readonly spread: number;
}

export function standing(launches: Launches): Standing {
  return { rate: median(launches.map(median)), spread: spreadPercent(launches.flat()) };
}

/** How many times faster than `theirs`: median over launches of the median over rounds of the ratio within a round. */
export function ratioOf(ours: Launches, theirs: Launches): Standing {
  const ratios = ours.map((rates, launch) => rates.map((rate, round) => rate / (theirs[launch]?.[round] as number)));
  return standing(ratios);
}
