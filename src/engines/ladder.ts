/**
 * The kernel ladder: the same works (`works.ts`) on several rungs, which may be kernels of one GPU engine or other engines.
 * Results are checked before anything is timed, and a wrong rung is called wrong and not fast; rungs take turns within a
 * work, so that a machine that is disturbed is so for all of them. It is what `npm run bench:ladder` and the public page
 * (`bench.html`) run. The clock comes in as an argument.
 */
import { messageIn, present } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import { median, spread } from "../base/statistics.ts";
import { ATTENTION_RUNGS } from "../gpu/attention.ts";
import type { GpuEngine } from "../gpu/engine.ts";
import type { KernelChoice } from "../gpu/kernels.ts";
import { MATMUL_RUNGS } from "../gpu/matmul.ts";
import { enoughRepeats } from "../gpu/repeats.ts";
import { initialParameters } from "../model/layout.ts";
import { createTrainer } from "../model/trainer.ts";
import type { Engine, Plan } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { STEP_INNER, STEP_MODEL } from "./task.ts";
import type { Family, Sample, Work } from "./works.ts";

/** A Plan of a GPU repeats runs within a submit; `kernels` tells which rung a device really took. */
export interface TimedPlan extends Plan {
  repeat?(times: number): Promise<void>;
  readonly kernels?: readonly string[];
}

export interface Rung {
  readonly label: string;
  /** Runs reach the device as submits, which others at the screen have to wait for. */
  readonly gpu: boolean;
  compile(program: Program): Promise<TimedPlan>;
}

/** What became of one work on one rung. */
export type Reading = { readonly work: string; readonly rung: string } & (
  | {
      readonly type: "measured";
      /** Units of work per second: GFLOP/s, or tokens/s of training. */
      readonly rate: number;
      /** Half the distance between the quartiles, as a share of the median. */
      readonly spread: number;
    }
  | { readonly type: "wrong" | "failed" | "skipped"; readonly detail: string }
);

export interface LadderOptions {
  readonly nowMs: () => number;
  readonly rounds?: number;
  /** What no submit may be expected to exceed, in ms; a rung that would is skipped. */
  readonly submitMsMax?: number;
  readonly signal?: { readonly aborted: boolean };
  /** Told before each work. */
  readonly onWork?: (work: Work, index: number) => void;
  readonly onReading?: (reading: Reading) => void;
}

/** A measurement is as many submits as take this long. */
const SAMPLE_MS = 40;
const SUBMITS_MAX = 256;
/** What is quicker than this is repeated within a submit, up to `REPEATS_MAX` times; what a submit takes beside is taken off. */
const SUBMIT_MS = 10;
const REPEATS_MAX = 1_024;
/** Largest error, as a share of the larger of 1 and the value: f32 sums of a few thousand products stay far below. */
const TOLERANCE = 1e-4;
const STEP_SAMPLE_MS = 200;

/** The rungs of `family` on one GPU engine, slowest design first. */
export function gpuRungs(engine: GpuEngine, family: Family): Rung[] {
  const rung = (label: string, choice: Partial<KernelChoice>): Rung => ({
    label,
    gpu: true,
    compile: (program) => engine.compile(program, choice),
  });
  return family === "matmul"
    ? MATMUL_RUNGS.map((matmul) => rung(matmul, { matmul }))
    : ATTENTION_RUNGS.map((attention) => rung(attention, { attention }));
}

/** An engine with one way of doing things, as a rung beside the others. */
export function engineRung(label: string, engine: Engine): Rung {
  return { label, gpu: false, compile: (program) => engine.compile(program) };
}

/** Measures every work on its rungs, in order; small works of a family must come before large ones. */
export async function climb(
  works: readonly Work[],
  rungsFor: (work: Work) => readonly Rung[],
  options: LadderOptions,
): Promise<Reading[]> {
  const readings: Reading[] = [];
  const speeds = new Map<string, number>();
  for (const [index, work] of works.entries()) {
    if (options.signal?.aborted === true) {
      break;
    }
    options.onWork?.(work, index);
    readings.push(...(await climbOne(work, rungsFor(work), speeds, options)));
  }
  return readings;
}

