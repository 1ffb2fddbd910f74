/**
 * Runs the contract (`cases.ts`) on an engine: every case against the twin, and two claims about replaying. It returns
 * what it found as data and throws nothing, so that an entry of any platform can print it as JSON.
 */
import { HeddleError } from "../../src/base/assert.ts";
import type { Engine } from "../../src/tensor/engine.ts";
import { tensorNamed, type Program } from "../../src/tensor/program.ts";
import { createTwin } from "../../src/tensor/twin.ts";
import { cases, type Case, type Setup, type Values } from "./cases.ts";

export interface CaseResult {
  readonly name: string;
  readonly passed: boolean;
  /** The outcome in words: the worst tensor and its errors, or what was thrown. */
  readonly detail: string;
  readonly milliseconds: number;
}

/** Names of the claims that `runCases` checks beyond the cases. */
export const CLAIMS = {
  sameBits: "training twice from the same beginning gives the same bits",
  sharedState: "plans share states by name, and a state is zero until written",
} as const;

/** Every case of `among` that `wanted` lets through. `prefix` tells runs with other kernels apart; `begin` hears each name. */
export async function runCases(
  engine: Engine,
  {
    wanted = () => true,
    among = cases,
    prefix = "",
    begin = () => undefined,
  }: {
    wanted?: (one: Case) => boolean;
    among?: readonly Case[];
    prefix?: string;
    begin?: (name: string) => void;
  } = {},
): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const one of among.filter(wanted)) {
    begin(prefix + one.name);
    results.push(await attempt(prefix + one.name, () => compare(engine, one)));
  }
  return results;
}

/** What must hold of every engine beyond its numbers, as far as `wanted` lets it through. */
export async function runClaims(
  engine: Engine,
  wanted: (one: { readonly name: string }) => boolean = () => true,
): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const [name, check] of [
    [CLAIMS.sameBits, checkSameBits],
    [CLAIMS.sharedState, checkSharedState],
  ] as const) {
    if (wanted({ name })) {
      results.push(await attempt(name, () => check(engine)));
    }
  }
  return results;
}

/** Runs `check`, which returns a detail and throws when the claim does not hold. */
export async function attempt(name: string, check: () => Promise<string>): Promise<CaseResult> {
  const start = performance.now();
  const spent = (): number => Math.round(performance.now() - start);
  try {
    const detail = await check();
    return { name, passed: true, detail, milliseconds: spent() };
  } catch (error) {
    const detail = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return { name, passed: false, detail, milliseconds: spent() };
  }
}

/** The message of the HeddleError with `code` that `work` must reject with. */
export async function expectCode(code: string, work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof HeddleError && error.code === code) {
      return error.message;
    }
    throw error;
  }
  throw new Error(`Nothing was thrown; need HeddleError "${code}"`);
}

/** Runs one case; returns the worst difference in words and throws if it is too large. */
export async function compare(
  engine: Engine,
  { setup, tolerance, floor = 0, nmseMax = nmseFor(tolerance) }: Case,
): Promise<string> {
  const built = isolated(setup());
  using twin = createTwin();
  const expected = await execute(twin, built);
  const got = await execute(engine, built);
  let worst = { name: "", share: -1, nmse: 0 };
  let nmse = 0;
  for (const [name, values] of expected) {
    const error = errorOf(got.get(name) ?? new Float32Array(), values, floor);
    // Written so that a NaN is worse than everything.
    if (!(error.share <= worst.share)) {
      worst = { name, ...error };
    }
    nmse = error.nmse <= nmse ? nmse : error.nmse;
  }
  const detail = `"${worst.name}" differs by ${worst.share.toExponential(1)} of its largest element, worst NMSE ${nmse.toExponential(1)}`;
  if (!(worst.share <= tolerance && nmse <= nmseMax)) {
    throw new Error(`${detail}; allowed are ${tolerance} and ${nmseMax.toExponential(1)}`);
  }
  return detail;
}

/**
 * The largest NMSE for a tolerance: the error's root mean square may be a third of the tolerance, where the tensor's root mean
 * square stands for its largest element. 1e-11 for ops and 1e-9 for training; measured are up to 9e-13 (one exponential)
 * and 5e-12. ggml's test-backend-ops allows 1e-7, and 5e-4 for products and attention, because of f16.
 */
function nmseFor(tolerance: number): number {
  return tolerance ** 2 / 10;
}

/**
 * Largest |a − b| / largest |b| (or `floor`, if that is larger), and Σ(a − b)² / Σb² (or floor²). Elements that `a` lacks make
 * them NaN.
 */
