/** Runs the benchmark of `bench/` that is named first. What it cannot measure, or was asked wrongly, it says in a sentence. */
import process from "node:process";
import { exitCodeOf, HeddleError } from "../src/base/assert.ts";

const [name] = process.argv.splice(2, 1);
try {
  await import(new URL(`../bench/${name}.ts`, import.meta.url).href);
} catch (error) {
  const isUnknown = String(error.code).startsWith("ERR_PARSE_ARGS");
  if (!isUnknown && !(error instanceof HeddleError)) {
    throw error;
  }
  process.stderr.write(`${error.message}\n`);
  process.exit(isUnknown ? 2 : exitCodeOf(error)); // relays and links that were begun would keep it
}
