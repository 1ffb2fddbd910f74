/**
 * What every platform's entry runs: the contract on the engine that was asked for, what must hold of that engine besides,
 * and a run of training whose losses are compared between platforms. The outcome is plain data.
 */
import { present } from "../../src/base/assert.ts";
import type { Engine } from "../../src/tensor/engine.ts";
import { createWasmEngine, type WasmEngineOptions } from "../../src/wasm/engine.ts";
import { cases } from "./cases.ts";
import { guardAdapter } from "./guard.ts";
import { CLAIMS, attempt, runCases, runClaims, type CaseResult } from "./run-cases.ts";
import { HALVES, rungs, type Rung } from "./rungs.ts";
import { trace, TRACES, type Trace, type TraceName } from "./trace.ts";
import { GOLDEN, GOLDEN_FUSED, trainDigest } from "./train-digest.ts";

export type EngineName = "webgpu" | "wasm";

export interface Report {
  /** The device in words. */
  readonly device: string;
  readonly results: readonly CaseResult[];
  /** The losses of the run of training, and a digest of all that came of it; one for each number of threads. */
  readonly traces: readonly Trace[];
  /** The same run with values kept as f16, where that was asked for. */
  readonly halves?: Trace;
  /** On WASM: the same run on the fused engine. */
  readonly fused?: Trace;
}

/** Hears the name of what begins, so that a host that hangs can be asked where. */
export type Begin = (name: string) => void;

/** What an entry prints: a report for each engine that it was asked for. */
export type Reports = Readonly<Partial<Record<EngineName, Report>>>;

/** The words of an entry's command line, or of a page's query. */
export interface Wanted {
  readonly engines: readonly EngineName[];
  /** Instead of everything, only the run of training with this name. */
  readonly only?: TraceName;
  /** Which rungs of the kernels' ladders WebGPU runs besides: a regular expression for their names. Without it none. */
  readonly rungs?: string;
  /** Only the cases, claims and checks on WebGPU whose names match; a regular expression. Without it everything. */
  readonly cases?: string;
}

/** The marks around the reports on standard output. */
export const REPORT = { begin: "<<<engine report ", end: " engine report>>>" } as const;

/** Threads of the WASM engines; the first has the whole contract to fulfil. */
const THREADS = [2, 1] as const;
const GOLDEN_CLAIMS = THREADS.map((threads) => `twenty steps with ${threads} threads end in the golden bits`);
const FUSED_CLAIM = "twenty steps end in the golden bits of machines that fuse";

/** Names of everything that a report on WebGPU must hold. */
export function webGpuNames(
  checks: Readonly<Record<string, string>>,
  wanted: Pick<Wanted, "rungs" | "cases">,
): string[] {
  const some = like(wanted.cases);
  const ladder = rungsLike(wanted.rungs).flatMap((rung) => rung.cases.filter(some).map(({ name }) => rung.name + name));
  const among = (names: readonly string[]): string[] => names.filter((name) => some({ name }));
  return [...among(contractNames()), ...ladder, ...among(Object.values(checks))];
}

/** Whether a name matches; without a pattern all do. */
function like(pattern = ""): (one: { readonly name: string }) => boolean {
  const expression = new RegExp(pattern);
  return ({ name }) => expression.test(name);
}

/** Whether a stack that runs rungs of this pattern trains with values kept as f16, too. */
export function trainsHalves(pattern: string | undefined): boolean {
  return rungsLike(pattern).some(({ name }) => name === HALVES);
}

function rungsLike(pattern: string | undefined): readonly Rung[] {
  return pattern === undefined ? [] : rungs.filter(like(pattern));
}

/** Names of everything that a report on WASM must hold. */
export function wasmNames(): string[] {
  return [...contractNames(), ...GOLDEN_CLAIMS, FUSED_CLAIM];
}

function contractNames(): string[] {
  return [...cases.map(({ name }) => name), ...Object.values(CLAIMS)];
}

/** "webgpu", "wasm", "only=NAME", "rungs=PATTERN" and "cases=PATTERN" among command-line arguments. */
export function wantedIn(words: readonly string[]): Wanted {
  const valueOf = (name: string): string | undefined =>
    words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1);
  const [only, rungs, cases] = [valueOf("only"), valueOf("rungs"), valueOf("cases")];
  return {
    engines: (["webgpu", "wasm"] as const).filter((name) => words.includes(name)),
    ...(only === undefined ? {} : { only: only as TraceName }),
    ...(rungs === undefined ? {} : { rungs }),
    ...(cases === undefined ? {} : { cases }),
  };
}

/** The same as words. */
export function wordsOf({ engines, only, rungs, cases }: Wanted): string[] {
  const pair = (name: string, value: string | undefined): string[] => (value === undefined ? [] : [`${name}=${value}`]);
  return [...engines, ...pair("only", only), ...pair("rungs", rungs), ...pair("cases", cases)];
}

