/**
 * Which rungs of the kernel ladders are fastest on this adapter: no single kernel is, the best one for a GPU can be five times
 * slower than the best one for another. A few candidates run on the largest product of each form that a Program has, and
 * on its largest attention and the way back through it, interleaved, within a budget of time; the best run of each counts. A
 * candidate that does not compile, or whose numbers are not the first one's, is left out. An op is repeated within a submit until
 * its fence does not count (`repeats.ts`). Numbers differ in the last bits between rungs, so a choice may change results
 * that little.
 *
 * What was tried is a short text that an entry point may keep and hand in again. It is added to before a candidate runs, so that
 * the next start goes on after the last one that was begun: one that resets the GPU is met once, unless it is the first of them,
 * which is the guess and runs without a search as well.
 */
import { assert, AssertionError, HeddleError } from "../base/assert.ts";
import { atOnce, createTurn, type InTurn } from "../base/turn.ts";
import type { Outputs, Plan } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import type { Tuning } from "./kernels.ts";
import { enoughRepeats, repeatsWithin } from "./repeats.ts";
import { largestDifference } from "./self-test.ts";
import {
  inputsOf,
  subjectIn,
  trialsOf,
  tuningFrom,
  type AnyRung,
  type Largest,
  type Subject,
  type Trial,
  type Tried,
} from "./trials.ts";

/** Something that can be run and timed; a `GpuPlan` is one. */
export interface Timed extends Pick<Plan, "write" | "run" | typeof Symbol.dispose> {
  /** What it runs; two rungs may come out as the same on a shape. */
  readonly kernels: readonly string[];
  /** Runs so many times over in one submit; resolves when the device is through with it. */
  repeat(times: number): Promise<void>;
}

/** The first one is what would be taken without a search, the others follow in the order of hope. */
export type Candidates = (subject: Subject) => readonly AnyRung[];

export interface TunerOptions {
  readonly candidates: Candidates;
  /** What needs not be tried again, unless it was the fastest. */
  readonly tried: Tried;
  /** Told of `tried` for a trial before a candidate runs, and in the end. */
  keep(trial: Trial, rungs: readonly AnyRung[]): Promise<void>;
  /**
   * `tuning` has one entry. A HeddleError leaves this candidate out, as long as the device is `usable` afterwards; "model-too-big" ends the
   * search.
   */
  compile(program: Program, tuning: Tuning): Promise<Timed>;
  usable(): boolean;
  /** All together, compiling included; a candidate that began is finished, and the dearest subject gets one at any rate. */
  readonly msMax: number;
  readonly nowMs: () => number;
}

/** What a submit should work at least, for a difference of a few percent to show beside a fence's ups and downs. */
const WORK_MS = 10;
const REPEATS_MAX = 1_024;
/** Of the repeats, from one round to the next: what looked quick once may be slow. */
const GROWTH_MAX = 16;
/** What takes so long is not run again to warm up: what drivers put off until the first run does not show in it. */
const LONG_MS = 100;
const ROUNDS_MAX = 5;
/** A candidate that took so many times what the fastest did is not tried again: the time is better spent on close ones. */
const HOPELESS = 1.5;
/** The share of its repeats that tells whether a candidate is a hundred times slower, and must not hold the screen up with all of them. */
const FIRST_SHARE = 1 / 16;
/** Where a fence takes no longer, one run comes before those, in case it is a thousand times slower; elsewhere it would tell nothing. */
const QUICK_FENCE_MS = 20;
/** Largest difference from the first candidate's numbers, as a share of the largest; f32 kernels stay below 1e-5. */
const DIFFERENCE_MAX = 1e-3;

