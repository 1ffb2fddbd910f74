/**
 * Which rungs of the kernel ladders are fastest on this adapter: no single kernel is, the best one for a GPU can be five times
 * slower than the best one for another. A few candidates run on the largest product of each form that a Program has, and
 * on its largest attention and the way back through it, interleaved, within a budget of time; the best run of each counts. A
 * candidate that does not compile, or whose numbers are not the first one's, is left out. The choice is a short text that an
 * entry point may keep and hand in again: it is void on another adapter. Numbers differ in the last bits between rungs, so
 * a choice may change results that little.
 */
import { assert, HeddleError } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import type { Outputs, Plan } from "../tensor/engine.ts";
import { elementCount, type HeadShape, type Op, type OpOf, type Program } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { ATTENTION_RUNGS, type AttentionRung } from "./attention.ts";
import type { Tuning } from "./kernels.ts";
import { formOf, isForm, isRung, type MatmulForm, type MatmulRung } from "./matmul.ts";
import { largestDifference } from "./self-test.ts";

/** What has a rung of its own. */
export type Subject = MatmulForm | "attention" | "attentionBackward";

export type AnyRung = MatmulRung | AttentionRung;

/** Something that can be run and timed; a `GpuPlan` is one. */
export interface Timed extends Pick<Plan, "write" | "run" | typeof Symbol.dispose> {
  /** What it runs; two rungs may come out as the same on a shape. */
  readonly kernels: readonly string[];
  /** Resolves when nothing that was submitted is left to do. */
  idle(): Promise<void>;
}

export interface TunerOptions {
  /** The first one is what would be taken without a search, the others follow in the order of hope. */
  candidates(subject: Subject): readonly AnyRung[];
  /** What needs no search. */
  readonly known?: ReadonlySet<Subject>;
  /** `tuning` has one entry. A HeddleError leaves this candidate out, as long as the device is `usable` afterwards. */
  compile(program: Program, tuning: Tuning): Promise<Timed>;
  usable(): boolean;
  /** All together, compiling included; a candidate that began is finished, and the dearest subject gets one at any rate. */
  readonly msMax: number;
  readonly nowMs: () => number;
}

/** A measurement is as many runs as take this long: a fence alone costs some browsers two milliseconds. */
const SAMPLE_MS = 10;
const RUNS_MAX = 64;
const ROUNDS_MAX = 5;
/** A candidate that took so many times what the fastest did is not tried again: the time is better spent on close ones. */
const HOPELESS = 1.5;
/** Largest difference from the first candidate's numbers, as a share of the largest; f32 kernels stay below 1e-5. */
const DIFFERENCE_MAX = 1e-3;
/** What is larger is cut to this: it is read back, and more of the same workgroups tell nothing new. */
const OUTPUT_ELEMENTS_MAX = 2 ** 22;
/** Random numbers before the inputs repeat themselves; a prime, so that no two rows or columns are alike. */
const PERIOD = 4093;

/** The fastest candidate for each subject in `program` that is not known, the dearest ones first. */
export async function tune(program: Program, options: TunerOptions): Promise<Tuning> {
  let tuning: Tuning = {};
  const trials = trialsOf(program).filter(({ subject }) => options.known?.has(subject) !== true);
  const begin = options.nowMs();
  for (const [i, trial] of trials.entries()) {
    const untilMs = begin + (options.msMax * (i + 1)) / trials.length;
    // The dearest is tried at any rate: a busy machine may need the time for getting here.
    const fastest = i > 0 && options.nowMs() >= untilMs ? undefined : await fastestFor(trial, options, untilMs);
    tuning = { ...tuning, ...fastest };
  }
  return tuning;
}

interface Trial {
  readonly subject: Subject;
  readonly work: number;
  /** The largest op of its kind, alone. */
  readonly program: Program;
}

function subjectOf(op: Op): Subject | undefined {
  switch (op.type) {
    case "matmul":
      return formOf(op);
    case "attention":
    case "attentionBackward":
      return op.type;
    default:
      return undefined;
  }
}

/** One Program for each subject, the dearest first. */
function trialsOf({ tensors, ops }: Program): Trial[] {
  const shape = (id: number): readonly number[] => tensors[id]?.shape ?? [];
  const largest = new Map<Subject, Trial>();
  for (const op of ops) {
    const subject = subjectOf(op);
    if (subject === undefined) {
      continue;
    }
    const trial =
      op.type === "matmul" ? productTrial(subject, op, shape) : attentionTrial(subject, op as HeadShape & Op);
    if ((largest.get(subject)?.work ?? 0) < trial.work) {
      largest.set(subject, trial);
    }
  }
  return [...largest.values()].sort((a, b) => b.work - a.work);
}

