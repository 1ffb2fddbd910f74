/**
 * `npm run fuzz -- [TARGET …] [--count N] [--seed S] [--from I]`: malformed traffic for every entry, or for the named ones, each
 * target in a process of its own, so that a crash of native code, an endless loop and each one's memory are seen from outside.
 * Prints a table; exits with 1 when something failed, with 2 for arguments that cannot be used.
 */
import { fork } from "node:child_process";
import process from "node:process";
import { messageIn } from "../../src/base/assert.ts";
import { readOrders, type Order } from "../fixtures/orders.ts";
import { fuzz, type FuzzReport, type Target } from "./fuzz.ts";
import { TARGETS } from "./targets.ts";

/** A target that does not come on for so long hangs. */
const SILENCE_MS = 120_000;
const USAGE = `npm run fuzz -- [TARGET …] [--count N] [--seed S] [--from I]
  --count N   malformed inputs of each target (default: its own number, 1,000,000 where nothing waits for a socket)
  --seed S    a whole number (default 1)
  --from I    number of the first input: a failure's, to see it again
targets: ${TARGETS.map(({ name, inputs }) => `${name} (${inputs.toLocaleString("en")})`).join(", ")}
`;

/** What the process of a target tells: how far it is, then its report. */
type News =
  | { readonly type: "at"; readonly input: number }
  | ({ readonly type: "done"; readonly outcomes: readonly (readonly [string, number])[] } & Omit<
      FuzzReport,
      "outcomes"
    >);

/** In the process of one target. */
async function carryOut({ what: target, seed, from, count: inputs }: Order<Target>): Promise<void> {
  const tell = (news: News): void => void process.send?.(news);
  const onProgress = (input: number): void => tell({ type: "at", input });
  const report = await fuzz(target, { seed, from, inputs, onProgress });
  tell({ ...report, type: "done", outcomes: [...report.outcomes] });
  process.disconnect?.();
}

/** Resolves with what failed, or null. */
function runApart({ what: target, seed, from, count: inputs }: Order<Target>): Promise<string | null> {
  const args = [target.name, "--seed", `${seed}`, "--from", `${from}`, "--count", `${inputs}`];
  const child = fork(import.meta.filename, args, { env: { ...process.env, HEDDLE_FUZZ: "1" } });
  return new Promise((resolve) => {
    let [at, failure, told] = [from, null as string | null, false];
    const hang = (): void => {
      failure = `${target.name}, seed ${seed}: hangs after input ${at}`;
      child.kill("SIGKILL");
    };
    let timer = setTimeout(hang, SILENCE_MS);
    child.on("message", (news: News) => {
      clearTimeout(timer);
      timer = setTimeout(hang, SILENCE_MS);
      if (news.type === "at") {
        at = news.input;
        return;
      }
      told = true;
      ({ failure } = news);
      printRow(news);
    });
    child.on("exit", (code, signal) => {
      clearTimeout(timer);
      const crash = `${target.name}, seed ${seed}: the process ended with ${signal ?? code} after input ${at}`;
      resolve(failure ?? (told && code === 0 ? null : crash));
    });
  });
}

function printRow({
  target,
  inputs,
  outcomes,
  seconds,
  heapBefore,
  heapAfter,
  slowestMs,
}: Extract<News, { type: "done" }>): void {
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
  const said = outcomes.map(([outcome, times]) => `${outcome} ${times.toLocaleString("en")}`).join(", ");
  const rate = Math.round(inputs / seconds).toLocaleString("en");
  process.stdout.write(
    `| ${target} | ${inputs.toLocaleString("en")} | ${said} | ${rate} | ${megabytes(heapBefore)} → ${megabytes(heapAfter)} | ${Math.ceil(slowestMs)} |\n`,
  );
}

let orders: Order<Target>[];
try {
  orders = readOrders(process.argv.slice(2), {
    all: TARGETS,
    unknown: (name) => `Cannot fuzz "${name}": there is no such target`,
    countOf: ({ inputs }) => inputs,
  });
} catch (error) {
  process.stderr.write(`${messageIn(error)}\n\n${USAGE}`);
  process.exit(2);
}
if (process.env["HEDDLE_FUZZ"] === "1") {
  for (const order of orders) {
    await carryOut(order);
  }
} else {
  process.stdout.write(
    "| target | inputs | came to | inputs/s | memory, MB | slowest, ms |\n|---|---|---|---|---|---|\n",
  );
  const failures: string[] = [];
  for (const order of orders) {
    const failure = await runApart(order);
    if (failure !== null) {
      failures.push(failure);
      process.stdout.write(`\n${failure}\n\n`);
    }
  }
  process.exitCode = failures.length === 0 ? 0 : 1;
}
