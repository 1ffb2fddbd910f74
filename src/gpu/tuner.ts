/**
 * Which rung of the ladder of matrix products is fastest on this adapter: no single kernel is, the best one for a GPU can
 * be five times slower than the best one for another. A few candidates run on the largest product of each form that a
 * Program has, interleaved, within a budget of time; the best run of each counts. The choice is a short text that an entry
 * point may keep and hand in again: it is void on another adapter. Numbers differ in the last bits between rungs, so a
 * choice may change results that little.
 */
import { elementCount, type OpOf, type Program } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { formOf, isForm, isRung, type MatmulForm, type MatmulRung } from "./matmul.ts";

/** The rung for each form of product; a form that is missing takes the engine's own guess. */
export type Tuning = Readonly<Partial<Record<MatmulForm, MatmulRung>>>;

/** Something that can be run and timed; a `GpuPlan` is one. */
export interface Timed {
  run(): Promise<unknown>;
  /** Resolves when nothing that was submitted is left to do. */
  idle(): Promise<void>;
  [Symbol.dispose](): void;
}

export interface TunerOptions {
  readonly candidates: readonly MatmulRung[];
  compile(program: Program, rung: MatmulRung): Promise<Timed>;
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

/** The fastest candidate for each form of product in `program`, the dearest forms first. */
export async function tune(program: Program, options: TunerOptions): Promise<Tuning> {
  const begin = options.nowMs();
  const tuning: Partial<Record<MatmulForm, MatmulRung>> = {};
  const products = largestProducts(program);
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
      r.matmul(r.input("a", shape(op.a)), r.input("b", shape(op.b)), { transA, transB });
      return { form, work: workOf(op), program: r.finish([]) };
    })
    .sort((a, b) => b.work - a.work);
}

async function fastestFor(
  program: Program,
  { candidates, compile, nowMs }: TunerOptions,
  untilMs: number,
): Promise<MatmulRung | undefined> {
  using stack = new DisposableStack();
  const tried: { readonly rung: MatmulRung; readonly plan: Timed; ms: number }[] = [];
  let runs = 1;
  const sample = async (plan: Timed): Promise<number> => {
    const begin = nowMs();
    for (let i = 0; i < runs; i += 1) {
      await plan.run();
    }
    await plan.idle();
    return nowMs() - begin;
  };
  for (const rung of candidates) {
    if (nowMs() >= untilMs) {
      break;
    }
    const plan = stack.use(await compile(program, rung));
    // The first run pays for what drivers put off until then.
    await sample(plan);
    while (tried.length === 0 && runs < RUNS_MAX && (await sample(plan)) < SAMPLE_MS) {
      runs *= 2;
    }
    tried.push({ rung, plan, ms: Infinity });
  }
  for (let round = 0; round < ROUNDS_MAX && (round === 0 || nowMs() < untilMs); round += 1) {
    const hopeless = HOPELESS * Math.min(...tried.map(({ ms }) => ms));
    for (const one of tried.filter(({ ms }) => ms <= hopeless)) {
      one.ms = Math.min(one.ms, await sample(one.plan));
    }
  }
  return tried.sort((a, b) => a.ms - b.ms)[0]?.rung;
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
