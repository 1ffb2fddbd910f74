/**
 * Speed of the WASM engine beside jax-js's WASM backend and a bare multiply-add loop: `npm run bench wasm [PARTS]` prints one
 * JSON object, for one and for two threads, each in a Node process of its own. PARTS are any of matmul (every transposed form
 * that training needs), attention and step, all by default. Outputs are verified before anything is timed. Everybody takes
 * turns, round by round; a figure is a median over the rounds, with the best round (on a shared machine the one that nobody
 * disturbed) and half the distance between the quartiles in percent; ratios are formed within a round. jax-js multiplies with
 * relaxed SIMD, which fuses where the processor can; our bits must not depend on that. `npm run bench:peers` compares
 * more peers, in Chromium.
 */
import { execFileSync } from "node:child_process";
import { cpus, loadavg } from "node:os";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { assert, present } from "../src/base/assert.ts";
import { median, quantile } from "../src/base/statistics.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import type { Contender, Ready, Surroundings } from "./contest/contender.ts";
import { firstLosses, openOurs } from "./contest/ours.ts";
import { rounded, spreadPercent, takeRounds, type Runner } from "./contest/statistics.ts";
import * as works from "./contest/works.ts";
import { compileBareLoop, type BareLoop } from "./wasm/bare.ts";
import { provideWorkers, withoutWorkers } from "./wasm/web-worker.ts";

const PARTS = ["matmul", "attention", "step"];
const ROUNDS = { matmul: 9, attention: 9, step: 5 };
/** A sample of less than so much is repeated; the loop's own sample is of this size. */
const SAMPLE_GFLOP = 0.25;
const SIZES = [
  [256, 256, 256],
  [512, 512, 512],
  [1024, 1024, 1024],
  [1024, 1536, 384],
] as const;
/** Forward with stored weights is a·bᵀ, the gradient of its input a·b, that of the weights aᵀ·b. */
const FORMS = [
  { form: "a·b", transA: false, transB: false },
  { form: "a·bᵀ", transA: false, transB: true },
  { form: "aᵀ·b", transA: true, transB: false },
];
const MATMULS = SIZES.flatMap(([m, n, k]) =>
  FORMS.map(({ form, ...rest }) => ({ type: "matmul", name: `${form} ${m}x${n}x${k}`, m, n, k, ...rest }) as const),
);

const wanted = process.argv.slice(2).filter((each) => !each.startsWith("--"));
const stranger = wanted.find((part) => !PARTS.includes(part));
assert(stranger === undefined, `Cannot measure "${stranger}": the parts are ${PARTS.join(", ")}`);
const threadsAsked = process.argv.find((each) => each.startsWith("--threads="));
if (threadsAsked === undefined) {
  const measured = [1, 2].map((threads) => {
    const args = [...process.execArgv, fileURLToPath(import.meta.url), ...wanted, `--threads=${threads}`];
    const text = execFileSync(process.execPath, args, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
    return [`${threads} threads`, JSON.parse(text) as unknown];
  });
  const machine = { cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length };
  // Figures of a machine that is busy with other things are too low.
  const all = { ...machine, "load after": rounded(loadavg()[0] ?? 0), ...Object.fromEntries(measured) };
  process.stdout.write(`${JSON.stringify(all, null, 2)}\n`);
} else {
  const results = await measure(Number(threadsAsked.split("=")[1]));
  process.stdout.write(JSON.stringify(results), () => process.exit(0));
}

async function measure(threads: number): Promise<Record<string, unknown>> {
  if (threads > 1) {
    provideWorkers(threads);
  }
  const surroundings: Surroundings = {
    backend: { type: "wasm", threads },
    fileUrl: (path) => path,
    syncWith: async () => undefined,
    lastDevice: () => {
      throw new Error("Cannot give a device: WASM has none");
    },
  };
  const bare = await compileBareLoop();
  const ours = await openOurs(surroundings);
  const prepare: Contender["prepare"] = (work) => withoutWorkers(() => ours.prepare(work));
  // It looks for workers when it is loaded.
  const jax = await import("./peers/jax.ts");
  const contenders = [{ ...ours, prepare }, await jax.open(surroundings)];
  const chosen = [...MATMULS, ...works.ATTENTIONS, ...(await steps())].filter(
    ({ type }) => wanted.length === 0 || wanted.includes(type),
  );
  const results: Record<string, unknown> = {};
  for (const work of chosen) {
    results[`${work.name}, ${works.unitOf(work)}`] = await compare(work, { contenders, bare, threads });
  }
  return results;
}

/** The benchmarks' training step, with the losses that it must have: the WASM engine's, the same bits everywhere. */
async function steps(): Promise<works.StepWork[]> {
  const [step] = works.STEPS;
  if (step === undefined || (wanted.length > 0 && !wanted.includes("step"))) {
    return [];
  }
  using engine = await withoutWorkers(() => createWasmEngine({}));
  return [{ ...step, losses: await firstLosses(engine, step) }];
}

interface Rate {
  readonly median: number;
  readonly best: number;
  readonly spreadPercent: number;
}

function rateOf(rates: readonly number[]): Rate {
  const best = rounded(quantile(rates, 1));
  return { median: rounded(median(rates)), best, spreadPercent: rounded(spreadPercent(rates)) };
}

interface Contest {
  /** Ours first, then the peer. */
  readonly contenders: readonly Contender[];
  readonly bare: BareLoop;
  readonly threads: number;
}

/** Rates of both and of the bare loop; what ours reaches of the loop, and how many times the peer's speed. */
async function compare(work: works.Work, { contenders, bare, threads }: Contest): Promise<Record<string, unknown>> {
  using stack = new DisposableStack();
  const amount = works.amountOf(work);
  const times = work.type === "step" ? 1 : Math.ceil(SAMPLE_GFLOP / amount);
  const runners: Runner[] = [];
  for (const { name, prepare } of contenders) {
    const ready: Ready = stack.use(present(await prepare(work), `${work.name} by ${name}`));
    await ready.run(1);
    const fault = works.faultOf(work, await ready.outputs());
    assert(fault === undefined, `Cannot time ${work.name} by ${name}: ${fault}`);
    runners.push({ name, run: () => ready.run(times) });
  }
  runners.push({ name: "bare loop, 1 thread, GFLOP/s", run: async () => bare(SAMPLE_GFLOP) });
  const samples = await takeRounds(runners, { rounds: ROUNDS[work.type], nowMs: () => performance.now() });
  const rates = new Map<string, number[]>();
  for (const [name, ms] of samples) {
    const each = rates.size < contenders.length ? amount * times : SAMPLE_GFLOP;
    rates.set(
      name,
      ms.map((taken) => (1000 * each) / taken),
    );
  }
  const [ours = [], theirs = [], loop = []] = [...rates.values()];
  const ratios = ours.map((rate, round) => rate / present(theirs[round], "a round's rate"));
  const share = rounded(quantile(ours, 1) / (threads * quantile(loop, 1)));
  return {
    ...Object.fromEntries([...rates].map(([name, all]) => [name, rateOf(all)])),
    ...(work.type === "matmul" ? { "share of the bare loop on every thread, best rounds": share } : {}),
    "times the peer, median of rounds": rounded(median(ratios)),
    "times the peer, best rounds": rounded(quantile(ours, 1) / quantile(theirs, 1)),
  };
}
