/**
 * The kernel ladder on this machine's adapter: `npm run bench:ladder [-- NAMES] [--json]`; NAMES are parts of the
 * names of works ("matmul", "matmul 512", "backward"), all by default. Every rung is checked and timed, interleaved
 * (`engines/ladder.ts`), and stands beside the multiply-add loop of the same adapter; then the tuner chooses within
 * its own budget, and its choice stands beside the fastest rung. In Node the adapter is Dawn's, on the Vulkan driver
 * that `VK_ICD_FILENAMES` names; Deno runs it as well (`deno run -A --unstable-webgpu --unstable-raw-imports
 * bench/ladder.ts`). Figures are medians; compare them only within one launch. --json prints a line for each rung and
 * each choice.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { climb, gpuRungs, type Reading, type Rung } from "../src/engines/ladder.ts";
import { attentionWork, matmulWork, type Work } from "../src/engines/works.ts";
import { createGpuEngine } from "../src/gpu/engine.ts";
import { measurePeak, type Peak } from "../src/gpu/peak.ts";
import { findAdapter } from "./contest/adapter.ts";

const MATMULS = [
  { m: 256, n: 256, k: 256 },
  { m: 512, n: 512, k: 512 },
  { m: 1024, n: 1024, k: 1024 },
  { m: 1024, n: 1536, k: 384 },
];
const ATTENTION_TIMES = [256, 512];
/** The naive kernels are there to be believed; at larger sizes one run takes seconds. */
const NAIVE_FLOPS_MAX = 2 * 256 ** 3;
const TUNE_MS_MAX = 2_000;
const ROUNDS = 5;

/** What the tuner takes for a work, and how fast that is beside the fastest rung. */
interface Choice {
  readonly work: string;
  readonly chosen: string;
  readonly best: string;
  /** Of the best rung's rate. */
  readonly share: number;
  readonly tuneMs: number;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "boolean", default: false } },
});
const { gpu, identity } = await findAdapter();
const peak = await measurePeak(gpu);
const works: readonly Work[] = [
  ...MATMULS.map(matmulWork),
  ...ATTENTION_TIMES.flatMap((time) => [attentionWork(time, "forward"), attentionWork(time, "backward")]),
].filter(({ name }) => positionals.length === 0 || positionals.some((part) => name.includes(part)));
const readings = await climbAll();
const choices: Choice[] = [];
for (const work of works.filter(({ family }) => family === "matmul")) {
  choices.push(await tunedChoice(work));
}
const text = values.json ? linesOf(readings, choices, peak) : tableOf(readings, choices, peak);
// Dawn keeps the process alive, so it has to be ended once the figures are out.
process.stdout.write(text, () => process.exit(0));

async function climbAll(): Promise<Reading[]> {
  using engine = await createGpuEngine({ gpu });
  const rungsFor = (work: Work): Rung[] =>
    gpuRungs(engine, work.family).filter(({ label }) => label !== "naive" || work.flops <= NAIVE_FLOPS_MAX);
  return await climb(works, rungsFor, { nowMs: () => performance.now(), rounds: ROUNDS });
}

/** Lets a fresh engine tune itself on `work` alone. */
async function tunedChoice(work: Work): Promise<Choice> {
  using engine = await createGpuEngine({ gpu, tuneMsMax: TUNE_MS_MAX });
  const begin = performance.now();
  using _ = await engine.compile(work.program);
  const tuneMs = Math.round(performance.now() - begin);
  const { rungs } = JSON.parse(engine.tuned ?? "{}") as {
    readonly rungs?: Readonly<Record<string, readonly string[]>>;
  };
  const chosen = Object.values(rungs ?? {})[0]?.[0] ?? "none";
  const rates = readings.flatMap((reading) =>
    reading.type === "measured" && reading.work === work.name ? [[reading.rung, reading.rate] as const] : [],
  );
  const [best, rate] = rates.toSorted((a, b) => b[1] - a[1])[0] ?? ["none", Infinity];
  const own = rates.find(([rung]) => rung === chosen)?.[1] ?? 0;
  return { work: work.name, chosen, best, share: own / rate, tuneMs };
}

function tableOf(all: readonly Reading[], chosen: readonly Choice[], { loopGflops, unrolledGflops }: Peak): string {
  const lines = [
    identity,
    `multiply-add loop ${loopGflops.toFixed(1)} GFLOP/s, unrolled ${unrolledGflops.toFixed(1)} GFLOP/s`,
  ];
  for (const { name } of works) {
    lines.push("", `${name.padEnd(28)} GFLOP/s  spread  of loop  of unrolled`);
    for (const reading of all.filter(({ work }) => work === name)) {
      const label = `  ${reading.rung}`.padEnd(28);
      if (reading.type === "measured") {
        const { rate, spread } = reading;
        const shares = [spread, rate / loopGflops, rate / unrolledGflops].map((share) => percent(share).padStart(7));
        lines.push(`${label} ${rate.toPrecision(3).padStart(7)} ${shares.join("  ")}`);
      } else {
        lines.push(`${label} ${reading.type}: ${reading.detail}`);
      }
    }
    for (const { chosen: rung, best, share, tuneMs } of chosen.filter(({ work }) => work === name)) {
      lines.push(`  the tuner took ${rung} in ${tuneMs} ms; fastest was ${best}: ${percent(share)} of it`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function linesOf(all: readonly Reading[], chosen: readonly Choice[], peakOf: Peak): string {
  const rungs = all.map((reading) =>
    reading.type === "measured" ? { ...reading, adapter: identity, ofLoop: reading.rate / peakOf.loopGflops } : reading,
  );
  return [{ adapter: identity, ...peakOf }, ...rungs, ...chosen].map((line) => `${JSON.stringify(line)}\n`).join("");
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}
