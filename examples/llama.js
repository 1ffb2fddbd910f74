/** Trains a tiny Llama on the bytes of a text. Run: `node examples/llama.js` or `node examples/llama.js FILE` */
import { createEngine, createRng, createTrainer, initialParameters } from "heddle/engine";
import book from "./moby-dick.json" with { type: "json" };

const sizes = { vocabulary: 256, channels: 64, layers: 2, heads: 4, kvHeads: 2, hidden: 176, time: 64 };
export const model = { ...sizes, tied: true, ropeBase: 10_000, normEps: 1e-5, seed: 1 };
const adamw = { learningRate: 3e-3, warmupSteps: 20, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, clip: 1 };
const inner = { batch: 8, ...adamw, matrixRate: 0.01, matrixMomentum: 0.9 }; // Muon for the layers' matrices

/** Resolves to the trained parameters [P] and the loss of each step, in nats per byte. */
export async function train(engine, print, { text = book.text, steps = 300 } = {}) {
  const bytes = new TextEncoder().encode(text);
  const rng = createRng("windows");
  using trainer = await createTrainer(engine, { model, inner });
  trainer.load(initialParameters(model));
  const losses = [];
  for (let step = 1; step <= steps; step += 1) {
    const starts = Array.from({ length: inner.batch }, () => rng.below(bytes.length - model.time));
    const windows = (shift) =>
      Uint32Array.from(starts.flatMap((start) => [...bytes.subarray(start + shift, start + shift + model.time)]));
    const { loss } = await trainer.step({ tokens: windows(0), targets: windows(1) }); // [B·T] each
    losses.push(loss);
    if (step === 1 || step % 25 === 0) {
      await print(`step ${step}: loss ${loss.toFixed(3)}`);
    }
  }
  return { params: await trainer.parameters(), losses };
}

if (import.meta.main) {
  const [, , file] = process.argv;
  const { readFile } = await import("node:fs/promises");
  using engine = await createEngine();
  await train(engine, console.log, file === undefined ? {} : { text: await readFile(file, "utf8") });
}
