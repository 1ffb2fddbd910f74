/**
 * Finished runs on disk, one JSON file each: `<experiment>/<arm>-<seed>.json` holds what follows from arm and seed, to the
 * byte; `<arm>-<seed>.host.json` what the machine had to do with it. A stored run counts while its arm is what it was. What
 * is unfinished keeps its journal under `unfinished/`, named after everything that the journal depends on.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { openLocked } from "../src/store/locked.ts";
import type { Job } from "./job.ts";
import type { RunRecord } from "./record.ts";

/** What a run took on this machine. */
export interface HostRecord {
  readonly engine: string;
  /** Of this life of the run: what an interrupted one took before is not in it, and `remembered` is then above 0. */
  readonly processorS: number;
  readonly wallS: number;
  /** Largest resident size. */
  readonly memoryBytes: number;
  /** Answers of the engine that came from the journal of an interrupted life. */
  readonly remembered: number;
  readonly node: string;
  readonly processor: string;
  /** Digest of what ran (`codeDigest`): says whether two runs are of the same sources, not of which commit. */
  readonly code: string;
}

export interface Results {
  /**
   * Keeps every other command away from the experiment until this process ends, however it ends. Throws HeddleError "store"
   * when another one has it, and names its process.
   */
  lock(experiment: string): void;
  /** The record of a job that is finished, or undefined. */
  read(job: Job): RunRecord | undefined;
  readHost(job: Job): HostRecord | undefined;
  write(record: RunRecord, host: HostRecord): void;
  /** Where the job's journal is, as long as neither arm nor code changes; journals of earlier ones are removed. */
  journalDir(job: Job, code: string): string;
  /** Forgets a job, finished or not. */
  forget(job: Job): void;
  /** A file beside the experiment's runs. */
  pathOf(experiment: string, file: string): string;
}

export function openResults(dir: string): Results {
  const folder = (experiment: string): string => join(dir, experiment);
  const nameOf = ({ arm, seed }: Pick<Job, "arm" | "seed">): string => `${arm.name}-${seed}`;
  const recordPath = (job: Job): string => join(folder(job.experiment), `${nameOf(job)}.json`);
  const hostPath = (job: Job): string => join(folder(job.experiment), `${nameOf(job)}.host.json`);
  const journals = (job: Job): string[] => {
    const unfinished = join(folder(job.experiment), "unfinished");
    const names = existsSync(unfinished) ? readdirSync(unfinished) : [];
    const own = new RegExp(`^${nameOf(job)}-[0-9a-f]{12}$`);
    return names.filter((name) => own.test(name)).map((name) => join(unfinished, name));
  };
  const locks: DatabaseSync[] = []; // a database that is collected is closed, and its lock gone
  return {
    lock: (experiment) => {
      locks.push(openLocked(join(folder(experiment), "lock"), `run the experiment "${experiment}"`));
    },
    read: (job) => {
      const path = recordPath(job);
      const record = existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as RunRecord) : undefined;
      return record !== undefined && JSON.stringify(record.arm) === JSON.stringify(job.arm) ? record : undefined;
    },
    readHost: (job) =>
      existsSync(hostPath(job)) ? (JSON.parse(readFileSync(hostPath(job), "utf8")) as HostRecord) : undefined,
    write: (record, host) => {
      mkdirSync(folder(record.experiment), { recursive: true });
      writeWhole(hostPath(record), `${JSON.stringify(host, null, 2)}\n`);
      writeWhole(recordPath(record), recordText(record));
    },
    journalDir: (job, code) => {
      const key = createHash("sha256").update(JSON.stringify(job)).update(code).digest("hex").slice(0, 12);
      const path = join(folder(job.experiment), "unfinished", `${nameOf(job)}-${key}`);
      for (const other of journals(job).filter((each) => each !== path)) {
        rmSync(other, { recursive: true, force: true });
      }
      return path;
    },
    forget: (job) => {
      for (const path of [recordPath(job), hostPath(job), ...journals(job)]) {
        rmSync(path, { recursive: true, force: true });
      }
    },
    pathOf: (experiment, file) => {
      mkdirSync(folder(experiment), { recursive: true });
      return join(folder(experiment), file);
    },
  };
}

/** A record as it is written: points a line each. */
export function recordText({ points, ...rest }: RunRecord): string {
  const lines = points.map((point) => `    ${JSON.stringify(point)}`).join(",\n");
  const head = JSON.stringify(rest, null, 2).replace(/\n\}$/, "");
  return `${head},\n  "points": [\n${lines}\n  ]\n}\n`;
}

/** So that a name always stands for a whole file. */
export function writeWhole(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

const root = resolve(import.meta.dirname, "..");

/** Digest of everything that decides what a run computes: sources, WASM kernels, packages. */
export function codeDigest(): string {
  const hash = createHash("sha256");
  const add = (path: string): void => {
    hash
      .update(path)
      .update("\0")
      .update(readFileSync(join(root, path)));
  };
  for (const folder of ["src", "experiments"]) {
    for (const file of readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).sort()) {
      if (/\.(ts|wgsl)$/.test(file) && !file.endsWith(".test.ts")) {
        add(join(folder, file));
      }
    }
  }
  ["package-lock.json", join("build", "heddle.wasm")].forEach(add);
  return hash.digest("hex").slice(0, 16);
}
