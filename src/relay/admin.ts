/**
 * `npm run admin -- COMMAND`: what an operator does with a relay, whether it runs or not. It asks the relay that runs in the
 * folder over the operator's socket; where none runs it works on the folder itself.
 */
import { createReadStream, createWriteStream } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { resolve } from "node:path";
import process from "node:process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { HeddleError } from "../base/assert.ts";
import { isDigest, type Bytes, type ContributorId } from "../base/bytes.ts";
import { checkLedger } from "../coordinator/check.ts";
import type { OperatorCommand } from "../coordinator/live.ts";
import { CHECKPOINTS_KEPT } from "../coordinator/state.ts";
import { verifySignature } from "../net/device-key.ts";
import { readLedger, writeLedger } from "../protocol/ledger-file.ts";
import { backUp, restore, restoreInto, type BackupReport } from "./backup.ts";
import { runCommand, TERMINAL, type Terminal } from "./command-line.ts";
import { tallyContributors } from "./tally.ts";
import { bytes } from "./log.ts";
import { operationsAtRest, type Operations } from "./operations.ts";
import { openPlace, PLACE_OPTIONS, readPlace, showPlace, type Place } from "./place.ts";
import { isCheckpoints, type PruneOptions } from "./prune.ts";
import { connectOperations, type RunningOperations } from "./operator-socket.ts";
import { contributorLines, statusLines } from "./admin-print.ts";

const USAGE = `npm run admin -- COMMAND [--dir FOLDER]

  status                        the run, who is connected, what is stored
  contributors                  every device the ledger knows, with its verdicts
  pause | resume                open no more rounds (the one under way ends), and open them again
  drain                         let nobody new in, finish the round, end the relay
  ban DEVICE --reason TEXT      exclude a device (64 hexadecimal digits, see contributors); it is told the reason,
                                and the public ledger keeps it
  unban DEVICE
  ledger export FILE            write the ledger to a file that anybody can check
  ledger verify [FILE]          check numbers, digests, signatures and sense of the ledger, or of such a file
  backup DIR                    copy ledger, keys, blobs and the relay's key into a new folder, while the relay runs
  restore DIR                   check a backup and make the folder of --dir from it, or fill the store of --nats
  blobs prune                   delete blobs that neither the run's state nor a data set needs

  --dir FOLDER                  the relay's folder (default .heddle/relay); a run on NATS is operated through the folder
                                of any relay that serves it
  --nats ADDRESS                with backup and restore: the run on NATS at the address that relays are given, which
                                must hold nothing before a restore
  --checkpoints N               with blobs prune: keep N whole checkpoints (1 to ${CHECKPOINTS_KEPT}; default ${CHECKPOINTS_KEPT})
  --dry-run                     with blobs prune: only say what would be deleted
  --json                        with status and contributors: print JSON
  --help                        print this text`;

type Command =
  | { readonly type: "status" | "contributors"; readonly json: boolean }
  | { readonly type: "operate"; readonly command: OperatorCommand }
  | { readonly type: "export"; readonly file: string }
  | { readonly type: "verify"; readonly file: string | null }
  | { readonly type: "backup"; readonly folder: string }
  | { readonly type: "restore"; readonly folder: string }
  | { readonly type: "prune"; readonly options: PruneOptions };

/** What the command needs from outside. */
export interface AdminSurroundings extends Terminal {
  /** Waits, when a relay is to end. */
  readonly sleep: (ms: number) => Promise<void>;
  readonly nowMs: () => number;
}

/** Runs the command; resolves to the exit code. */
export function runAdmin(args: readonly string[], surroundings: AdminSurroundings): Promise<number> {
  return runCommand(surroundings, {
    usage: USAGE,
    parse: () => parseAdmin(args),
    carryOut: ({ command, place }) => carryOut(command, place, surroundings),
  });
}