function productTrial(subject: Subject, op: OpOf<"matmul">, shape: (id: number) => readonly number[]): Trial {
  const r = record(`tuning ${subject}`);
  const { transA, transB } = op;
  const [m, n] = cut(shape(op.out));
  const k = shape(op.a)[transA ? 0 : 1] as number;
  r.matmul(r.input("a", transA ? [k, m] : [m, k]), r.input("b", transB ? [n, k] : [k, n]), { transA, transB });
  return { subject, work: elementCount(shape(op.out)) * k, program: r.finish(["product"]) };
}

/** Of the way back the inputs are made up as well: nothing that it computes depends on them being a forward's outputs. */
function attentionTrial(subject: Subject, op: HeadShape): Trial {
  const { heads, kvHeads, headDim } = op;
  let { batch, time } = op;
  while (batch * time * heads * headDim > OUTPUT_ELEMENTS_MAX && time > 1) {
    [batch, time] = batch > 1 ? [Math.floor(batch / 2), time] : [1, Math.floor(time / 2)];
  }
  const shape = { batch, time, heads, kvHeads, headDim };
  const r = record(`tuning ${subject}`);
  const [rows, keyRows] = [
    [batch * time, heads * headDim],
    [batch * time, kvHeads * headDim],
  ];
  const [q, k, v] = [r.input("q", rows), r.input("k", keyRows), r.input("v", keyRows)];
  // Every query sees half of the keys; the way back has five products for the forward's two.
  const work = op.batch * op.time ** 2 * heads * headDim * (subject === "attention" ? 1 : 2.5);
  if (subject === "attention") {
    r.attention(q, k, v, shape);
    return { subject, work, program: r.finish(["attended"]) };
  }
  const [out, dout, lse] = [r.input("out", rows), r.input("dout", rows), r.input("lse", [batch * heads * time])];
  const [dq, dk, dv] = [r.value("dq", rows), r.value("dk", keyRows), r.value("dv", keyRows)];
  const delta = r.value("delta", [batch * heads * time]);
  r.push({ type: "attentionBackward", q, k, v, out, lse, dout, delta, dq, dk, dv, ...shape });
  return { subject, work, program: r.finish(["dq", "dk", "dv"]) };
}

/** `shape` with its longer side halved until it is small enough; what a side leaves beyond a multiple of 4 stays. */
function cut(shape: readonly number[]): [number, number] {
  let [m, n] = shape as [number, number];
  const half = (length: number): number => Math.floor(length / 8) * 4 + (length % 4);
  while (m * n > OUTPUT_ELEMENTS_MAX) {
    [m, n] = m > n ? [half(m), n] : [m, half(n)];
  }
  return [m, n];
}

interface Candidate {
  readonly tuning: Tuning;
  readonly plan: Timed;
  ms: number;
}

async function fastestFor(
  { subject, program }: Trial,
  options: TunerOptions,
  untilMs: number,
): Promise<Tuning | undefined> {
  const { nowMs } = options;
  /** Those that may still be the fastest. */
  let close: Candidate[] = [];
  const keep = (isKept: (one: Candidate) => boolean): void => {
    for (const { plan } of close.filter((one) => !isKept(one))) {
      plan[Symbol.dispose]();
    }
    close = close.filter(isKept);
  };
  const keepClose = (): void => {
    const hopeless = HOPELESS * Math.min(...close.map(({ ms }) => ms));
    keep(({ ms }) => ms <= hopeless);
  };
  let runs = 1;
  const sample = async (plan: Timed): Promise<number> => {
    const begin = nowMs();
    for (let i = 0; i < runs; i += 1) {
      await plan.run();
    }
    await plan.idle();
    return nowMs() - begin;
  };
  const inputs = inputsOf(program);
  const tried = new Set<string>();
  let expected: Outputs<string> | undefined;
  try {
    for (const rung of options.candidates(subject)) {
      // One at least: drawing the inputs alone may take the time there is.
      if (expected !== undefined && nowMs() >= untilMs) {
        break;
      }
      const tuning = tuningFrom([[subject, rung]]);
      assert(tuning !== undefined, `Cannot tune ${subject}: "${rung}" is no rung of it`);
      const plan = await compileCandidate(program, tuning, options);
      if (plan === undefined) {
        continue;
      }
      const one = { tuning, plan, ms: Infinity };
      close.push(one);
      if (tried.has(plan.kernels.join())) {
        keep((other) => other !== one);
        continue;
      }
      tried.add(plan.kernels.join());
      for (const [name, values] of inputs) {
        plan.write(name, values);
      }
      // The first run pays for what drivers put off until then.
      const outputs = await plan.run(program.outputs);
      if (expected === undefined) {
        expected = outputs;
        while (runs < RUNS_MAX && (await sample(plan)) < SAMPLE_MS) {
          runs *= 2;
        }
      } else if (!isClose(outputs, expected)) {
        keep((other) => other !== one);
        continue;
      }
      one.ms = await sample(plan);
      keepClose();
    }
    for (let round = 1; round < ROUNDS_MAX && close.length > 1 && nowMs() < untilMs; round += 1) {
      for (const one of close) {
        one.ms = Math.min(one.ms, await sample(one.plan));
      }
      keepClose();
    }
    return close.toSorted((a, b) => a.ms - b.ms)[0]?.tuning;
  } finally {
    keep(() => false);
  }
}

