/** Where a headless contributor finds WebGPU: Deno has it built in, Node gets it from Dawn's npm package. */
import { spawn } from "node:child_process";
import process from "node:process";
import type * as Dawn from "webgpu";

/** Dawn's instance must stay referenced: once it is collected the process crashes. */
let instance: GPU | null = null;

/** The runtime's GPU object, or null when there is no WebGPU here. */
export async function headlessGpu(): Promise<GPU | null> {
  if (typeof navigator !== "undefined" && "gpu" in navigator) {
    return navigator.gpu;
  }
  return (await adapterElsewhere()) ? loadDawn() : null;
}

async function loadDawn(): Promise<GPU | null> {
  if (instance === null) {
    const dawn: typeof Dawn | null = await import("webgpu").catch(() => null);
    if (dawn === null) {
      return null;
    }
    Object.assign(globalThis, dawn.globals);
    instance = dawn.create([]);
  }
  return instance;
}

const PROBE_MS_MAX = 20_000;

/** Asks for an adapter in a process of its own: without a usable one, drivers chatter on standard error, hang or crash. */
function adapterElsewhere(): Promise<boolean> {
  const probe = spawn(process.execPath, [import.meta.filename], { stdio: "ignore", timeout: PROBE_MS_MAX });
  return new Promise((settle) => {
    probe.once("error", () => settle(false));
    probe.once("exit", (code) => settle(code === 0));
  });
}

if (import.meta.main) {
  const adapter = await (await loadDawn())?.requestAdapter({ powerPreference: "high-performance" });
  process.exit(adapter ? 0 : 1);
}
