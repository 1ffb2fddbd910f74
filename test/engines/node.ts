/**
 * Entry for Node: `node --experimental-import-text test/engines/node.ts [webgpu] [wasm] [only=TRACE]` prints reports. WebGPU
 * is Dawn, from the package `webgpu`; `VK_ICD_FILENAMES` chooses the Vulkan driver.
 */
import process from "node:process";
import { openDawn } from "./dawn.ts";
import { REPORT, report, wantedIn } from "./entry.ts";

const begin = (name: string): void => void process.stderr.write(`${name}\n`);
const reports = await report(wantedIn(process.argv), () => openDawn(), begin);
// Dawn keeps the process alive, so it has to be ended once the reports are out.
process.stdout.write(REPORT.begin + JSON.stringify(reports) + REPORT.end, () => process.exit(0));
