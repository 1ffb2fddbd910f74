/**
 * Matrix products of our engines beside those of the peers that are installed: `npm run bench:kernels`; options in
 * `contest/command.ts`.
 */
import process from "node:process";
import { compareWorks } from "./contest/command.ts";
import { MATMULS } from "./contest/works.ts";

await compareWorks(MATMULS, process.argv.slice(2));