export function errorOf(a: Float32Array, b: Float32Array, floor = 0): { share: number; nmse: number } {
  let [difference, largest, squares, power] = [0, floor, 0, 0];
  for (let i = 0; i < b.length; i += 1) {
    const [x, y] = [a[i] ?? Number.NaN, b[i] as number];
    difference = Math.max(difference, Math.abs(x - y));
    largest = Math.max(largest, Math.abs(y));
    squares += (x - y) ** 2;
    power += y ** 2;
  }
  power = Math.max(power, floor ** 2);
  return { share: largest === 0 ? difference : difference / largest, nmse: power === 0 ? squares : squares / power };
}

/** Runs a setup and returns its outputs by name. */
export async function execute(engine: Engine, setup: Setup): Promise<Map<string, Float32Array>> {
  using plan = await engine.compile(setup.program);
  for (const tensor of setup.program.tensors) {
    if (tensor.role === "state" && tensor.view === undefined) {
      engine.writeState(tensor.name, setup.states[tensor.name] ?? new Float32Array(tensor.shape[0] as number));
    }
  }
  for (let step = 1; step <= setup.steps; step += 1) {
    for (const [name, values] of Object.entries(setup.inputs(step))) {
      plan.write(name, values);
    }
    const outputs = await plan.run(step === setup.steps ? setup.program.outputs : []);
    if (step === setup.steps) {
      const isWords = (name: string): boolean => tensorNamed(setup.program, name).dtype === "u32";
      return new Map(Object.entries(outputs).map(([name, values]) => [name, isWords(name) ? halves(values) : values]));
    }
  }
  return new Map();
}

/** The bits of words as numbers that a float holds exactly. */
function halves(words: Float32Array): Float32Array {
  return Float32Array.from(new Uint16Array(words.buffer, words.byteOffset, words.length * 2));
}

let isolations = 0;

/** The setup with states of names of its own, since an engine keeps a state's size for as long as it lives. */
export function isolated(setup: Setup): Setup {
  isolations += 1;
  const rename = (name: string): string => `${name}@${isolations}`;
  const isBase = (name: string): boolean =>
    setup.program.tensors.some((tensor) => tensor.name === name && tensor.role === "state");
  const program: Program = {
    ...setup.program,
    tensors: setup.program.tensors.map((tensor) =>
      tensor.role === "state" ? { ...tensor, name: rename(tensor.name) } : tensor,
    ),
    outputs: setup.program.outputs.map((name) => (isBase(name) ? rename(name) : name)),
  };
  const states = Object.fromEntries(Object.entries(setup.states).map(([name, values]) => [rename(name), values]));
  return { ...setup, program, states };
}

async function checkSameBits(engine: Engine): Promise<string> {
  const model = cases.find(({ op }) => op === "model");
  if (model === undefined) {
    throw new Error("There is no case of a whole model");
  }
  const setup = isolated(model.setup());
  const [first, second] = [await execute(engine, setup), await execute(engine, setup)];
  for (const [name, values] of first) {
    const [a, b] = [bitsOf(values), bitsOf(second.get(name) ?? new Float32Array())];
    const at = a.findIndex((bits, i) => bits !== b[i]);
    if (at !== -1 || a.length !== b.length) {
      throw new Error(`"${name}" differs at element ${at}`);
    }
  }
  return `${first.size} tensors`;
}

async function checkSharedState(engine: Engine): Promise<string> {
  const setup = isolated((cases.find(({ name }) => name.startsWith("matmul in place")) as Case).setup());
  using first = await engine.compile(setup.program);
  const name = setup.program.tensors.find(({ role }) => role === "state")?.name ?? "";
  const before = await engine.readState(name);
  if (before.some((value) => value !== 0)) {
    throw new Error("A new state is not zero");
  }
  using second = await engine.compile(setup.program);
  engine.writeState(name, setup.states[name] as Float32Array);
  const b: Values = setup.inputs(1)["b"] as Values;
  first.write("b", b);
  second.write("b", b);
  await first.run();
  const seen = (await second.run([name]))[name] ?? new Float32Array();
  const expected = new Float32Array((await execute(createTwin(), setup)).get(name) ?? []);
  const error = errorOf(seen, expected);
  if (!(error.share <= 1e-5)) {
    throw new Error(`Two plans did not add up: off by ${error.share}`);
  }
  return `${tensorNamed(setup.program, name).shape[0]} elements`;
}

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}