/** Written so that a NaN is not close. */
function isClose(outputs: Outputs<string>, expected: Outputs<string>): boolean {
  return Object.entries(expected).every(
    ([name, values]) => largestDifference(outputs[name] ?? new Float32Array(), values) <= DIFFERENCE_MAX,
  );
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
    if (error instanceof HeddleError && usable()) {
      return undefined;
    }
    throw error;
  }
}

/** Numbers in [−0.5, 0.5) for each input, the same at every search. */
function inputsOf({ tensors }: Program): Map<string, Float32Array> {
  const rng = createRng("tuner");
  const block = Float32Array.from({ length: PERIOD }, () => rng.float() - 0.5);
  const inputs = tensors.filter(({ role }) => role === "input");
  return new Map(
    inputs.map(({ name, shape }, which) => {
      const values = new Float32Array(elementCount(shape));
      for (let i = 0; i < values.length; i += 1) {
        values[i] = block[(i + 7 * which) % PERIOD] as number;
      }
      return [name, values];
    }),
  );
}

/** What one engine knows of its kernels. */
export interface Tuner {
  /** Undefined before anything was found or given. */
  tuning(): Tuning | undefined;
  /** Searches for the subjects of `program` that nothing is known of, one search at a time and each subject once. */
  learn(program: Program): Promise<void>;
}

/** `search` finds the subjects of a Program that are not `known`; where it rejects the guess is taken, and kept by nobody. */
export function createTuner(
  given: Tuning | undefined,
  search: (program: Program, known: ReadonlySet<Subject>) => Promise<Tuning>,
): Tuner {
  let tuning = given;
  const known = new Set(Object.keys(given ?? {}) as Subject[]);
  let last: Promise<void> = Promise.resolve();
  const learn = async (program: Program): Promise<void> => {
    const subjects = program.ops.map(subjectOf).filter((subject) => subject !== undefined);
    if (subjects.every((subject) => known.has(subject))) {
      return;
    }
    // What fails for the device's sake fails again, with its reason, in the compile that follows.
    const found = await search(program, known).catch(() => undefined);
    tuning = found === undefined ? tuning : { ...tuning, ...found };
    for (const subject of subjects) {
      known.add(subject);
    }
  };
  return {
    tuning: () => tuning,
    learn: (program) => {
      last = last.then(() => learn(program));
      return last;
    },
  };
}

/** Of the texts that `exportTuning` writes; those of version 1 knew products only. */
const VERSION = 2;

/** `tuning` as a text to keep, for the adapter with this identity. */
export function exportTuning(tuning: Tuning, adapter: string): string {
  return JSON.stringify({ version: VERSION, adapter, rungs: tuning });
}

/** The tuning in `text`, or undefined if it is for another adapter or not one of ours: then tune anew. */
export function importTuning(text: string, adapter: string): Tuning | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    // A cache that was written by somebody else, or in part, is as good as none.
    return undefined;
  }
  const kept = (typeof parsed === "object" ? parsed : null) as Partial<Record<string, unknown>> | null;
  if (kept?.["version"] !== VERSION || kept["adapter"] !== adapter || typeof kept["rungs"] !== "object") {
    return undefined;
  }
  return tuningFrom(Object.entries(kept["rungs"] ?? {}));
}

/** Undefined if one of `entries` is no subject with a rung of its ladder. */
function tuningFrom(entries: readonly (readonly [string, unknown])[]): Tuning | undefined {
  const fits = ([subject, rung]: readonly [string, unknown]): boolean =>
    subject === "attention" || subject === "attentionBackward"
      ? ATTENTION_RUNGS.some((known) => known === rung)
      : isForm(subject) && isRung(rung);
  return entries.every(fits) ? (Object.fromEntries(entries) as Tuning) : undefined;
}
