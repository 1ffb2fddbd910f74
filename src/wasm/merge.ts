/**
 * The module that merges packed updates (`assembly/merge.ts`): what it needs and gives is `update/kernel.ts`, who uses it
 * `update/merge.ts`.
 */
import type { MergeKernel, OpenMergeKernel } from "../update/kernel.ts";
import { loadModule } from "./module.ts";

/** Loads the module; opening a kernel is then synchronous. Throws HeddleError "unreachable". */
export async function loadMergeKernel(): Promise<OpenMergeKernel> {
  const url = new URL("../../build/heddle-merge.wasm", import.meta.url);
  const module = await WebAssembly.compile(await loadModule(url, "the merge's kernel"));
  return () => new WebAssembly.Instance(module).exports as unknown as MergeKernel;
}
