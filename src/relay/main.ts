/**
 * `npm start`: one process that serves one run. It wires the store, the coordinator, the referee, the WebSocket and
 * WebRTC lanes and the HTTP face together, starts a contributor on this machine, prints a line for each version, and ends
 * cleanly on Ctrl-C. Killed at any moment it loses nothing: the next start folds the ledger and goes on.
 */
import { spawn, type ChildProcess } from "node:child_process";
import type { Server } from "node:http";
import { flushCompileCache } from "node:module";
import { join, resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { endingOf } from "../base/assert.ts";
import { outsideAddresses } from "../net/addresses.ts";
import type { RunView } from "../protocol/run-view.ts";
import { Closers } from "./closers.ts";
import { parseRelayConfig, RELAY_USAGE, type RelayConfig } from "./config.ts";
import { createDemoHost, listen } from "./http.ts";
import { createLog, type Log } from "./log.ts";
import { showPlace } from "./place.ts";
import { Relay, type End } from "./serve.ts";

const root = resolve(import.meta.dirname, "../..");

/** Serves the run until `closers` are closed; resolves when the relay is at work, and tells `stop` when it has to end. */
async function serve(config: RelayConfig, log: Log, closers: Closers, stop: (end: End) => void): Promise<void> {
  const relay = new Relay({
    config,
    log,
    closers,
    stop,
    dist: join(root, "dist"),
    onListening: async ({ port, view, kept }) => {
      const url = `http://${urlHost(config.host)}:${port}`;
      const demo = config.demoPort === 0 ? null : await serveDemo(config, url, closers);
      sayHello(log, config, view, { url, demo, kept });
      flushCompileCache(); // where there is one; a relay that is killed leaves it to the next start
      if (config.contributor) {
        startContributor(url, config, closers, log);
      }
    },
  });
  await relay.serve();
}

/** A page on another port that embeds the widget; the run goes on without it when its port is taken. */
async function serveDemo(config: RelayConfig, relay: string, closers: Closers): Promise<string | null> {
  const demo: Server = await createDemoHost(join(root, "src/widget/host/index.html"), relay);
  try {
    const port = await listen(demo, config.demoPort, config.host);
    closers.add(() => demo.close());
    return `http://${urlHost(config.host)}:${port}`;
  } catch {
    return null;
  }
}

interface Hello {
  readonly url: string;
  readonly demo: string | null;
  /** The place held a run already. */
  readonly kept: boolean;
}

function sayHello(log: Log, config: RelayConfig, view: RunView, { url, demo, kept }: Hello): void {
  const head = view.versions.at(-1);
  const version = head?.version ?? 0;
  const begun = version === 0 ? "A new run" : `The run goes on at version ${version}`;
  const lines = [
    "",
    `Heddle: ${begun}. ${view.charter.purpose}.`,
    `  ${view.parameters.toLocaleString("en")} parameters, evaluation loss ${head?.evalLoss.toFixed(4) ?? "unknown"} nats per byte, kept in ${showPlace(config)}`,
    ...(kept && (config.charter !== null || config.data.length > 0)
      ? [
          `  --charter and --data are for a new run: this one keeps its own. Name another ${config.nats === null ? "folder with --dir" : "store at the end of --nats"} to begin one.`,
        ]
      : []),
    "",
    `  Page:         ${url}/`,
    `  Widget demo:  ${demo === null ? demoAbsent(config) : `${demo}/`}`,
    `  Join:         npm run contribute -- --relay ${url}`,
    ...elsewhere(config.host, url),
    "",
    "Press Ctrl-C to stop; the run goes on where it was at the next start.",
  ];
  log.say(
    "listening",
    { url, demo, version, digest: head?.digest, run: view.run, parameters: view.parameters },
    lines.join("\n"),
  );
}

function demoAbsent({ demoPort }: RelayConfig): string {
  return demoPort === 0 ? "off" : `none, because port ${demoPort} cannot be had; choose another with --demo-port`;
}

/** Addresses for other machines, when the relay listens to them. */
function elsewhere(host: string, url: string): string[] {
  if (!isAnyAddress(host)) {
    return [];
  }
  const addresses = outsideAddresses().map((address) => url.replace("127.0.0.1", address));
  return [
    `  Elsewhere:    ${addresses.join(", ") || "this machine has no address that others can reach"}`,
    "                Other machines' browsers train over HTTPS only: put a TLS proxy in front; headless ones can join now.",
  ];
}

const COMPLAINT_CHARS_MAX = 2_000;
/** The contributor's exit code for what another start would not change, such as a model too big for this machine. */
const LASTING_CODE = 2;

/** The contributor of this machine, a process of its own that ends with this one and is started again if it dies. */
function startContributor(relay: string, config: RelayConfig, closers: Closers, log: Log): void {
  let closing = false;
  let child: ChildProcess;
  const begin = (): void => {
    const flags = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];
    const own = ["--json", "--no-finish", "--dir", join(config.dir, "contributor")]; // the relay it would send to stops with it
    const args = ["src/headless/main.ts", "--relay", relay, ...own];
    child = spawn(process.execPath, [...flags, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe", "ipc"] });
    let complaints = ""; // graphics drivers chatter on standard error; it matters only when the contributor fails
    child.stderr?.on("data", (chunk: Buffer) => {
      complaints = (complaints + chunk.toString()).slice(-COMPLAINT_CHARS_MAX);
    });
    if (child.stdout !== null) {
      createInterface(child.stdout).on("line", (line) => tellEngine(line, log));
    }
    const ended = (why: number | string | null): void => {
      if (closing) {
        return;
      }
      if (why === LASTING_CODE) {
        log.warn("contributor", { ended: why, complaints }, `\nThis machine does not contribute. ${complaints}`);
      } else {
        const sentence = `This machine's contributor ended (${why}); it starts again in 5 seconds. Its last words:`;
        log.warn("contributor", { ended: why, complaints }, `${sentence}\n${complaints}`);
        setTimeout(begin, 5_000).unref();
      }
    };
    child.once("exit", (code, signal) => ended(code ?? signal));
    child.on("error", (error) => {
      if (child.pid === undefined) {
        ended(error.message); // the system had no room for another process
      }
    });
  };
  begin();
  closers.add(async () => {
    closing = true;
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((settle) => {
        child.once("exit", settle);
      });
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 2_000);
      await ended;
      clearTimeout(timer);
    }
  });
}