/** Runs everything on a platform; `openGpu` gives its WebGPU. `begin` hears the name of whatever begins. */
export async function report(wanted: Wanted, openGpu: () => GPU, begin: Begin): Promise<Reports> {
  const { engines, only } = wanted;
  const reports: Partial<Record<EngineName, Report>> = {};
  if (engines.includes("webgpu")) {
    begin("WebGPU");
    reports.webgpu = await reportWebGpu(openGpu(), wanted, begin);
  }
  if (engines.includes("wasm")) {
    begin("WASM");
    reports.wasm = await reportWasm(only, begin);
  }
  begin("nothing more");
  return reports;
}

async function reportWebGpu(gpu: GPU, { only, rungs: pattern, cases: some }: Wanted, begin: Begin): Promise<Report> {
  const { createGpuEngine } = await import("../../src/gpu/engine.ts");
  const { runGpuChecks } = await import("./gpu-checks.ts");
  using engine = await createGpuEngine({ gpu });
  if (only !== undefined) {
    return { device: engine.device, results: [], traces: [await trace(engine, TRACES[only])] };
  }
  const results = await runGuarded(gpu, {}, begin, async (guarded, watch) => [
    ...(await runCases(guarded, { begin: watch, wanted: like(some) })),
    ...(await runClaims(guarded, like(some))),
  ]);
  for (const { name, choice, cases: among } of rungsLike(pattern)) {
    const run = (guarded: Engine, watch: Begin): Promise<CaseResult[]> =>
      runCases(guarded, { prefix: name, among, wanted: like(some), begin: watch });
    results.push(...(await runGuarded(gpu, choice, begin, run)));
  }
  begin("the GPU's checks");
  results.push(...(await runGpuChecks(gpu, like(some))));
  begin("a run of training");
  const report = { device: engine.device, results, traces: [await trace(engine, TRACES.brief)] };
  if (!trainsHalves(pattern)) {
    return report;
  }
  using halves = await createGpuEngine({ gpu, choice: { storage: "f16" } });
  return { ...report, halves: await trace(halves, TRACES.brief) };
}

/** Runs cases on an engine whose memory is guarded; a case with a kernel that wrote beyond its tensors has failed. */
async function runGuarded(
  gpu: GPU,
  choice: object,
  begin: Begin,
  run: (engine: Engine, watch: Begin) => Promise<CaseResult[]>,
): Promise<CaseResult[]> {
  const { createGpuEngine, probeGpu } = await import("../../src/gpu/engine.ts");
  const guard = guardAdapter(present(await probeGpu(gpu), "adapter").adapter);
  using engine = await createGpuEngine({ gpu, adapter: guard.adapter, choice });
  const results = await run(engine, (name) => {
    begin(name);
    guard.watch(name);
  });
  const faults = await guard.finish();
  return results.map((result) => {
    const fault = faults.get(result.name);
    return fault === undefined ? result : { ...result, passed: false, detail: `${fault}; ${result.detail}` };
  });
}

async function reportWasm(only: TraceName | undefined, begin: Begin): Promise<Report> {
  const results: CaseResult[] = [];
  const traces: Trace[] = [];
  const devices: string[] = [];
  for (const [i, threads] of THREADS.entries()) {
    using engine = await createWasmEngine({ threads });
    devices.push(engine.device);
    if (only === undefined) {
      results.push(...(i === 0 ? [...(await runCases(engine, { begin })), ...(await runClaims(engine))] : []));
      begin(GOLDEN_CLAIMS[i] as string);
      results.push(await attempt(GOLDEN_CLAIMS[i] as string, checkGolden({ threads })));
    }
    begin(`a run of training with ${threads} threads`);
    using fresh = await createWasmEngine({ threads });
    traces.push(await trace(fresh, TRACES[only ?? "brief"]));
  }
  if (only === undefined) {
    begin(FUSED_CLAIM);
    results.push(await attempt(FUSED_CLAIM, checkGolden({ fused: true })));
  }
  begin("a run of training, fused");
  using engine = await createWasmEngine({ fused: true });
  return { device: devices.join("; "), results, traces, fused: await trace(engine, TRACES[only ?? "brief"]) };
}

function checkGolden(options: WasmEngineOptions): () => Promise<string> {
  return async () => {
    using engine = await createWasmEngine(options);
    const { digest } = await trainDigest(engine);
    // Where the processor does not fuse, the fused engine has the bits of the exact one.
    const golden = engine.device.includes("fused") ? GOLDEN_FUSED : GOLDEN;
    if (digest !== golden) {
      throw new Error(`${engine.device}: got ${digest}, need ${golden}`);
    }
    return digest;
  };
}
