/**
 * `npm run experiment -- NAME`: runs a named experiment, every arm with every seed in a process of its own and as many at a
 * time as there are cores, keeps what is finished, and writes `results.json`, `table.md` and `loss.svg` beside it. Stopped
 * at any moment it goes on where it was when it is started again.
 */
import { fork, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { endingOf } from "../src/base/assert.ts";
import { parameterLayout } from "../src/model/layout.ts";
import { EXPERIMENTS } from "./catalogue.ts";
import { EXPERIMENT_USAGE, parseExperimentConfig, type ExperimentConfig } from "./config.ts";
import { experimentS, processorSOf } from "./estimate.ts";
import type { Experiment } from "./experiment.ts";
import type { JobNews, JobOrder } from "./job-process.ts";
import type { Job } from "./job.ts";
import { plotOf } from "./plot.ts";
import { createProgress, type Progress } from "./progress.ts";
import type { Point, RunRecord } from "./record.ts";
import { codeDigest, openResults, recordText, writeWhole, type Results } from "./results.ts";
import { summarise } from "./summary.ts";
import { tableOf } from "./table.ts";
import { short } from "./units.ts";

function listText(): string {
  return EXPERIMENTS.map((experiment) => {
    const { name, question, seeds, arms } = experiment;
    const [first] = arms;
    const parameters = first === undefined ? 0 : parameterLayout(first.charter.model).size;
    return [
      `${name}: ${question}`,
      `  ${parameters.toLocaleString("en")} parameters, seeds ${seeds.join(", ")}, about ${short(experimentS(experiment) / 3_600)} processor hours`,
      ...arms.map(({ name: arm, sentence }) => `    ${arm}: ${sentence}`),
    ].join("\n");
  }).join("\n\n");
}

function jobsOf({ name, arms, seeds }: Experiment): Job[] {
  // Seed after seed, so that an experiment that is stopped early has whole comparisons.
  return seeds.flatMap((seed) => arms.map((arm) => ({ experiment: name, arm, seed })));
}

function runName({ experiment, arm, seed }: Job): string {
  return `${experiment} ${arm.name}/${seed}`;
}

interface Stage {
  readonly config: ExperimentConfig;
  readonly results: Results;
  readonly progress: Progress;
  readonly code: string;
  /** Processes at work. */
  readonly children: Set<ChildProcess>;
}

/** Runs what is not finished; resolves with what went wrong. */
async function runAll(jobs: readonly Job[], stage: Stage): Promise<string[]> {
  const { config, results, progress } = stage;
  const failures: string[] = [];
  const waiting: Job[] = [];
  for (const job of jobs) {
    if (results.read(job) === undefined) {
      waiting.push(job);
    } else {
      progress.note(runName(job), 1, "was finished before");
    }
  }
  const worker = async (): Promise<void> => {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
      const failure = await runOne(job, stage);
      if (failure !== null) {
        failures.push(`${runName(job)}: ${failure}`);
      }
    }
  };
  await Promise.all(Array.from({ length: config.jobs }, worker));
  progress.end();
  return failures;
}

/** Null when the run's record is written, else why not. */
function runOne(job: Job, { config, progress, code, children }: Stage): Promise<string | null> {
  const child = fork(join(import.meta.dirname, "job-process.ts"));
  children.add(child);
  const order: JobOrder = { job, dir: config.dir, code, engine: config.engine };
  child.send(order);
  return new Promise((resolve) => {
    let [outcome, latest]: [string | null, string] = ["its process ended early", ""];
    child.on("message", (message) => {
      const news = message as JobNews;
      if (news.type === "point") {
        latest = `version ${news.point.version}, loss ${news.point.loss.toFixed(3)}`;
        progress.note(runName(job), Math.min(0.99, shareOf(job, news.point)), latest);
      } else {
        outcome = news.type === "done" ? null : news.reason;
      }
    });
    child.once("exit", () => {
      children.delete(child);
      if (outcome === null) {
        progress.note(runName(job), 1, latest);
      }
      resolve(outcome);
    });
  });
}

function shareOf({ arm }: Job, { version, tokens }: Point): number {
  return Math.max(version / arm.rounds, arm.tokensMax === null ? 0 : tokens / arm.tokensMax);
}

function report(experiment: Experiment, results: Results): string {
  const records = jobsOf(experiment)
    .map((job) => results.read(job))
    .filter((record) => record !== undefined);
  if (records.length === 0) {
    return `${experiment.name}: no run is finished yet.\n`;
  }
  const table = tableOf(experiment, summarise(experiment, records)) + codeNote(experiment, results);
  writeWhole(results.pathOf(experiment.name, "results.json"), resultsText(records));
  writeWhole(results.pathOf(experiment.name, "table.md"), table);
  writeWhole(results.pathOf(experiment.name, "loss.svg"), plotOf(experiment, records));
  return `${table}\nWritten: ${["results.json", "table.md", "loss.svg"].map((file) => results.pathOf(experiment.name, file)).join(", ")}\n`;
}

/** A sentence where the runs are not all of the same sources. */
function codeNote(experiment: Experiment, results: Results): string {
  const codes = new Set(jobsOf(experiment).flatMap((job) => results.readHost(job)?.code ?? []));
  return codes.size < 2
    ? ""
    : `These runs are of ${codes.size} states of the sources; --fresh begins again with those of now.\n`;
}

function resultsText(records: readonly RunRecord[]): string {
  return `[\n${records.map((record) => recordText(record).trimEnd()).join(",\n")}\n]\n`;
}

async function main(): Promise<number> {
  const config = parseExperimentConfig(process.argv.slice(2));
  if (config === "help") {
    process.stdout.write(`${EXPERIMENT_USAGE}\n\n${EXPERIMENTS.map(({ name }) => name).join(", ")}\n`);
    return 0;
  }
  if (config.list) {
    process.stdout.write(`${listText()}\n`);
    return 0;
  }
  const results = openResults(config.dir);
  const jobs = config.experiments.flatMap(jobsOf);
  if (!config.report) {
    config.experiments.forEach(({ name }) => results.lock(name)); // two commands would write the same journals
  }
  if (config.fresh) {
    jobs.forEach((job) => results.forget(job));
  }
  let failures: string[] = [];
  if (!config.report) {
    const children = new Set<ChildProcess>();
    const stop = (): void => {
      children.forEach((child) => child.kill("SIGKILL")); // what they have done is in their journals
      process.stderr.write("\nStopped. Start the same command again to go on.\n");
      process.exit(130);
    };
    process.on("SIGINT", stop);
    process.on("SIGTERM", stop);
    process.on("disconnect", stop);
    const progress = createProgress({
      weights: new Map(jobs.map((job) => [runName(job), processorSOf(job.arm)])),
      nowMs: () => performance.now(),
      write: (text) => void process.stderr.write(text),
      columns: () => (process.stderr.isTTY ? process.stderr.columns : null),
    });
    failures = await runAll(jobs, { config, results, progress, code: codeDigest(), children });
  }
  for (const experiment of config.reported) {
    process.stdout.write(`${report(experiment, results)}\n`);
  }
  failures.forEach((failure) => process.stderr.write(`Failed: ${failure}\n`));
  return failures.length === 0 ? 0 : 1;
}

try {
  process.exit(await main());
} catch (error) {
  const { sentence, exitCode } = endingOf(error);
  process.stderr.write(`${sentence}\n`);
  process.exit(exitCode);
}