interface Candidate {
  readonly rung: Rung;
  readonly plan: TimedPlan;
  /** Runs in one submit. */
  readonly repeats: number;
  /** What a submit takes beside them. */
  readonly fenceMs: number;
  /** Submits that make a measurement. */
  readonly submits: number;
  readonly rates: number[];
  /** FLOP per ms. */
  readonly speed: number;
}

/** `speeds`: FLOP per ms by family and rung, from smaller works; it is added to. */
async function climbOne(
  work: Work,
  rungs: readonly Rung[],
  speeds: Map<string, number>,
  options: LadderOptions,
): Promise<Reading[]> {
  const { nowMs, rounds = 5, submitMsMax = Infinity, signal, onReading } = options;
  const readings: Reading[] = [];
  const tell = (reading: Reading): void => {
    readings.push(reading);
    onReading?.(reading);
  };
  const expected = await work.expected();
  const taken = new Set<string>();
  const candidates: Candidate[] = [];
  using stack = new DisposableStack();
  for (const rung of rungs) {
    if (signal?.aborted === true) {
      return readings;
    }
    const key = `${work.family} ${rung.label}`;
    const ms = work.flops / (speeds.get(key) ?? Infinity);
    const about = { work: work.name, rung: rung.label };
    if (rung.gpu && ms > submitMsMax) {
      tell({ ...about, type: "skipped", detail: `one dispatch would take about ${Math.round(ms)} ms` });
      continue;
    }
    try {
      const tried = await tryRung(work, rung, { expected, taken, stack, nowMs });
      if ("detail" in tried) {
        tell({ ...about, ...tried });
      } else {
        speeds.set(key, tried.speed);
        candidates.push(tried);
      }
    } catch (error) {
      tell({ ...about, type: "failed", detail: messageIn(error) });
    }
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const candidate of candidates) {
      if (signal?.aborted === true) {
        return readings;
      }
      candidate.rates.push((await speedOf(work, candidate, nowMs)) / 1e6);
    }
  }
  candidates.forEach(({ rung, rates }) =>
    tell({ work: work.name, rung: rung.label, type: "measured", ...summary(rates) }),
  );
  return readings;
}

type Tried = Candidate | { readonly type: "wrong" | "skipped"; readonly detail: string };

interface Trying {
  readonly expected: ReadonlyMap<string, readonly Sample[]>;
  /** Kernels that an earlier rung has already come out as. */
  readonly taken: Set<string>;
  /** Owns the Plan that is kept for timing. */
  readonly stack: DisposableStack;
  readonly nowMs: () => number;
}

/** Checks one work on one rung, and finds how often it has to run to be measured. */
async function tryRung(work: Work, rung: Rung, { expected, taken, stack, nowMs }: Trying): Promise<Tried> {
  const plan = stack.use(await rung.compile(work.program));
  for (const [name, values] of work.inputs) {
    plan.write(name, values);
  }
  const kernels = plan.kernels?.join() ?? rung.label;
  if (taken.has(kernels)) {
    return { type: "skipped", detail: "this device takes another rung instead" };
  }
  taken.add(kernels);
  const outputs = await plan.run([...expected.keys()]);
  for (const [output, samples] of expected) {
    const values = present(outputs[output], output);
    const wrong = samples.find(([index, value]) => !isClose(values[index] as number, value));
    if (wrong !== undefined) {
      const [index, value] = wrong;
      return { type: "wrong", detail: `element ${index} of "${output}" is ${values[index]}, should be ${value}` };
    }
  }
  const msOf = async (repeats: number): Promise<number> => {
    // What takes long is not run again to find out what drivers put off until the first time.
    const ms = await timeSubmits(plan, { repeats, submits: 1 }, nowMs);
    return ms > SAMPLE_MS && repeats > 1 ? ms : Math.min(ms, await timeSubmits(plan, { repeats, submits: 1 }, nowMs));
  };
  const { repeats, fenceMs } = await enoughRepeats(msOf, { workMs: SUBMIT_MS, repeatsMax: REPEATS_MAX });
  let submits = 1;
  while ((await timeSubmits(plan, { repeats, submits }, nowMs)) < SAMPLE_MS && submits < SUBMITS_MAX) {
    submits *= 2;
  }
  const speed = await speedOf(work, { plan, repeats, fenceMs, submits }, nowMs);
  return { rung, plan, repeats, fenceMs, submits, rates: [], speed };
}

