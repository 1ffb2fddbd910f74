/**
 * Causal attention of our engines, forward and with the way back, beside that of the peers that are installed:
 * `npm run bench:attention`; options in `contest/command.ts`.
 */
import process from "node:process";
import { compareWorks } from "./contest/command.ts";
import { ATTENTIONS } from "./contest/works.ts";

await compareWorks(ATTENTIONS, process.argv.slice(2));
