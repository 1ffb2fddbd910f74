/**
 * The comparison with other people's engines: `npm run bench:peers` installs them into bench/peers/ and runs every work of
 * ours beside them. With --install it only installs. Other options in `contest/command.ts`.
 */
import process from "node:process";
import { compareWorks } from "./contest/command.ts";
import { ATTENTIONS, MATMULS, STEPS } from "./contest/works.ts";

const args = process.argv.slice(2);
if (!args.includes("--install")) {
  await compareWorks([...MATMULS, ...ATTENTIONS, ...STEPS], args);
}
