/**
 * Entry for Deno: `deno run -A --unstable-webgpu --unstable-raw-imports test/engines/deno.ts engine=webgpu|wasm`. Prints a
 * report. WebGPU is wgpu; on a machine without a GPU its driver is Mesa's llvmpipe.
 */
import process from "node:process";
import { engineChoice, REPORT, reportEngine, reportWebGpu, type Report } from "./entry.ts";

const report = engineChoice(process.argv) === "webgpu" ? await reportWebGpu(navigator.gpu) : await onWasm();
process.stdout.write(REPORT.begin + JSON.stringify(report) + REPORT.end, () => process.exit(0));

async function onWasm(): Promise<Report> {
  const { createWasmEngine } = await import("../../src/wasm/engine.ts");
  return await reportEngine(await createWasmEngine({ threads: 2 }));
}