/** Tries what is left to try for each subject in `program`, the dearest ones first. */
export async function tune(program: Program, options: TunerOptions): Promise<void> {
  const left = trialsOf(program).filter(({ trial }) => leftOf(trial, options).length > 0);
  const untilMs = options.nowMs() + options.msMax;
  for (const [i, one] of left.entries()) {
    // The dearest is tried at any rate: a busy machine may need the time for getting here.
    if (i === 0 || options.nowMs() < untilMs) {
      await tryCandidates(one, options, untilMs);
    }
  }
}

/** The candidates that were not begun yet. */
function leftOf(trial: Trial, { candidates, tried }: Pick<TunerOptions, "candidates" | "tried">): AnyRung[] {
  const begun = tried.get(trial) ?? [];
  return candidates(subjectIn(trial)).filter((rung) => !begun.includes(rung));
}

async function tryCandidates({ trial, alone }: Largest, options: TunerOptions, untilMs: number): Promise<void> {
  const { nowMs, keep } = options;
  const program = alone();
  const hasTime = (): boolean => nowMs() < untilMs;
  const begun = [...(options.tried.get(trial) ?? [])];
  const left = leftOf(trial, options);
  const inputs = inputsOf(program);
  const make = async (rung: AnyRung): Promise<Timed | undefined> => {
    const tuning = tuningFrom([[subjectIn(trial), rung]]);
    assert(tuning !== undefined, `Cannot tune ${trial}: "${rung}" is no rung of it`);
    const plan = await compileCandidate(program, tuning, options);
    for (const [name, values] of inputs) {
      plan?.write(name, values);
    }
    return plan;
  };
  const taken = new Set<string>();
  let expected: Outputs<string> | undefined;
  const isRight = async (plan: Timed): Promise<boolean> => {
    const kernels = plan.kernels.join();
    if (taken.has(kernels)) {
      return false;
    }
    taken.add(kernels);
    const outputs = await plan.run(program.outputs);
    // Who gives NaN is nobody's measure, itself included.
    if (expected === undefined && isClose(outputs, outputs)) {
      expected = outputs;
    }
    return expected !== undefined && isClose(outputs, expected);
  };
  using field = createField(nowMs, hasTime);
  /** A search that ends here leaves the next start the best that it knows. */
  const fastestFirst = (): AnyRung[] => [...new Set([...field.rungs().slice(0, 1), ...begun])];
  for (const rung of [...begun.slice(0, 1), ...left]) {
    // One at least that is new: drawing the inputs alone may take the time there is.
    if (rung !== begun[0] && rung !== left[0] && !hasTime()) {
      break;
    }
    const isNew = !begun.includes(rung);
    if (isNew) {
      begun.push(rung);
      await keep(trial, fastestFirst());
    }
    const plan = await make(rung).catch(async (error: unknown) => {
      if (isNew && isTooBig(error) && begun.length > 1) {
        begun.pop();
        await keep(trial, fastestFirst());
      }
      throw error;
    });
    if (plan !== undefined) {
      await field.add(rung, plan, isRight);
    }
  }
  for (let round = 1; round < ROUNDS_MAX && field.rungs().length > 1 && hasTime(); round += 1) {
    await field.time();
  }
  await keep(trial, fastestFirst());
}

/** Those that may still be the fastest. */
interface Field extends Disposable {
  /** The fastest first. */
  rungs(): AnyRung[];
  /** Times a candidate beside them. It belongs to the field then, and is disposed of when it is wrong or hopeless. */
  add(rung: AnyRung, plan: Timed, isRight: (plan: Timed) => Promise<boolean>): Promise<void>;
  /** Times all of them once more; the best time of each counts. */
  time(): Promise<void>;
}

interface Candidate {
  readonly rung: AnyRung;
  readonly plan: Timed;
  ms: number;
}

