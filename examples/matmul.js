/** A product of two matrices, on the GPU where there is one. Run: `node examples/matmul.js` */
import { createEngine, createRng, record } from "heddle/engine";

/** Multiplies a [M,K] by b [K,N] and prints how fast; resolves to the product [M,N]. */
export async function matmul(engine, print, { m = 512, n = 512, k = 512 } = {}) {
  const r = record("product");
  const a = r.input("a", [m, k]);
  const b = r.input("b", [k, n]);
  r.matmul(a, b, { out: r.value("c", [m, n]) }); // [M,N]
  using plan = await engine.compile(r.finish(["c"]));

  const rng = createRng("operands");
  const random = (count) => Float32Array.from({ length: count }, () => rng.float() - 0.5);
  plan.write("a", random(m * k));
  plan.write("b", random(k * n));
  await plan.run(["c"]); // the first run pays for what drivers put off until then
  const beginMs = performance.now();
  const { c } = await plan.run(["c"]);
  const ms = performance.now() - beginMs;
  await print(`${m}×${k} · ${k}×${n} on ${engine.device}: ${((2 * m * n * k) / ms / 1e6).toFixed(1)} GFLOP/s`);
  return c;
}

if (import.meta.main) {
  using engine = await createEngine();
  await matmul(engine, console.log);
}
