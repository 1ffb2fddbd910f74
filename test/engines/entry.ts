/**
 * What every platform's entry runs: the contract on the engine that was asked for, and what must hold of that engine
 * besides. The platform hands in its `GPU` object, or the WASM engine; the outcome is plain data.
 */
import type { Engine } from "../../src/tensor/engine.ts";
import { cases, rungs } from "./cases.ts";
import { CLAIMS, runCases, runClaims, type CaseResult } from "./run-cases.ts";

type EngineChoice = "webgpu" | "wasm";

export interface Report {
  /** The device in words. */
  readonly device: string;
  readonly results: readonly CaseResult[];
}

/** The marks around a report on standard output. */
export const REPORT = { begin: "<<<engine report ", end: " engine report>>>" } as const;

/** Names of everything that a report on WebGPU must hold. */
export function webGpuNames(checks: Readonly<Record<string, string>>): string[] {
  const ladder = rungs.flatMap(({ name, ops }) =>
    cases.filter(({ op }) => ops.some((wanted) => wanted === op)).map((one) => name + one.name),
  );
  return [...contractNames(), ...ladder, ...Object.values(checks)];
}

/** Names of everything that a report on any engine must hold. */
export function contractNames(): string[] {
  return [...cases.map(({ name }) => name), ...Object.values(CLAIMS)];
}

export async function reportWebGpu(gpu: GPU): Promise<Report> {
  const { createGpuEngine } = await import("../../src/gpu/engine.ts");
  const { runGpuChecks } = await import("./gpu-checks.ts");
  using engine = await createGpuEngine({ gpu });
  const results = [...(await runCases(engine)), ...(await runClaims(engine))];
  for (const { name, choice, ops } of rungs) {
    using rung = await createGpuEngine({ gpu, choice });
    results.push(...(await runCases(rung, { prefix: name, wanted: ({ op }) => ops.some((wanted) => wanted === op) })));
  }
  return { device: engine.device, results: [...results, ...(await runGpuChecks(gpu))] };
}

export async function reportEngine(engine: Engine): Promise<Report> {
  return { device: engine.device, results: [...(await runCases(engine)), ...(await runClaims(engine))] };
}

/** "engine=wasm" among command-line arguments or in a query string; WebGPU by default. */
export function engineChoice(words: readonly string[]): EngineChoice {
  return words.includes("engine=wasm") ? "wasm" : "webgpu";
}
