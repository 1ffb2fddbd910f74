/** The command line of `npm run experiment`: parsed once, checked. */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { HeddleError } from "../src/base/assert.ts";
import type { WantedEngine } from "../src/engines/choose.ts";
import { EXPERIMENTS } from "./catalogue.ts";
import type { Experiment } from "./experiment.ts";

export interface ExperimentConfig {
  /** What is to run. */
  readonly experiments: readonly Experiment[];
  /** What table and plot are of: every arm and seed, but with "--report" those that are named, and the reference. */
  readonly reported: readonly Experiment[];
  readonly list: boolean;
  readonly dir: string;
  readonly jobs: number;
  readonly engine: WantedEngine;
  readonly fresh: boolean;
  /** Only table and plot of what there is. */
  readonly report: boolean;
}

const MBIT_MAX = 1e6;

export const EXPERIMENT_USAGE = `npm run experiment -- [options] NAME…
  --list               what there is: questions, arms, seeds, estimated processor hours
  --seeds N[,N]        other seeds than the experiment's
  --arms NAME[,NAME]   only these arms
  --links UP/DOWN      other link rates than the arms', in Mbit/s; kept as an experiment of its own, NAME-UP-DOWN
  --jobs N             runs at a time (default: as many as there are cores)
  --engine NAME        wasm (default), webgpu, or auto: a real GPU where there is one. Only wasm gives the same bits anywhere;
                       others are kept as an experiment of their own, NAME-webgpu or NAME-auto
  --dir FOLDER         where results are kept (default .heddle/experiments)
  --fresh              forget the results and begin again
  --report             no run: table and plot of the results that are there; with --arms or --seeds of these alone, and the
                       arm that others are compared with
  --help               print this text
An interrupted experiment goes on where it was when it is started again.`;

/** Throws HeddleError "bad-input" with a sentence for what cannot be used. */
export function parseExperimentConfig(args: readonly string[]): ExperimentConfig | "help" {
  let parsed;
  try {
    parsed = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        list: { type: "boolean", default: false },
        seeds: { type: "string" },
        arms: { type: "string" },
        links: { type: "string" },
        jobs: { type: "string", default: String(availableParallelism()) },
        engine: { type: "string", default: "wasm" },
        dir: { type: "string", default: ".heddle/experiments" },
        fresh: { type: "boolean", default: false },
        report: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (error) {
    throw new HeddleError("bad-input", `${(error as Error).message}\n\n${EXPERIMENT_USAGE}`, { cause: error });
  }
  const { values, positionals } = parsed;
  if (values.help || (positionals.length === 0 && !values.list)) {
    return "help";
  }
  if (values.fresh && values.report) {
    throw new HeddleError("bad-input", "Cannot use --fresh with --report: it forgets what would be reported");
  }
  const names = [...new Set(positionals)];
  const seeds =
    values.seeds === undefined
      ? undefined
      : distinct("--seeds", values.seeds, (seed) => wholeNumber("--seeds", seed, 0));
  const arms = values.arms === undefined ? undefined : distinct("--arms", values.arms, String);
  const engine = engineOf(values.engine);
  const links = values.links === undefined ? undefined : linksOf(values.links);
  return {
    experiments: names.map((name) => narrowed(experimentOf(name), { seeds, arms, links, engine })),
    reported: names.map((name) => {
      const whole = experimentOf(name);
      const every = { seeds: [...new Set([...whole.seeds, ...(seeds ?? [])])], arms: undefined };
      const named = { seeds, arms: arms && [...arms, whole.reference] };
      return narrowed(whole, { ...(values.report ? named : every), links, engine });
    }),
    list: values.list,
    dir: values.dir,
    jobs: wholeNumber("--jobs", values.jobs, 1),
    engine,
    fresh: values.fresh,
    report: values.report,
  };
}

function experimentOf(name: string): Experiment {
  const found = EXPERIMENTS.find((experiment) => experiment.name === name);
  if (found === undefined) {
    const names = EXPERIMENTS.map((experiment) => experiment.name).join(", ");
    throw new HeddleError("bad-input", `Cannot run the experiment "${name}": there are ${names}`);
  }
  return found;
}

interface Only {
  readonly seeds: readonly number[] | undefined;
  readonly arms: readonly string[] | undefined;
  readonly links: readonly [upMbitPerS: number, downMbitPerS: number] | undefined;
  readonly engine: WantedEngine;
}

function narrowed(experiment: Experiment, { seeds = experiment.seeds, arms, links, engine }: Only): Experiment {
  const known = experiment.arms.map(({ name }) => name);
  const unknown = arms?.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new HeddleError(
      "bad-input",
      `Cannot run arm "${unknown}" of "${experiment.name}": there are ${known.join(", ")}`,
    );
  }
  const chosen = experiment.arms.filter(({ name }) => arms?.includes(name) ?? true);
  const kept = engine === "wasm" ? experiment.name : `${experiment.name}-${engine}`;
  if (links === undefined) {
    return { ...experiment, name: kept, seeds, arms: chosen };
  }
  const [upMbitPerS, downMbitPerS] = links;
  const linked = chosen.map((arm) => ({ ...arm, links: { ...arm.links, upMbitPerS, downMbitPerS } }));
  return { ...experiment, name: `${kept}-${upMbitPerS}-${downMbitPerS}`, seeds, arms: linked };
}

function linksOf(text: string): readonly [number, number] {
  const [up = NaN, down = NaN, ...more] = text.split("/").map(Number);
  if (!(up > 0 && down > 0 && up <= MBIT_MAX && down <= MBIT_MAX) || more.length > 0) {
    throw new HeddleError(
      "bad-input",
      `Cannot use --links "${text}": need two numbers of Mbit/s, such as 10/50, at most ${MBIT_MAX}`,
    );
  }
  return [up, down];
}

function engineOf(name: string): WantedEngine {
  if (name === "wasm" || name === "webgpu" || name === "auto") {
    return name;
  }
  throw new HeddleError("bad-input", `Cannot use the engine "${name}": there are wasm, webgpu and auto`);
}

/** The parts of a list; two runs of one job would write one file. */
function distinct<T>(flag: string, text: string, read: (part: string) => T): T[] {
  const parts = text.split(",").map(read);
  if (new Set(parts).size < parts.length) {
    throw new HeddleError("bad-input", `Cannot use ${flag} "${text}": it names one of them twice`);
  }
  return parts;
}

function wholeNumber(flag: string, text: string, least: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value) || value < least) {
    throw new HeddleError("bad-input", `Cannot use ${flag} "${text}": need a whole number, at least ${least}`);
  }
  return value;
}
