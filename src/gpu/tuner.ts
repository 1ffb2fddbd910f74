/**
 * Which rung of the ladder of matrix products is fastest on this adapter: no single kernel is, the best one for a GPU can
 * be five times slower than the best one for another. A few candidates run on the largest product of each form that a
 * Program has, interleaved, within a budget of time; the best run of each counts. A candidate that does not compile, or
 * whose numbers are not the first one's, is left out. The choice is a short text that an entry point may keep and hand in
 * again: it is void on another adapter. Numbers differ in the last bits between rungs, so a choice may change results that
 * little.
 */
import { HeddleError } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import type { Plan } from "../tensor/engine.ts";
import { elementCount, type OpOf, type Program } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { formOf, isForm, isRung, type MatmulForm, type MatmulRung } from "./matmul.ts";
import { largestDifference } from "./self-test.ts";

/** The rung for each form of product; a form that is missing takes the engine's own guess. */
export type Tuning = Readonly<Partial<Record<MatmulForm, MatmulRung>>>;

/** Something that can be run and timed; a `GpuPlan` is one. */
export interface Timed extends Pick<Plan, "write" | "run" | typeof Symbol.dispose> {
  /** Resolves when nothing that was submitted is left to do. */
  idle(): Promise<void>;
}

export interface TunerOptions {
  /** The first one is what would be taken without a search. */
  readonly candidates: readonly MatmulRung[];
  /** Forms that need no search. */
  readonly known?: ReadonlySet<MatmulForm>;
  /** A HeddleError of it leaves this candidate out, as long as the device is `usable` afterwards. */
  compile(program: Program, rung: MatmulRung): Promise<Timed>;
  usable(): boolean;
  /** All together, compiling included; a candidate that began is finished. */
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
/** A larger product is cut to this: it is read back, and more of the same workgroups tell nothing new. */
const PRODUCT_ELEMENTS_MAX = 2 ** 22;
/** Random numbers before the inputs repeat themselves; a prime, so that no two rows or columns are alike. */
const PERIOD = 4093;

/** The fastest candidate for each form of product in `program` that is not known, the dearest forms first. */
export async function tune(program: Program, options: TunerOptions): Promise<Tuning> {
  const tuning: Partial<Record<MatmulForm, MatmulRung>> = {};
  const products = largestProducts(program).filter(({ form }) => options.known?.has(form) !== true);
  const begin = options.nowMs();
  for (const [i, product] of products.entries()) {
    const untilMs = begin + (options.msMax * (i + 1)) / products.length;
    const fastest = await fastestFor(product.program, options, untilMs);
    if (fastest !== undefined) {
      tuning[product.form] = fastest;
    }
  }
  return tuning;
}

interface Product {
  readonly form: MatmulForm;
  readonly work: number;
  readonly program: Program;
}

/** One Program for each form of product: its largest one, alone. */
function largestProducts({ tensors, ops }: Program): Product[] {
  const shape = (id: number): readonly number[] => tensors[id]?.shape ?? [];
  const workOf = ({ a, transA, out }: OpOf<"matmul">): number =>
    elementCount(shape(out)) * (shape(a)[transA ? 0 : 1] ?? 0);
  const largest = new Map<MatmulForm, OpOf<"matmul">>();
  for (const op of ops.filter(({ type }) => type === "matmul") as OpOf<"matmul">[]) {
    const known = largest.get(formOf(op));
    if (known === undefined || workOf(known) < workOf(op)) {
      largest.set(formOf(op), op);
    }
  }
  return [...largest]
    .map(([form, op]) => {
      const r = record(`tuning ${form}`);
      const { transA, transB } = op;
      const [m, n] = cut(shape(op.out));
      const k = shape(op.a)[transA ? 0 : 1] as number;
      r.matmul(r.input("a", transA ? [k, m] : [m, k]), r.input("b", transB ? [n, k] : [k, n]), { transA, transB });
      return { form, work: workOf(op), program: r.finish(["product"]) };
    })
    .sort((a, b) => b.work - a.work);
}

/** `shape` with its longer side halved until it is small enough; what a side leaves beyond a multiple of 4 stays. */
function cut(shape: readonly number[]): [number, number] {
  let [m, n] = shape as [number, number];
  const half = (length: number): number => Math.floor(length / 8) * 4 + (length % 4);
  while (m * n > PRODUCT_ELEMENTS_MAX) {
    [m, n] = m > n ? [half(m), n] : [m, half(n)];
  }
  return [m, n];
}

interface Candidate {
  readonly rung: MatmulRung;
  readonly plan: Timed;
  ms: number;
}

async function fastestFor(program: Program, options: TunerOptions, untilMs: number): Promise<MatmulRung | undefined> {
  const { candidates, nowMs } = options;
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
  if (nowMs() >= untilMs) {
    return undefined;
  }
  const inputs = inputsOf(program);
  let expected: Float32Array | undefined;
  try {
    for (const rung of candidates) {
      // One at least: drawing the inputs alone may take the time there is.
      if (expected !== undefined && nowMs() >= untilMs) {
        break;
      }
      const plan = await compileCandidate(program, rung, options);
      if (plan === undefined) {
        continue;
      }
      const one = { rung, plan, ms: Infinity };
      close.push(one);
      for (const [name, values] of inputs) {
        plan.write(name, values);
      }
      // The first run pays for what drivers put off until then.
      const { product } = await plan.run(["product"]);
      if (expected === undefined) {
        expected = product;
        while (runs < RUNS_MAX && (await sample(plan)) < SAMPLE_MS) {
          runs *= 2;
        }
      } else if (!(largestDifference(product, expected) <= DIFFERENCE_MAX)) {
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
    return close.toSorted((a, b) => a.ms - b.ms)[0]?.rung;
  } finally {
    keep(() => false);
  }
}

/** Undefined for a candidate that the device refuses. */
async function compileCandidate(
  program: Program,
  rung: MatmulRung,
  { compile, usable }: TunerOptions,
): Promise<Timed | undefined> {
  try {
    return await compile(program, rung);
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

/** What one engine knows of its products. */
export interface Tuner {
  /** Undefined before anything was found or given. */
  tuning(): Tuning | undefined;
  /** Searches for the forms of `program` that nothing is known of, one search at a time and each form once. */
  learn(program: Program): Promise<void>;
}

/** `search` finds the forms of a Program that are not `known`; where it rejects the guess is taken, and kept by nobody. */
export function createTuner(
  given: Tuning | undefined,
  search: (program: Program, known: ReadonlySet<MatmulForm>) => Promise<Tuning>,
): Tuner {
  let tuning = given;
  const known = new Set(Object.keys(given ?? {}) as MatmulForm[]);
  let last: Promise<void> = Promise.resolve();
  const learn = async (program: Program): Promise<void> => {
    const products = program.ops.filter(({ type }) => type === "matmul") as OpOf<"matmul">[];
    const forms = products.map(formOf);
    if (forms.every((form) => known.has(form))) {
      return;
    }
    // What fails for the device's sake fails again, with its reason, in the compile that follows.
    const found = await search(program, known).catch(() => undefined);
    tuning = found === undefined ? tuning : { ...tuning, ...found };
    for (const form of forms) {
      known.add(form);
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

/** `tuning` as a text to keep, for the adapter with this identity. */
export function exportTuning(tuning: Tuning, adapter: string): string {
  return JSON.stringify({ version: 1, adapter, matmul: tuning });
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
  if (kept?.["version"] !== 1 || kept["adapter"] !== adapter || typeof kept["matmul"] !== "object") {
    return undefined;
  }
  const entries = Object.entries(kept["matmul"] ?? {});
  return entries.every(([form, rung]) => isForm(form) && isRung(rung))
    ? (Object.fromEntries(entries) as Tuning)
    : undefined;
}
