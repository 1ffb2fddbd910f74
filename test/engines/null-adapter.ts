/**
 * Compiles every kernel for devices that this machine has not: `node test/engines/null-adapter.ts` opens Dawn's null backend,
 * which computes nothing and checks WGSL as Chrome does, with all its features, pretends to subgroups of 16 to 64 lanes, and
 * prints what does not compile, by rung, size and case. The last line it prints is a negative control: Dawn's answer to a
 * barrier that only some invocations reach.
 */
import process from "node:process";
import { createGpuEngine, probeGpu } from "../../src/gpu/engine.ts";
import { present } from "../../src/base/assert.ts";
import { cases } from "./cases.ts";
import { openDawn } from "./dawn.ts";
import { isolated } from "./run-cases.ts";
import { rungs } from "./rungs.ts";

/** Those of no software adapter; kernels may depend on it. */
const LANES = [16, 32, 64];
const NON_UNIFORM = `
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {
  if (i < 3u) { workgroupBarrier(); }
}`;

/** What a run of this script prints. */
export interface Compilations {
  readonly compiled: number;
  /** Subgroups, f16: without them nothing is proved. */
  readonly features: readonly string[];
  readonly failures: readonly string[];
  /** What Dawn says of a non-uniform barrier. */
  readonly control: string;
}

const gpu = openDawn(["backend=null"]);
const failures: string[] = [];
let compiled = 0;
const models = cases.filter(({ op }) => op.startsWith("model"));
for (const lanes of LANES) {
  // The other rungs are the same text for every subgroup size.
  const changed = rungs.filter(({ name }) => lanes === LANES[0] || /subgroup|lanes/.test(name));
  for (const { name, choice, cases: own } of [{ name: "", choice: {}, cases: models }, ...changed]) {
    using engine = await createGpuEngine({ gpu, choice, adapter: await adapterWith(lanes), tuneMsMax: 0 });
    for (const one of own) {
      try {
        using _ = await engine.compile(isolated(one.setup()).program);
        compiled += 1;
      } catch (error) {
        failures.push(`${name}${one.name}, subgroups of ${lanes}: ${error}`);
      }
    }
  }
}
const control = await answerTo(NON_UNIFORM);
const { adapter } = present(await probeGpu(gpu), "adapter");
const features = [...adapter.features];
process.stdout.write(JSON.stringify({ compiled, features, failures, control } satisfies Compilations), () =>
  process.exit(0),
);

/** The null adapter as one whose subgroups all have so many lanes. */
async function adapterWith(lanes: number): Promise<GPUAdapter> {
  const { adapter } = present(await probeGpu(gpu), "adapter");
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const known = { vendor, architecture, device, description, isFallbackAdapter };
  Object.defineProperty(adapter, "info", { value: { ...known, subgroupMinSize: lanes, subgroupMaxSize: lanes } });
  return adapter;
}

async function answerTo(code: string): Promise<string> {
  const { adapter } = present(await probeGpu(gpu), "adapter");
  const device = await adapter.requestDevice();
  device.pushErrorScope("validation");
  device.createShaderModule({ code });
  return (await device.popErrorScope())?.message ?? "";
}
