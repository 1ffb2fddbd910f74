/** Runs in Deno: `deno run --allow-read bit-identity-deno.ts THREADS` prints the training digest as JSON. */
import { readFileSync } from "node:fs";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { spawn } from "../../src/wasm/spawn-web.ts";
import { trainDigest } from "./train-digest.ts";

const threads = Number(process.argv[2]);
const bytes = new Uint8Array(readFileSync(new URL("../../build/heddle-threads.wasm", import.meta.url)));
using engine = await createWasmEngine({ bytes, threads, spawn });
process.stdout.write(JSON.stringify(await trainDigest(engine)));
