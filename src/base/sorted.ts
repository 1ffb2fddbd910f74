/**
 * Numbers in ascending order, to which one is added at a time: persistent, as states of the coordinator are. They lie in runs of
 * bounded length, so that an addition copies one run and the list of runs, and not all.
 */

export interface Sorted {
  readonly size: number;
  /** None is empty; the last of one is at most the first of the next. */
  readonly runs: readonly (readonly number[])[];
}

const RUN_MAX = 128;

export function sortedOf(values: readonly number[]): Sorted {
  const all = values.toSorted((a, b) => a - b);
  const runs = Array.from({ length: Math.ceil(all.length / RUN_MAX) }, (_, i) =>
    all.slice(i * RUN_MAX, (i + 1) * RUN_MAX),
  );
  return { size: all.length, runs };
}

/** With `value` among them. */
export function insert({ size, runs }: Sorted, value: number): Sorted {
  if (size === 0) {
    return { size: 1, runs: [[value]] };
  }
  const found = runs.findIndex((one) => (one.at(-1) as number) > value);
  const at = found === -1 ? runs.length - 1 : found;
  const run = runs[at] as readonly number[];
  const place = run.findIndex((one) => one > value);
  const next = run.toSpliced(place === -1 ? run.length : place, 0, value);
  const halves = next.length > RUN_MAX ? [next.slice(0, RUN_MAX / 2), next.slice(RUN_MAX / 2)] : [next];
  return { size: size + 1, runs: runs.toSpliced(at, 1, ...halves) };
}

/** The median, of two middle values the smaller; 0 for none. */
export function lowerMedian({ size, runs }: Sorted): number {
  let place = (size - 1) >> 1;
  for (const run of runs) {
    if (place < run.length) {
      return run[place] ?? 0;
    }
    place -= run.length;
  }
  return 0;
}
