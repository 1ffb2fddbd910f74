/** Entry for a browser's worker: its query says the engine; it posts one message, a report or what was thrown. */
import { engineChoice, reportEngine, reportWebGpu, type Report } from "../entry.ts";

const query = new URL(self.location.href).searchParams;

try {
  const report = engineChoice([`engine=${query.get("engine")}`]) === "webgpu" ? await onWebGpu() : await onWasm();
  self.postMessage(report);
} catch (error) {
  self.postMessage({ device: "none", results: [], thrown: String(error) });
}

async function onWebGpu(): Promise<Report> {
  return await reportWebGpu(navigator.gpu);
}

async function onWasm(): Promise<Report> {
  const { createWasmEngine } = await import("../../../src/wasm/engine.ts");
  return await reportEngine(await createWasmEngine({ threads: 2 }));
}
