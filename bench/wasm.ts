/**
 * Speed of the WASM engine: `node bench/wasm.ts` prints one JSON object. Square products in GFLOP/s and a training step of
 * a GPT-2-shaped Llama (4 layers, 128 channels) in tokens per second, for one and for two threads. A product is checked
 * against sums in double precision before it is timed. Figures are the median and the best of several runs; where other
 * work shares the cores the median is too low. Compare only within one launch.
 */
import { execFileSync } from "node:child_process";
import { cpus, loadavg } from "node:os";
import { assert } from "../src/base/assert.ts";
import { createRng } from "../src/base/rng.ts";
import { initialParameters } from "../src/model/layout.ts";
import { createTrainer } from "../src/model/trainer.ts";
import type { Engine } from "../src/tensor/engine.ts";
import { record } from "../src/tensor/record.ts";
import { createWasmEngine } from "../src/wasm/engine.ts";
import { STEP_INNER as INNER, STEP_MODEL as MODEL } from "../src/engines/task.ts";

const root = new URL("..", import.meta.url);
execFileSync(process.execPath, [new URL("tools/build-wasm.mjs", root).pathname]);

const results: Record<string, unknown> = {
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  // Figures of a machine that is busy with other things are too low.
  "load before": round(loadavg()[0] ?? 0),
};
for (const threads of [1, 2]) {
  using engine = await createWasmEngine({ threads });
  for (const size of [256, 512, 1024]) {
    results[`matmul ${size}, ${threads} threads, GFLOP/s`] = await matmul(engine, size);
  }
  results[`train step, ${threads} threads, tokens/s`] = await train(engine);
}
process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

interface Rate {
  readonly median: number;
  readonly best: number;
}

/** Units of work per second over `count` runs of `work` units each, after two to warm up. */
async function rateOf(count: number, work: number, run: () => Promise<unknown>): Promise<Rate> {
  await run();
  await run();
  const rates: number[] = [];
  for (let i = 0; i < count; i += 1) {
    const begin = performance.now();
    await run();
    rates.push((1000 * work) / (performance.now() - begin));
  }
  rates.sort((a, b) => b - a);
  return { median: round(rates[count >> 1] as number), best: round(rates[0] as number) };
}

/** GFLOP/s of x · wᵀ for square matrices. */
async function matmul(engine: Engine, size: number): Promise<Rate> {
  const r = record("matmul");
  const out = r.value("out", [size, size]);
  r.matmul(r.input("x", [size, size]), r.input("w", [size, size]), { transB: true, out });
  using plan = await engine.compile(r.finish(["out"]));
  const rng = createRng("bench", size);
  const [x, w] = [0, 1].map(() => Float32Array.from({ length: size * size }, () => rng.float() - 0.5));
  assert(x !== undefined && w !== undefined, "Cannot make operands");
  plan.write("x", x);
  plan.write("w", w);
  verify(x, w, (await plan.run(["out"])).out, size);
  const count = Math.max(9, Math.round(4e9 / size ** 3));
  return await rateOf(count, (2 * size ** 3) / 1e9, () => plan.run());
}

/** Compares one element in 997 with its sum in double precision. */
function verify(x: Float32Array, w: Float32Array, out: Float32Array, size: number): void {
  for (let at = 0; at < out.length; at += 997) {
    const [row, column] = [Math.floor(at / size), at % size];
    let sum = 0;
    for (let k = 0; k < size; k += 1) {
      sum += (x[row * size + k] as number) * (w[column * size + k] as number);
    }
    const got = out[at] as number;
    assert(Math.abs(got - sum) < 1e-4, `Cannot time matmul ${size}: element ${at} is ${got}, should be ${sum}`);
  }
}

/** Tokens per second of whole training steps; the loss must have fallen below that of a uniform guess. */
async function train(engine: Engine): Promise<Rate> {
  using trainer = await createTrainer(engine, { model: MODEL, inner: INNER });
  trainer.load(initialParameters(MODEL));
  const rows = INNER.batch * MODEL.time;
  const rng = createRng("bench", "train");
  const tokens = Uint32Array.from({ length: rows }, () => rng.below(64));
  const targets = tokens.map((token) => (token + 1) % 64);
  let loss = 0;
  const rate = await rateOf(25, rows, async () => {
    ({ loss } = await trainer.step({ tokens, targets }));
  });
  assert(loss < Math.log(MODEL.vocabulary), `Cannot time training: the loss is ${loss} and should have fallen`);
  return rate;
}
