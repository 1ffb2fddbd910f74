/** Runs the benchmark of `bench/` that is named first. What it cannot measure, or was asked wrongly, it says in a sentence. */
import process from "node:process";
import { endingOf } from "../src/base/assert.ts";

const [name] = process.argv.splice(2, 1);
try {
  await import(new URL(`../bench/${name}.ts`, import.meta.url).href);
} catch (error) {
  const isUnknown = String(error.code).startsWith("ERR_PARSE_ARGS");
  const { sentence, exitCode } = isUnknown ? { sentence: error.message, exitCode: 2 } : endingOf(error);
  process.stderr.write(`${sentence}\n`);
  process.exit(exitCode); // relays and links that were begun would keep it
}