/** The contributor's choice of engine is worth a line; the rest of what it prints shows in the versions. */
function tellEngine(line: string, log: Log): void {
  if (line.startsWith('{"event":"engine"')) {
    const { sentence } = JSON.parse(line) as { sentence: string };
    log.say("contributor", { engine: sentence }, `\nThis machine contributes. ${sentence}`);
  }
}

function isAnyAddress(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function urlHost(host: string): string {
  if (isAnyAddress(host)) {
    return "127.0.0.1";
  }
  return host.includes(":") ? `[${host}]` : host;
}

async function main(config: RelayConfig): Promise<number> {
  const log = createLog({
    format: config.log,
    debug: config.debug > 0,
    write: (text) => process.stdout.write(text),
    writeError: (text) => process.stderr.write(text),
  });
  const closers = new Closers();
  let stop: (end: End) => void = () => undefined;
  const stopped = new Promise<End>((settle) => {
    stop = settle;
  });
  process.on("SIGINT", () => stop({ reason: "Ctrl-C", code: 0 }));
  process.on("SIGTERM", () => stop({ reason: "asked to stop", code: 0 }));
  process.on("disconnect", () => stop({ reason: "its starter is gone", code: 0 }));
  process.stdout.on("error", () => stop({ reason: "nobody reads what it prints", code: 0 }));
  let code: End["code"];
  try {
    await Promise.race([serve(config, log, closers, stop), stopped]);
    const end = await stopped;
    code = end.code;
    // A second Ctrl-C does not wait. One press arrives more than once: from the terminal and from whoever started this.
    setTimeout(() => process.on("SIGINT", () => process.exit(130)), SAME_PRESS_MS).unref();
    log.say("stopping", { reason: end.reason }, `\nStopping (${end.reason}) …`);
  } catch (error) {
    const { sentence, exitCode } = endingOf(error);
    log.fail("failed", { exitCode }, sentence);
    return exitCode;
  } finally {
    await closers.close();
  }
  log.say("stopped", {}, "Stopped. Nothing was lost; start again to go on.");
  return code;
}

const SAME_PRESS_MS = 500;

/** The configuration; ends the process where there is nothing to run: help was asked for, or the flags cannot be used. */
function readConfig(): RelayConfig {
  try {
    const config = parseRelayConfig(process.argv.slice(2), process.env, process.stdout.isTTY);
    if (config !== "help") {
      return config;
    }
    process.stdout.write(`${RELAY_USAGE}\n`);
    process.exit(0);
  } catch (error) {
    const { sentence, exitCode } = endingOf(error);
    process.stderr.write(`${sentence}\n`);
    process.exit(exitCode);
  }
}

process.exit(await main(readConfig()));