type Measurable = Pick<Candidate, "plan" | "repeats" | "fenceMs" | "submits">;

/** FLOP per ms, fences taken off; but a twentieth of the time is left, as those differ. */
async function speedOf(work: Work, one: Measurable, nowMs: () => number): Promise<number> {
  const { plan, repeats, fenceMs, submits } = one;
  const ms = await timeSubmits(plan, one, nowMs);
  return (work.flops * repeats * submits) / Math.max(0.001, ms / 20, ms - submits * fenceMs);
}

/** One after the other, so that each has its fence. */
async function timeSubmits(
  plan: TimedPlan,
  { repeats, submits }: { readonly repeats: number; readonly submits: number },
  nowMs: () => number,
): Promise<number> {
  const begin = nowMs();
  for (let i = 0; i < submits; i += 1) {
    await (plan.repeat === undefined ? repeatRuns(plan, repeats) : plan.repeat(repeats));
  }
  return nowMs() - begin;
}

async function repeatRuns(plan: Plan, times: number): Promise<void> {
  for (let i = 0; i < times; i += 1) {
    await plan.run();
  }
}

/** Written so that a NaN is not close. */
function isClose(got: number, value: number): boolean {
  return Math.abs(got - value) <= TOLERANCE * Math.max(1, Math.abs(value));
}

/** Median and half the distance between the quartiles, as a share of it. */
function summary(rates: readonly number[]): { readonly rate: number; readonly spread: number } {
  return { rate: median(rates), spread: spread(rates) };
}

export type StepOptions = Pick<LadderOptions, "nowMs" | "rounds" | "signal">;

/**
 * Tokens per second of whole training steps of the task (`task.ts`), the loss read back after each. Its first loss must be that
 * of a uniform guess and its second one smaller. Null when it was aborted.
 */
export async function measureStep(
  label: string,
  engine: Engine,
  { nowMs, rounds = 5, signal }: StepOptions,
): Promise<Reading | null> {
  using trainer = await createTrainer(engine, { model: STEP_MODEL, inner: STEP_INNER });
  trainer.load(initialParameters(STEP_MODEL));
  const rng = createRng("ladder", "step");
  const tokens = Uint32Array.from({ length: trainer.tokensPerStep }, () => rng.below(64));
  const targets = tokens.map((token) => (token + 1) % 64);
  const about = { work: "training step", rung: label };
  const [first, second] = [await trainer.step({ tokens, targets }), await trainer.step({ tokens, targets })];
  const uniform = Math.log(STEP_MODEL.vocabulary);
  if (!(Math.abs(first.loss - uniform) < 0.2 && second.loss < first.loss)) {
    const detail = `the losses are ${first.loss} and ${second.loss}, should begin at ${uniform.toFixed(2)} and fall`;
    return { ...about, type: "wrong", detail };
  }
  const rates: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    let [ms, steps] = [0, 0];
    while (ms < STEP_SAMPLE_MS) {
      if (signal?.aborted === true) {
        return null;
      }
      const begin = nowMs();
      await trainer.step({ tokens, targets });
      ms += nowMs() - begin;
      steps += 1;
    }
    rates.push((steps * trainer.tokensPerStep * 1_000) / ms);
  }
  return { ...about, type: "measured", ...summary(rates) };
}
