/**
 * What it costs to make and pack an update of 25 million parameters, beside the training of a round: `npm run bench pack`, or
 * with engines (host, wasm, webgpu; without webgpu by default), layers (default 8; both costs are proportional to them, and a
 * software adapter wants fewer) and a batch (default 8 sequences of 128 tokens): `npm run bench pack webgpu 1 8`. In Node the
 * adapter is Dawn's, on the Vulkan driver that `VK_ICD_FILENAMES` names. Prints JSON.
 *
 * Times are of the processor, all threads together, because others may use the machine too; on a GPU look at the wall's. `host`
 * takes the difference, feeds the residual and packs it in JavaScript. On the engines the bytes are first compared with those that
 * `packUpdate` makes of the residual that came back. A round is 30 steps; figures are medians.
 */
import { cpus } from "node:os";
import process from "node:process";
import { assert } from "../src/base/assert.ts";
import { createRng } from "../src/base/rng.ts";
import { median } from "../src/base/statistics.ts";
import { packOnEngine, packOnHost, type Feed, type Packed } from "../src/contributor/packing.ts";
import { STEP_INNER, STEP_MODEL } from "../src/engines/task.ts";
import { createGpuEngine } from "../src/gpu/engine.ts";
import { initialParameters } from "../src/model/layout.ts";
import { createTrainer } from "../src/model/trainer.ts";
import type { ModelConfig } from "../src/protocol/charter.ts";
import type { Engine } from "../src/tensor/engine.ts";
import { packUpdate } from "../src/update/pack.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import { findAdapter } from "./contest/adapter.ts";
import { readNames, readWhole } from "./load/options.ts";

const STEPS = 30;
const STEPS_TIMED = 3;
const RUNS = 3;
const KEEPS = [64, 256] as const;

const words = process.argv.slice(2);
const isNumber = (word: string): boolean => /^[-+.\d]/.test(word);
const [givenLayers = 8, givenBatch = STEP_INNER.batch] = words.filter(isNumber);
const layers = readWhole("as many layers as", givenLayers, { most: 64 });
const batch = readWhole("a batch of", givenBatch, { most: 1_024 });
/** 25.4 million parameters. */
const MODEL: ModelConfig = { ...STEP_MODEL, channels: 512, layers, heads: 8, kvHeads: 8, hidden: 1376 };
const named = words.filter((word) => !isNumber(word));
const engines = readNames("engine", named.length === 0 ? ["host", "wasm"] : named, ["host", "wasm", "webgpu"]);

interface Spent {
  readonly processorMs: number;
  readonly wallMs: number;
}

const base = initialParameters(MODEL);
const after = changed(base, "after");
const residual = changed(new Float32Array(base.length), "residual");
const results: Record<string, unknown> = {};
if (engines.includes("host")) {
  results["host"] = await timePacking(async (feed) => packOnHost(feed, after));
}
if (engines.includes("wasm")) {
  using engine = await createWasmEngine();
  results[engine.device] = await measure(engine);
}
if (engines.includes("webgpu")) {
  const { gpu, identity } = await findAdapter();
  // Dawn in Node asks on every turn of the event loop whether the GPU is done: a core that would count as packing.
  Object.assign(globalThis, { setImmediate: (poll: () => void) => setTimeout(poll, 1) });
  using engine = await createGpuEngine({ gpu });
  results[identity] = await measure(engine);
}
const machine = { cpu: cpus()[0]?.model ?? "unknown", node: process.version };
const report = { machine, parameters: base.length, tokensPerStep: batch * MODEL.time, steps: STEPS, results };
process.stdout.write(`${JSON.stringify(report, null, 2)}\n`, () => process.exit(0));

/** The array with small differences of many sizes. */
function changed(values: Float32Array, name: string): Float32Array<ArrayBuffer> {
  const rng = createRng("pack bench", name);
  const some = Float32Array.from(
    { length: 65_521 },
    () => (rng.float() < 0.5 ? 1e-3 : -1e-3) * Math.log(1 - rng.float()),
  );
  return Float32Array.from(values, (value, i) => value + (some[i % some.length] as number));
}

async function measure(engine: Engine): Promise<object> {
  using trainer = await createTrainer(engine, { model: MODEL, inner: { ...STEP_INNER, batch } });
  trainer.load(base);
  const rng = createRng("pack bench", "tokens");
  const tokens = Uint32Array.from({ length: trainer.tokensPerStep + 1 }, () => rng.below(MODEL.vocabulary));
  const step = () => trainer.step({ tokens: tokens.slice(0, -1), targets: tokens.slice(1) });
  await step();
  const steps = await takeTimes(STEPS_TIMED, step);
  const packing = await timePacking((feed) => packOnEngine(engine, feed));
  const share = ({ processorMs, wallMs }: Spent) => ({
    processorPercent: rounded((100 * processorMs) / (STEPS * steps.processorMs)),
    wallPercent: rounded((100 * wallMs) / (STEPS * steps.wallMs)),
  });
  return {
    step: steps,
    ...Object.fromEntries(Object.entries(packing).map(([keep, one]) => [keep, { ...one, ...share(one) }])),
  };
}

/** By the number kept. */
async function timePacking(pack: (feed: Feed) => Promise<Packed>): Promise<Record<string, Spent>> {
  const spent: Record<string, Spent> = {};
  for (const keep of KEEPS) {
    const feed: Feed = { start: base, residual, rounds: 0, uplink: { keep, bits: 2, beta: 0.95 } };
    const { payload, residual: fed } = await pack(feed);
    const expected = packUpdate(fed, feed.uplink);
    const same = payload.length === expected.length && payload.every((byte, i) => byte === expected[i]);
    assert(same, `Cannot measure: the packed bytes are not those of packUpdate (${keep} kept)`);
    spent[`keep ${keep}`] = await takeTimes(RUNS, () => pack(feed));
  }
  return spent;
}

/** The median of `runs`; the caller has warmed up, or does not care. */
async function takeTimes(runs: number, work: () => Promise<unknown>): Promise<Spent> {
  const [processor, wall]: [number[], number[]] = [[], []];
  for (let run = 0; run < runs; run += 1) {
    const [usedBefore, before] = [process.cpuUsage(), performance.now()];
    await work();
    const { user, system } = process.cpuUsage(usedBefore);
    wall.push(performance.now() - before);
    processor.push((user + system) / 1_000);
  }
  return { processorMs: Math.round(median(processor)), wallMs: Math.round(median(wall)) };
}

function rounded(value: number): number {
  return Number(value.toPrecision(2));
}
