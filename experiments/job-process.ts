/**
 * A process that does one run: it gets its job from its starter, tells each point, writes the record and ends. Killed at any
 * moment it leaves a journal behind, from which the next process for the same job goes on. It works at low priority: whoever
 * uses the machine meanwhile comes first.
 */
import { cpus, setPriority } from "node:os";
import process from "node:process";
import { HeddleError } from "../src/base/assert.ts";
import { createEngine } from "../src/engines/open.ts";
import type { WantedEngine } from "../src/engines/choose.ts";
import type { Engine } from "../src/tensor/engine.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import { runJob, type Job } from "./job.ts";
import { openJournal } from "./journal.ts";
import type { Point } from "./record.ts";
import { codeDigest, openResults } from "./results.ts";

/** The first message to this process. */
export interface JobOrder {
  readonly job: Job;
  readonly dir: string;
  readonly code: string;
  readonly engine: WantedEngine;
}

/** What it tells its starter. */
export type JobNews =
  | { readonly type: "point"; readonly point: Point }
  | { readonly type: "done"; readonly remembered: number }
  | { readonly type: "failed"; readonly reason: string };

const LOW_PRIORITY = 10;

process.on("disconnect", () => process.exit(1)); // the starter is gone
process.once("message", (order) => {
  void work(order as JobOrder).then(
    (news) => tell(news, () => process.exit(0)),
    (error: unknown) => {
      const reason =
        error instanceof Error
          ? error.name === "BrokenRun" || error instanceof HeddleError
            ? error.message
            : (error.stack ?? "")
          : String(error);
      tell({ type: "failed", reason }, () => process.exit(1));
    },
  );
});

function tell(news: JobNews, then: () => void = () => undefined): void {
  process.send?.(news, then);
}

async function work({ job, dir, code, engine: wanted }: JobOrder): Promise<JobNews> {
  setPriority(LOW_PRIORITY);
  if (codeDigest() !== code) {
    throw new HeddleError("bad-input", "The sources have changed since the command began; start it again");
  }
  const results = openResults(dir);
  const journal = openJournal(results.journalDir(job, code));
  const engine = await openEngine(wanted);
  const { device } = engine;
  const beganMs = performance.now();
  const record = await runJob(job, { engine, journal, onPoint: (point) => tell({ type: "point", point }) });
  const { remembered } = journal;
  const used = process.resourceUsage();
  const processorS = (used.userCPUTime + used.systemCPUTime) / 1e6;
  results.write(record, {
    engine: device,
    processorS: round(processorS),
    wallS: round((performance.now() - beganMs) / 1_000),
    memoryBytes: used.maxRSS * 1_024,
    remembered,
    node: process.version,
    processor: cpus()[0]?.model ?? "unknown",
    code,
  });
  journal.close({ remove: true });
  return { type: "done", remembered };
}

/** One thread: as many runs at a time as there are cores use the machine better than one run with all of them. */
async function openEngine(wanted: WantedEngine): Promise<Engine> {
  return wanted === "wasm"
    ? createWasmEngine({ threads: 1 })
    : createEngine({ wanted, gpu: await dawnGpu(), wasmOptions: { threads: 1 } });
}

/** Dawn's instance must stay referenced: once it is collected the process crashes. */
let dawn: GPU | null = null;

async function dawnGpu(): Promise<GPU | null> {
  const found = await import("webgpu").catch(() => null);
  if (found !== null && dawn === null) {
    Object.assign(globalThis, found.globals);
    dawn = found.create([]);
  }
  return dawn;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