function parseAdmin(args: readonly string[]): { readonly command: Command; readonly place: Place } | "help" {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      ...PLACE_OPTIONS,
      reason: { type: "string" },
      checkpoints: { type: "string" },
      "dry-run": { type: "boolean" },
      json: { type: "boolean" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    return "help";
  }
  const { reason, json = false, checkpoints = CHECKPOINTS_KEPT, "dry-run": dryRun = false } = values;
  const command = readWords(positionals, { reason, json, dryRun, checkpoints: Number(checkpoints) });
  if (command === null) {
    throw new HeddleError("bad-input", `Cannot do "${positionals.join(" ")}": it is none of the commands`);
  }
  for (const [flag, words] of FLAG_WORDS) {
    if (values[flag] !== undefined && !words.includes(positionals[0] ?? "")) {
      throw new HeddleError(
        "bad-input",
        `Cannot use --${flag} with "${positionals[0]}": it is for ${words.join(", ")}`,
      );
    }
  }
  return { command, place: readPlace(values) };
}

/** Flags that few commands know, and their first words: whoever asks others for a dry run must not get a real one. */
const FLAG_WORDS: readonly (readonly ["reason" | "checkpoints" | "dry-run" | "json" | "nats", readonly string[]])[] = [
  ["reason", ["ban"]],
  ["checkpoints", ["blobs"]],
  ["dry-run", ["blobs"]],
  ["json", ["status", "contributors"]],
  ["nats", ["backup", "restore"]],
];

interface Flags {
  readonly reason: string | undefined;
  readonly json: boolean;
  readonly dryRun: boolean;
  readonly checkpoints: number;
}

function readWords(words: readonly string[], { reason, json, dryRun, checkpoints }: Flags): Command | null {
  const [first, second, third] = words;
  const shape = `${first ?? ""} ${words.length}`;
  switch (shape) {
    case "status 1":
    case "contributors 1":
      return { type: first as "status" | "contributors", json };
    case "pause 1":
    case "resume 1":
    case "drain 1":
      return { type: "operate", command: { type: first as "pause" | "resume" | "drain" } };
    case "ban 2":
      if (reason === undefined) {
        throw new HeddleError(
          "bad-input",
          "Cannot ban: say why with --reason; the device is told, and the ledger keeps it",
        );
      }
      return { type: "operate", command: { type: "ban", contributor: readDevice(second), why: reason } };
    case "unban 2":
      return { type: "operate", command: { type: "unban", contributor: readDevice(second) } };
    case "ledger 2":
      return second === "verify" ? { type: "verify", file: null } : null;
    case "ledger 3":
      if (second === "export" || second === "verify") {
        return { type: second, file: third ?? "" };
      }
      return null;
    case "backup 2":
    case "restore 2":
      return first === "backup" ? { type: "backup", folder: second ?? "" } : { type: "restore", folder: second ?? "" };
    case "blobs 2":
      if (!isCheckpoints(checkpoints)) {
        const sentence = `Cannot use --checkpoints: it must be a whole number from 1 to ${CHECKPOINTS_KEPT}, which is what a relay keeps`;
        throw new HeddleError("bad-input", sentence);
      }
      return second === "prune" ? { type: "prune", options: { checkpoints, dryRun } } : null;
    default:
      return null;
  }
}

function readDevice(text: string | undefined): ContributorId {
  if (!isDigest(text)) {
    throw new HeddleError(
      "bad-input",
      `Cannot use the device "${text}": it is named by 64 lower-case hexadecimal digits`,
    );
  }
  return text as string as ContributorId;
}

async function carryOut(command: Command, place: Place, surroundings: AdminSurroundings): Promise<void> {
  const { print } = surroundings;
  const { dir } = place;
  if (command.type === "restore") {
    await restoreTo(place, command.folder, surroundings);
    return;
  }
  if (command.type === "backup" && place.nats !== null) {
    const store = await openPlace(place, { onWarning: surroundings.printError, existing: true });
    try {
      sayBackup(await backUp(store, dir, resolve(command.folder)), print);
    } finally {
      await store.close();
    }
    return;
  }
  if (command.type === "verify" && command.file !== null) {
    await verify(readLedger(createReadStream(await existing(command.file))), print);
    return;
  }
  const running = await connectOperations(dir);
  const operations = running ?? (await operationsAtRest(dir));
  try {
    await work(command, operations, surroundings);
    if (command.type === "operate" && command.command.type === "drain" && running !== null) {
      await waitForEnd(dir, running.process, surroundings);
    }
  } finally {
    await operations.close();
  }
}

