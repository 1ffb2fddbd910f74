/** Trains as `llama.js` does, then lets the model continue a text. Run: `node examples/generate.js "The whale"` */
import { createEngine, createGenerator, createRng } from "heddle/engine";
import { model, train } from "./llama.js";

/** Resolves to what the model wrote after `prompt`; temperature 0 always takes the likeliest byte. */
export async function generate(engine, print, { prompt = "I was ", count = 200, temperature = 0.8, steps = 300 } = {}) {
  const { params } = await train(engine, print, { steps });
  using generator = await createGenerator(engine, { model });
  generator.load(params);
  const rng = createRng("generate", temperature);
  const bytes = await generator.generate(new TextEncoder().encode(prompt), { count, temperature, rng });
  const text = new TextDecoder().decode(bytes);
  await print(`${prompt}${text}`);
  return text;
}

if (import.meta.main) {
  const [, , prompt] = process.argv;
  using engine = await createEngine();
  await generate(engine, console.log, prompt === undefined ? {} : { prompt });
}
