/** What must hold of a device with small limits: what is larger is bound in parts, or refused with its size. */
import { present } from "../../src/base/assert.ts";
import { createGpuEngine, probeGpu } from "../../src/gpu/engine.ts";
import { record } from "../../src/tensor/record.ts";
import { matmulCase, modelCase } from "./cases.ts";
import { stepOf } from "./half-cases.ts";
import { compare, expectCode, isolated, runCases } from "./run-cases.ts";

/** An adapter that offers no more than this. */
async function limited(
  gpu: GPU,
  { bindingBytes, bufferBytes }: { readonly bindingBytes: number; readonly bufferBytes: number },
): Promise<GPUAdapter> {
  const { adapter } = present(await probeGpu(gpu), "adapter");
  const value = { maxStorageBufferBindingSize: bindingBytes, maxBufferSize: bufferBytes };
  Object.defineProperty(adapter, "limits", { value });
  return adapter;
}

/** Four parts of a sum would take twice what a binding spans; both operands fit. */
export async function checkPartialSums(gpu: GPU): Promise<string> {
  const adapter = await limited(gpu, { bindingBytes: 2 ** 19, bufferBytes: 2 ** 20 });
  using engine = await createGpuEngine({ gpu, adapter, choice: { matmul: "split-32x32" } });
  const gradient = matmulCase({ m: 256, n: 256, k: 512 }, { transA: true, transB: false, add: false });
  using plan = await engine.compile(isolated(gradient.setup()).program);
  const partialBytes = plan.valueBytes - 4 * (2 * 512 * 256 + 256 * 256);
  if (partialBytes !== 2 ** 19) {
    throw new Error(`Partial sums take ${partialBytes} bytes, need ${2 ** 19}`);
  }
  return await compare(engine, gradient);
}

/** AdamW and the norm of 1025 elements where a binding spans no more than 1024, and Muon where one matrix fits, against the twin. */
export async function checkWindows(gpu: GPU): Promise<string> {
  const details: string[] = [];
  for (const [bytes, name] of [[2 ** 12, "adamw 1025"] as const, [2 ** 14, "muon 8×4"] as const]) {
    const adapter = await limited(gpu, { bindingBytes: bytes, bufferBytes: 2 ** 20 });
    using engine = await createGpuEngine({ gpu, adapter });
    const [result] = await runCases(engine, { wanted: (one) => one.name.startsWith(name) });
    if (result?.passed !== true) {
      throw new Error(result?.detail ?? `There is no case "${name}"`);
    }
    details.push(result.detail);
  }
  return details.join("; ");
}

/**
 * Training steps of a model whose parameters, tables and matrices take twice to thirteen times what a binding spans: 32 KiB,
 * which is what activations of 64 rows need. Naive kernels, because each part's shape is a shader to compile. Where there is
 * f16, parts of columns are copied to and from values that are kept so, too.
 */
export async function checkSplit(gpu: GPU): Promise<string> {
  const size = { vocabulary: 68, channels: 128, layers: 1, heads: 4, kvHeads: 1, hidden: 128, time: 32 };
  const model = modelCase("in windows", { ...size, tied: true });
  const { adapter } = present(await probeGpu(gpu), "adapter");
  const details: string[] = [];
  for (const [storage, one] of [["f32", model] as const, ["f16", stepOf(model, "model")] as const]) {
    if (storage === "f32" || adapter.features.has("shader-f16")) {
      const own = await limited(gpu, { bindingBytes: 2 ** 15, bufferBytes: 2 ** 28 });
      const choice = { matmul: "naive", attention: "naive", storage } as const;
      using engine = await createGpuEngine({ gpu, adapter: own, choice });
      details.push(`${storage}: ${await compare(engine, one)}`);
    }
  }
  return details.join("; ");
}

export async function checkTooBig(gpu: GPU): Promise<string> {
  using engine = await createGpuEngine({ gpu, memoryBytesMax: 2 ** 20 });
  const r = record("giant");
  r.norm(r.state("params", [2 ** 19]));
  await expectCode("model-too-big", () => engine.compile(r.finish(["norm"])));
  // Two Plans fit one by one.
  const half = record("half");
  const operand = half.input("operand", [2 ** 16]);
  half.add(operand, operand);
  const program = half.finish(["sum"]);
  const first = await engine.compile(program);
  const beside = await expectCode("model-too-big", () => engine.compile(program));
  // What outputs are read through counts where it has come to be.
  const small = record("small");
  small.norm(small.input("operand", [2 ** 16]));
  const little = small.finish(["norm"]);
  (await engine.compile(little))[Symbol.dispose]();
  await first.run(["sum"]);
  await expectCode("model-too-big", () => engine.compile(little));
  first[Symbol.dispose]();
  (await engine.compile(program))[Symbol.dispose]();
  if (!beside.includes('"half" beside the Plans that are there')) {
    throw new Error(`Got "${beside}", need the other Plan named`);
  }
  const huge = record("huge");
  const side = 2 ** 15;
  huge.add(huge.input("a", [side, side]), huge.input("b", [side, side]));
  const refusal = await expectCode("model-too-big", () => engine.compile(huge.finish(["sum"])));
  // A value may be larger than a buffer where all that comes from the host is not.
  const adapter = await limited(gpu, { bindingBytes: 2 ** 22, bufferBytes: 2 ** 21 });
  using narrow = await createGpuEngine({ gpu, adapter });
  const wide = record("wide");
  wide.matmul(wide.input("a", [1024, 4]), wide.input("b", [4, 1024]));
  const slot = await expectCode("model-too-big", () => narrow.compile(wide.finish(["product"])));
  if (!slot.includes("one buffer")) {
    throw new Error(`Got "${slot}", need the limit of one buffer`);
  }
  // Outputs that fit one by one are read through one buffer.
  const many = record("many");
  const part = many.input("a", [2 ** 18]);
  const outputs = [0, 1, 2].map((i) => many.add(part, part, many.value(`sum${i}`, [2 ** 18])));
  await expectCode("model-too-big", () => narrow.compile(many.finish(outputs.map((_unused, i) => `sum${i}`))));
  // What a norm adds up first has a place in memory that nobody named.
  using least = await createGpuEngine({
    gpu,
    adapter: await limited(gpu, { bindingBytes: 2 ** 12, bufferBytes: 2 ** 20 }),
  });
  const norm = record("norm");
  norm.norm(norm.state("params", [2 ** 15]));
  const scratch = await expectCode("model-too-big", () => least.compile(norm.finish(["norm"])));
  if (!scratch.includes('scratch memory of "norm" (partials) needs 0.0 MiB')) {
    throw new Error(`Got "${scratch}", need the scratch memory`);
  }
  return refusal;
}