async function work(
  command: Exclude<Command, { readonly type: "restore" }>,
  operations: Operations,
  { print, nowMs }: AdminSurroundings,
): Promise<void> {
  switch (command.type) {
    case "status": {
      const status = await operations.status();
      (command.json ? [JSON.stringify(status)] : statusLines(status, nowMs())).forEach(print);
      return;
    }
    case "contributors": {
      const tallies = await tallyContributors(operations.entries());
      const { sessions } = await operations.status();
      const working = new Map(sessions.map(({ contributor, work: task }) => [contributor, task ?? "waits"] as const));
      const lines = command.json
        ? tallies.map((tally) => JSON.stringify({ ...tally, now: working.get(tally.contributor) ?? null }))
        : contributorLines(tallies, working, nowMs());
      lines.forEach(print);
      return;
    }
    case "operate":
      await operations.operate(command.command);
      print(SENTENCES[command.command.type]);
      return;
    case "export": {
      const entries = await exportLedger(operations.entries(), command.file);
      print(`Wrote ${entries} ledger entries to "${command.file}"`);
      return;
    }
    case "verify":
      await verify(operations.entries(), print);
      return;
    case "backup": {
      sayBackup(await operations.backUp(resolve(command.folder)), print);
      return;
    }
    case "prune": {
      const report = await operations.prune(command.options);
      const what = `${report.superfluous} superfluous blobs (${bytes(report.bytes)})`;
      const cutOff = report.cutOff === 0 ? "" : `, and the rests of ${report.cutOff} that were cut off`;
      print(`${report.deleted ? "Deleted" : "There are"} ${what}${cutOff}; ${report.kept} are needed`);
      return;
    }
    default:
      command satisfies never;
  }
}

async function restoreTo(place: Place, from: string, { print, printError }: Terminal): Promise<void> {
  const shown = showPlace(place);
  const { ledger, blobs, damaged, already } =
    place.nats === null
      ? await restore(from, place.dir)
      : await restoreInto(from, { open: () => openPlace(place, { onWarning: printError }), shown });
  const start = place.nats === null ? `--dir ${place.dir}` : "the same --nats";
  const done = already ? "Restored before:" : "Restored";
  print(`${done} ${ledger.entries} ledger entries and ${blobs} blobs into "${shown}"; start the relay with ${start}`);
  sayDamaged(damaged, print);
}

function sayBackup({ to, blobs, bytes: size, damaged }: BackupReport, print: (line: string) => void): void {
  print(`Backed up the ledger and ${blobs} blobs (${bytes(size)}) into "${to}"`);
  sayDamaged(damaged, print);
  print(
    "It holds the relay's key: whoever has it can go on with this ledger. Keep it as secret as the relay's folder.",
  );
}

function sayDamaged(blobs: number, print: (line: string) => void): void {
  if (blobs > 0) {
    print(`Left out, since they are damaged and the run does not need them: ${blobs} blobs of older versions`);
  }
}

const SENTENCES: Readonly<Record<OperatorCommand["type"], string>> = {
  pause: "Paused: no more rounds are opened; the one under way ends",
  resume: "Resumed: rounds are opened again",
  drain: "Draining: nobody new is let in, and the relay ends with the round, or as soon as another goes on",
  ban: "Banned: the device is told why, and its unjudged work is refused",
  unban: "Unbanned: the device may come back when its person starts it again",
};

const LOOK_MS = 500;
/** Waits no longer for a drain: by the sample charter a round takes well under a minute, by others as long as they say. */
const DRAIN_MS_MAX = 3_600_000;

