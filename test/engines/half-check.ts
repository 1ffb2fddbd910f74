/** What must hold of values kept as f16 beyond their numbers: that they take half the memory, end where f16 does, and are never faked. */
import { present } from "../../src/base/assert.ts";
import { createGpuEngine, probeGpu } from "../../src/gpu/engine.ts";
import { selfTest } from "../../src/gpu/self-test.ts";
import { record } from "../../src/tensor/record.ts";
import { expectCode } from "./run-cases.ts";

/**
 * A value between two products takes 32 KiB as f32; its first columns hold 1e6 and −1e6, where f16 ends at 65504. Its second row is NaN,
 * and has to stay so, or a loss would not tell.
 */
export async function checkHalves(gpu: GPU): Promise<string> {
  const r = record("halves");
  const input = r.input("x", [64, 64]);
  const kept = r.matmul(input, r.input("factors", [64, 128]), { out: r.value("kept", [64, 128]) });
  r.matmul(kept, r.input("sums", [128, 2]), { out: r.value("last", [64, 2]) });
  const program = r.finish(["last"]);
  const choice = { storage: "f16" } as const;
  const bare = present(await probeGpu(gpu), "adapter").adapter;
  Object.defineProperty(bare, "features", { value: new Set(["subgroups"].filter((name) => bare.features.has(name))) });
  using engine = await createGpuEngine({ gpu, adapter: bare });
  const refusal = await expectCode("no-engine", () => engine.compile(program, choice));
  const { adapter } = present(await probeGpu(gpu), "adapter");
  if (!adapter.features.has("shader-f16")) {
    await expectCode("no-engine", () => createGpuEngine({ gpu, adapter, choice }));
    return refusal;
  }
  using able = await createGpuEngine({ gpu, adapter, choice });
  await selfTest(able, { storage: "f16" });
  using half = await able.compile(program);
  using whole = await able.compile(program, { storage: "f32" });
  const saved = whole.valueBytes - half.valueBytes;
  if (saved !== 64 * 128 * 2 || !half.describe().includes("kept [64,128] f16 @")) {
    throw new Error(`Saved ${saved} bytes, need ${64 * 128 * 2}: ${half.describe()}`);
  }
  const seen: string[] = [];
  for (const plan of [half, whole]) {
    plan.write("x", new Float32Array(64 * 64).fill(1e6 / 64).fill(Number.NaN, 64, 128));
    plan.write(
      "factors",
      new Float32Array(64 * 128).map((_, i) => (i % 2 === 0 ? 1 : -1)),
    );
    plan.write(
      "sums",
      new Float32Array(128 * 2).map((_, i) => (i === 0 || i === 3 ? 1 : 0)),
    );
    const { last } = await plan.run(["last"]);
    seen.push(last.subarray(0, 4).join());
  }
  if (seen.join(" ") !== "65504,-65504,NaN,NaN 1000000,-1000000,NaN,NaN") {
    throw new Error(`Got ${seen.join(" as f16, ")} as f32`);
  }
  return `${refusal}; ${saved} bytes saved`;
}