function createField(nowMs: () => number, hasTime: () => boolean): Field {
  let close: Candidate[] = [];
  let [repeats, fenceMs] = [0, 0];
  const keepBelow = (msMax: number): void => {
    for (const { plan } of close.filter(({ ms }) => !(ms <= msMax))) {
      plan[Symbol.dispose]();
    }
    close = close.filter(({ ms }) => ms <= msMax).sort((a, b) => a.ms - b.ms);
  };
  type MsOf = (times: number) => Promise<number>;
  /** Whether a submit may have all repeats of what was not timed yet; not where it works 1 / FIRST_SHARE times what is enough. */
  const mayRepeat = async (msOf: MsOf): Promise<boolean> => {
    const first = Math.ceil(FIRST_SHARE * repeats);
    for (let times = fenceMs < QUICK_FENCE_MS ? 1 : first; times < repeats;) {
      const ms = await msOf(times);
      const more = repeatsWithin(times, ms);
      if (more <= times || (ms - fenceMs) * Math.min(first, times) > WORK_MS * times) {
        return false;
      }
      times = times < first ? Math.min(first, GROWTH_MAX * times) : more;
    }
    return true;
  };
  const timeOf = async ({ plan, ms }: Candidate, samples: number): Promise<number> => {
    const msOf: MsOf = (times) => quickestOf(3, plan, { times, nowMs });
    if (repeats === 0) {
      ({ repeats, fenceMs } = await enoughRepeats(msOf, { workMs: WORK_MS, repeatsMax: REPEATS_MAX, hasTime }));
    } else if (ms === Infinity && !(await mayRepeat(msOf))) {
      return Infinity;
    }
    return quickestOf(samples, plan, { times: repeats, nowMs });
  };
  const keepClose = async (): Promise<void> => {
    const hopelessMs = (): number => HOPELESS * Math.min(...close.map(({ ms }) => ms));
    // A long one has a single sample, which may have met a stall: it is timed once more before it is left out for good.
    for (const one of close) {
      if (one.ms >= LONG_MS && one.ms > hopelessMs()) {
        one.ms = Math.min(one.ms, await timeOf(one, 1));
      }
    }
    keepBelow(hopelessMs());
  };
  return {
    rungs: () => close.map(({ rung }) => rung),
    add: async (rung, plan, isRight) => {
      const one = { rung, plan, ms: Infinity };
      close.push(one);
      if (await isRight(plan)) {
        one.ms = await timeOf(one, 2);
        await keepClose();
      } else {
        plan[Symbol.dispose]();
        close = close.filter((other) => other !== one);
      }
    },
    time: async () => {
      const workedMs = (close[0]?.ms ?? 0) - fenceMs;
      const growth = Math.min(GROWTH_MAX, WORK_MS / Math.max(0.1, workedMs));
      const more = Math.min(REPEATS_MAX, repeatsWithin(repeats, close.at(-1)?.ms ?? 0), Math.ceil(repeats * growth));
      if (workedMs < WORK_MS / 2 && more > repeats) {
        // They are so much faster than the first one that the fence counts again.
        repeats = more;
        close.forEach((one) => {
          one.ms = Infinity;
        });
      }
      for (const one of close) {
        one.ms = Math.min(one.ms, await timeOf(one, 1));
      }
      await keepClose();
    },
    [Symbol.dispose]: () => keepBelow(-1),
  };
}

/** The quickest of `samples` submits, or of fewer where work is long. */
async function quickestOf(
  samples: number,
  plan: Timed,
  { times, nowMs }: { readonly times: number; readonly nowMs: () => number },
): Promise<number> {
  let quickest = Infinity;
  const longMs = times === 0 ? Infinity : LONG_MS;
  for (let i = 0; i < samples && (i === 0 || quickest < longMs); i += 1) {
    const begin = nowMs();
    await plan.repeat(times);
    quickest = Math.min(quickest, nowMs() - begin);
  }
  return quickest;
}

/** Written so that a NaN is not close. */
function isClose(outputs: Outputs<string>, expected: Outputs<string>): boolean {
  return Object.entries(expected).every(
    ([name, values]) => largestDifference(outputs[name] ?? new Float32Array(), values) <= DIFFERENCE_MAX,
  );
}