/** `asked`: the process that drains. Throws HeddleError when another answers in its place, or it goes on for too long. */
async function waitForEnd(dir: string, asked: string, { print, sleep, nowMs }: AdminSurroundings): Promise<void> {
  const untilMs = nowMs() + DRAIN_MS_MAX;
  for (let found = await look(dir); found !== "ended"; found = await look(dir)) {
    if (found !== "ending" && found.process !== asked) {
      const sentence = `Cannot leave "${dir}" without a relay: the one that was to drain has ended, and now ${found.process}, runs`;
      throw new HeddleError("store", `${sentence}; have what starts it again (systemd, compose) stop it instead`);
    }
    if (nowMs() >= untilMs) {
      const sentence = `Cannot wait for the relay's end any longer: it has not come within ${DRAIN_MS_MAX / 60_000} min`;
      throw new HeddleError("limit", `${sentence}; SIGTERM would end it at once and lose nothing`);
    }
    await sleep(LOOK_MS);
  }
  print("Drained: the relay has ended");
}

/** The relay in the folder. One that ends closes its socket and then gives up its folder, if its run is kept there. */
async function look(dir: string): Promise<RunningOperations | "ending" | "ended"> {
  try {
    const running = await connectOperations(dir);
    if (running !== null) {
      return running;
    }
    await (await operationsAtRest(dir)).close();
    return "ended";
  } catch (error) {
    if (!(error instanceof HeddleError)) {
      throw error;
    }
    // The folder is in use, or the relay just closes its socket; else its run is kept elsewhere.
    return error.code === "store" || error.code === "unreachable" ? "ending" : "ended";
  }
}

/** Writes beside `file` first: what has its name is whole. Returns how many entries it wrote. */
async function exportLedger(entries: AsyncIterable<Bytes>, file: string): Promise<number> {
  if ((await stat(file).catch(() => null)) !== null) {
    throw new HeddleError("bad-input", `Cannot export the ledger: "${file}" exists; name another file`);
  }
  let count = 0;
  async function* counted(): AsyncGenerator<Bytes> {
    for await (const entry of entries) {
      count += 1;
      yield entry;
    }
  }
  try {
    await pipeline(Readable.from(writeLedger(counted())), createWriteStream(`${file}.partial`, { flush: true }));
    await rename(`${file}.partial`, file);
  } catch (error) {
    await rm(`${file}.partial`, { force: true });
    throw error instanceof HeddleError
      ? error
      : new HeddleError("store", `Cannot export the ledger: ${String(error)}`, { cause: error });
  }
  return count;
}

async function verify(entries: AsyncIterable<Bytes>, print: (line: string) => void): Promise<void> {
  const { entries: count, digest, relay, signed, unknown, durable } = await checkLedger(entries, verifySignature);
  print(
    `The ledger holds together: ${count} entries, up to version ${durable.head.version} and round ${durable.round}`,
  );
  print(`  run         ${durable.run}`);
  print(`  signed by   ${relay}`);
  print(`  last entry  ${digest}`);
  const unchecked = unknown === 0 ? "" : `; of ${unknown} the device was introduced too long ago to check it`;
  print(`  authors     ${signed} contributions carry the signatures of their devices${unchecked}`);
  print("Compare the key or the last entry with what you know from elsewhere: a ledger cannot vouch for itself.");
}

async function existing(file: string): Promise<string> {
  const about = await stat(file).catch(() => null);
  if (about?.isFile() !== true) {
    throw new HeddleError("bad-input", `Cannot read "${file}": there is no such file`);
  }
  return file;
}

if (import.meta.main) {
  process.stdout.on("error", () => process.exit(1)); // nobody reads on
  process.exitCode = await runAdmin(process.argv.slice(2), {
    ...TERMINAL,
    sleep: (ms) => new Promise((settle) => setTimeout(settle, ms)),
    nowMs: () => Date.now(),
  });
}
