/**
 * Whole training steps of our engines beside those of the peers that are installed, with the same weights and the same first
 * losses: `npm run bench:step`; options in `contest/command.ts`.
 */
import process from "node:process";
import { compareWorks } from "./contest/command.ts";
import { STEPS } from "./contest/works.ts";

await compareWorks(STEPS, process.argv.slice(2));