/** That there is no room beside what is there tells nothing of a candidate: the search ends, and the next start tries it. */
function isTooBig(error: unknown): boolean {
  return error instanceof HeddleError && error.code === "model-too-big";
}

/** Undefined for a candidate that the device refuses. */
async function compileCandidate(
  program: Program,
  tuning: Tuning,
  { compile, usable }: TunerOptions,
): Promise<Timed | undefined> {
  try {
    return await compile(program, tuning);
  } catch (error) {
    if (error instanceof HeddleError && !isTooBig(error) && usable()) {
      return undefined;
    }
    throw error;
  }
}

/** What one engine knows of its kernels. */
export interface Tuner {
  tried(): Tried;
  /** The fastest rungs for the largest ops of `program`; what was not tried takes after what is nearest to its size. */
  tuningFor(program: Program): Tuning;
  /** Tries what is left to try for `program` while there is time, one search at a time and each trial once in the life of the engine. */
  learn(program: Program): Promise<void>;
}

export type Search = (program: Program, options: Pick<TunerOptions, "tried" | "keep" | "msMax">) => Promise<void>;

export interface KnownOptions {
  readonly given?: Tried | undefined;
  readonly candidates: Candidates;
  readonly search: Search;
  /** All searches together. */
  readonly msMax: number;
  readonly nowMs: () => number;
  /** Makes a search when nothing else computes; what it waits for that does not count. */
  readonly inTurn?: InTurn;
  /** Told of everything that is tried; the search goes on when it resolves. */
  readonly onTried?: ((tried: Tried) => Promise<void>) | undefined;
}

/** Where the search rejects, what was found before stays. */
export function createTuner(options: KnownOptions): Tuner {
  const { given, candidates, search, msMax, nowMs, inTurn = atOnce, onTried } = options;
  let leftMs = msMax;
  const tried = new Map(given);
  const looked = new Set<Trial>();
  const keep = async (trial: Trial, rungs: readonly AnyRung[]): Promise<void> => {
    tried.delete(trial); // the newest is the last
    tried.set(trial, rungs);
    await onTried?.(tried);
  };
  const spend = async (program: Program): Promise<void> => {
    const beginMs = nowMs();
    try {
      await search(program, { tried, keep, msMax: leftMs });
    } finally {
      leftMs -= nowMs() - beginMs;
    }
  };
  const learn = async (program: Program): Promise<void> => {
    const trials = trialsOf(program).map(({ trial }) => trial);
    if (
      leftMs <= 0 ||
      trials.every((trial) => looked.has(trial) || leftOf(trial, { candidates, tried }).length === 0)
    ) {
      return;
    }
    // What fails for the device's sake fails again, with its reason, in the compile that follows.
    await inTurn(() => spend(program)).catch((error: unknown) => {
      if (error instanceof AssertionError) {
        throw error;
      }
    });
    for (const trial of trials) {
      looked.add(trial);
    }
  };
  const oneByOne = createTurn();
  return {
    tried: () => tried,
    tuningFor: (program) => {
      const rungs = trialsOf(program).flatMap(({ trial }) => {
        const rung = nearest(trial, tried)?.[0];
        return rung === undefined ? [] : [[subjectIn(trial), rung] as const];
      });
      return tuningFrom(rungs) ?? {};
    },
    learn: (program) => oneByOne(() => learn(program)),
  };
}

function nearest(trial: Trial, tried: Tried): readonly AnyRung[] | undefined {
  const sizeOf = (one: Trial): number => Number(one.split(" ")[1]);
  const distance = (one: Trial): number => Math.abs(sizeOf(one) - sizeOf(trial));
  const alike = [...tried.keys()].filter((one) => subjectIn(one) === subjectIn(trial));
  const [first] = alike.toSorted((a, b) => distance(a) - distance(b));
  return first === undefined ? undefined : tried.get(first);
}
