/**
 * Entry for Deno: `deno run -A --unstable-webgpu --unstable-raw-imports test/engines/deno.ts [webgpu] [wasm] [only=TRACE]`
 * prints reports. WebGPU is wgpu; on a machine without a GPU its driver is Mesa's llvmpipe.
 */
import process from "node:process";
import { REPORT, report, wantedIn } from "./entry.ts";

const begin = (name: string): void => void process.stderr.write(`${name}\n`);
const reports = await report(wantedIn(process.argv), () => navigator.gpu, begin);
process.stdout.write(REPORT.begin + JSON.stringify(reports) + REPORT.end, () => process.exit(0));
