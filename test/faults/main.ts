/**
 * `npm run faults -- [KIND …] [--count N] [--seed S] [--from I]`: processes that are killed and networks that fail, under load, of
 * every kind or of the named ones; what contributors were told is compared with the ledger from outside. Prints a table; exits
 * with 1 when something failed, with 2 for arguments that cannot be used.
 */
import process from "node:process";
import { messageIn } from "../../src/base/assert.ts";
import { quantile } from "../../src/base/statistics.ts";
import { runCampaign, type Report } from "./campaign.ts";
import { readOrders, type Order } from "../fixtures/orders.ts";
import { KINDS, type Kind } from "./kinds.ts";
import { closeStages } from "./stage.ts";

const USAGE = `npm run faults -- [KIND …] [--count N] [--seed S] [--from I]
  --count N   faults of each kind (default 100)
  --seed S    a whole number (default 1)
  --from I    number of the first fault: a failure's, to see it again
kinds: ${KINDS.map(({ name, what }) => `\n  ${name.padEnd(11)} ${what}`).join("")}
`;

/** p50, p90, p99 and the largest, in seconds. */
function percentiles(ms: readonly number[]): string {
  const inSeconds = (share: number): string => (quantile(ms, share) / 1_000).toFixed(2);
  return ms.length === 0 ? "" : [0.5, 0.9, 0.99, 1].map(inSeconds).join(" / ");
}

function printRow({ kind, acts, accepted, refused, failures, recoveries, counts, ends, seconds }: Report): void {
  const leads = recoveries.flatMap(({ leadMs }) => (leadMs === undefined ? [] : [leadMs]));
  const apart = recoveries.flatMap(({ apartMs }) => (apartMs === undefined ? [] : [apartMs]));
  const packets =
    counts.packets === 0
      ? ""
      : `${counts.packets} packets, ${counts.lost} lost, ${counts.late} late, ${counts.segmentsLost} segments lost`;
  const cells = [
    kind,
    acts,
    accepted.toLocaleString("en"),
    refused.toLocaleString("en"),
    failures.length,
    leads.length,
    percentiles(leads),
    percentiles(recoveries.map(({ againMs }) => againMs)),
    percentiles(apart),
    packets,
    ends.length,
    Math.round(seconds),
  ];
  process.stdout.write(`| ${cells.join(" | ")} |\n`);
}

let orders: Order<Kind>[];
try {
  orders = readOrders(process.argv.slice(2), {
    all: KINDS,
    unknown: (name) => `Cannot make the fault "${name}": there is no such kind`,
    countOf: () => 100,
  });
} catch (error) {
  process.stderr.write(`${messageIn(error)}\n\n${USAGE}`);
  process.exit(2);
}
const end = async (why: string): Promise<void> => {
  process.stderr.write(`${why}\n`);
  await closeStages();
  process.exit(1);
};
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => void end(signal));
}
process.once("uncaughtException", (error) => void end(error.stack ?? error.message));
const failures: string[] = [];
process.stdout.write(
  "| kind | faults | told accepted | told refused | failures | new leads | until one leads, s: p50 / p90 / p99 / most | until all go on, s | longest without a relay, s | WebRTC packets | relays ended | s |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
);
for (const { what, ...options } of orders) {
  const report = await runCampaign(what, { ...options, onAct: (sentence) => process.stderr.write(`${sentence}\n`) });
  printRow(report);
  failures.push(...report.failures);
}
failures.forEach((failure) => process.stdout.write(`\n${failure}\n`));
process.exit(failures.length === 0 ? 0 : 1);
