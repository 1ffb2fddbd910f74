/** Runs in Deno: `deno run --allow-read bit-identity-deno.ts THREADS` prints the training digest as JSON. */
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { trainDigest } from "./train-digest.ts";

const threads = Number(process.argv[2]);
using engine = await createWasmEngine({ threads });
process.stdout.write(JSON.stringify(await trainDigest(engine)));
