/**
 * Builds `src/wasm/assembly` into `build/heddle.wasm` (the engine with plain memory), `build/heddle-threads.wasm` (the same
 * with imported shared memory), both once more with multiply-adds that round once (`heddle-fused*.wasm`), and
 * `build/heddle-merge.wasm`. Takes no arguments, runs on Node 18 and later, and does nothing when the outputs were made from
 * these sources by this compiler.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { main, version } from "assemblyscript/asc";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SOURCES = `${ROOT}src/wasm/assembly`;
const STAMP = `${ROOT}build/heddle-wasm.stamp`;

const COMMON = "-O3 --runtime stub --noAssert --enable simd --disableWarning 112".split(" ");
const PLAIN = "--initialMemory 1 --maximumMemory 65536".split(" ");
const SHARED = "--enable threads --importMemory --sharedMemory".split(" ");
const FUSED = "--enable relaxed-simd".split(" ");
const BUILDS = {
  "heddle.wasm": { entry: "index.ts", flags: PLAIN },
  "heddle-threads.wasm": { entry: "index.ts", flags: [...SHARED, ...PLAIN] },
  "heddle-fused.wasm": { entry: "index.ts", flags: [...FUSED, ...PLAIN] },
  "heddle-fused-threads.wasm": { entry: "index.ts", flags: [...FUSED, ...SHARED, ...PLAIN] },
  "heddle-merge.wasm": { entry: "merge.ts", flags: PLAIN },
};

/** A hash of everything that decides the outputs. */
function stamp() {
  const hash = createHash("sha256")
    .update(version)
    .update(readFileSync(fileURLToPath(import.meta.url)));
  for (const name of readdirSync(SOURCES).sort()) {
    hash.update(name).update(readFileSync(`${SOURCES}/${name}`));
  }
  return hash.digest("hex");
}

async function build(name, { entry, flags }) {
  const temporary = `build/${name}.${process.pid}.new`;
  const args = [`src/wasm/assembly/${entry}`, "--baseDir", ROOT, "--outFile", temporary, ...COMMON, ...flags];
  const { error, stderr } = await main(args);
  if (error) {
    throw new Error(`Cannot build ${name}: ${error.message}\n${stderr.toString()}`);
  }
  renameSync(ROOT + temporary, `${ROOT}build/${name}`);
}

const wanted = stamp();
const outputs = Object.keys(BUILDS).map((name) => `${ROOT}build/${name}`);
if (!outputs.every(existsSync) || !existsSync(STAMP) || readFileSync(STAMP, "utf8") !== wanted) {
  mkdirSync(`${ROOT}build`, { recursive: true });
  for (const [name, options] of Object.entries(BUILDS)) {
    await build(name, options);
  }
  writeFileSync(STAMP, wanted);
  process.stderr.write(`Built ${Object.keys(BUILDS).join(", ")}\n`);
}
