/**
 * `npm start`: one process that serves one run. It wires the store, the coordinator, the referee, the WebSocket and
 * WebRTC lanes and the HTTP face together, starts a contributor on this machine, prints a line for each version, and ends
 * cleanly on Ctrl-C. Killed at any moment it loses nothing: the next start folds the ledger and goes on.
 */
import { spawn, type ChildProcess } from "node:child_process";
import type { Server } from "node:http";
import { hostname, networkInterfaces } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { endingOf, messageIn } from "../base/assert.ts";
import { createCoordinatorHost, type CoordinatorHost } from "../coordinator/host.ts";
import { initialParameters, parameterLayout } from "../model/layout.ts";
import { verifySignature } from "../net/device-key.ts";
import { loadDeviceKey, loadStoredKey } from "../net/device-key-node.ts";
import { createRtcAnswerer } from "../net/rtc-node.ts";
import { serveBlob } from "../net/serve-blob.ts";
import { systemClock } from "../net/system-clock.ts";
import { acceptWebSockets, type AcceptWebSocketsOptions } from "../net/ws-server.ts";
import { hashBytes } from "../store/hash.ts";
import { acquireLease, type Lease } from "../store/lease.ts";
import type { Store } from "../store/store.ts";
import { loadMergeKernel } from "../wasm/merge.ts";
import { KEY_FILE } from "./backup.ts";
import { parseRelayConfig, RELAY_USAGE, type RelayConfig } from "./config.ts";
import { createDemoHost, createHttpFace, listen, shut } from "./http.ts";
import { openIce } from "./ice.ts";
import { createLog, type Log } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import { createOperatorFace, operationsIn, whyUnready, type Standing } from "./operator-face.ts";
import { operationsOf } from "./operations.ts";
import { listenOnSocket } from "./operator-socket.ts";
import { openPlace, showPlace } from "./place.ts";
import { prefixOfRequest } from "./prefix.ts";
import { startReferee } from "./referee.ts";
import { openRun } from "./run.ts";
import { createSecretRng } from "./secret-rng.ts";

const root = resolve(import.meta.dirname, "../..");

/** Closes everything that was opened, last first. */
class Closers {
  readonly #closers: (() => unknown)[] = [];
  add(close: () => unknown): void {
    this.#closers.push(close);
  }
  async close(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) {
      await close();
    }
  }
}

/** Why the relay ends. */
interface End {
  readonly reason: string;
  readonly code: 0 | 1;
}

async function serve(config: RelayConfig, log: Log, closers: Closers, stop: (end: End) => void): Promise<void> {
  const fail = (error: unknown): void => {
    const why = messageIn(error);
    log.fail("failing", { error: why }, `The relay cannot go on: ${why}`);
    stop({ reason: "the relay cannot go on", code: 1 });
  };
  const metrics = createMetrics();
  let standing: Standing = { type: "loading" };
  const unready = (): Promise<string | null> => whyUnready(standing);
  if (config.metricsPort !== 0) {
    const operators = createOperatorFace({ metrics, unready });
    await listen(operators, config.metricsPort, config.metricsHost, "--metrics-port");
    closers.add(() => shut(operators, ANSWER_MS));
  }
  const place = await openPlace(config);
  closers.add(() => place.close());
  const store = metrics.watchStore(place);
  const socket = createOperatorFace({ metrics, unready, operations: () => operationsIn(standing) });
  closers.add(() => shut(socket, ANSWER_MS));
  await listenOnSocket(socket, config.dir).catch((error: unknown) => {
    // The run does not depend on it: a folder's path may be too long, a system may have no such sockets.
    log.warn("operator", {}, `${endingOf(error).sentence}; "npm run admin" cannot reach this relay`);
  });
  const onWait = (leader: string): void => {
    standing = { type: "standby", leader };
    log.say("standby", { leader }, `This run is served by ${leader}; this one takes over when that ends …`);
  };
  const lease = config.nats === null ? null : await takeLease(store, onWait);
  standing = { type: "loading" };
  metrics.lead(true);
  if (lease !== null) {
    closers.add(() => lease.release());
    void lease.lost.then((reason) => {
      metrics.lead(false);
      fail(new Error(reason));
    });
  }
  const key =
    lease === null ? await loadDeviceKey(join(config.dir, KEY_FILE)) : await loadStoredKey(store.keys, KEY_FILE);
  const run = await openRun(store, config);
  const parameters = parameterLayout(run.charter.model).size;
  if (parameters * run.charter.inner.batch * run.charter.model.time >= SLOW_WORK) {
    const sentence = `Measuring a model of ${parameters.toLocaleString("en")} parameters; on this processor that takes a while, now and for each version …`;
    log.say("measuring", { parameters }, sentence);
  }
  const referee = await startReferee(run.charter, run.train, run.evaluation);
  closers.add(() => referee.close());
  void referee.died.then(fail);
  const answerer = await createRtcAnswerer(config.rtcPort === 0 ? {} : { port: config.rtcPort });
  closers.add(() => answerer.close("The relay is stopping; it will be back"));
  const iceServers = await openIce(config.ice, systemClock);

  const host = await createCoordinatorHost({
    store,
    charter: run.charter,
    clock: systemClock,
    rng: createSecretRng(),
    key,
    ...(lease === null ? {} : { epoch: lease.epoch }),
    verify: verifySignature,
    hash: hashBytes,
    referee: metrics.watchReferee(referee),
    openMergeKernel: await loadMergeKernel(),
    initial: () => initialParameters(run.charter.model),
    answerRtc: (sdp, attach) => answerer.answer(sdp, attach),
    iceServers,
    gate: { prefixShare: config.prefixShare },
    onEntry: (entry) => metrics.entry(entry),
    onFact: (fact) => metrics.fact(fact),
    onVersion: (version) => {
      log.version(version);
      face.announce(version);
      if (config.untilVersion > 0 && version.version >= config.untilVersion) {
        stop({ reason: `version ${version.version} was reached`, code: 0 });
      }
    },
    onDrained: () => stop({ reason: "the relay is drained", code: 0 }),
    onChange: () => face.announce(null),
    onFailure: fail,
    log: (sentence) => log.debug(sentence),
  });
  closers.add(() => host.close());
  metrics.watch(host);
  const operations = operationsOf({ dir: config.dir, host, store, charter: run.charter });
  standing = { type: "serving", host, store, operations };
  const face = createHttpFace({
    dist: join(root, "dist"),
    view: () => host.view(),
    log: store.log,
    blob: (request, response, digest) => {
      void serveBlob({
        request,
        response,
        digest,
        blobs: store.blobs,
        isPublic: (wanted) => host.isPublic(wanted),
        onSent: (bytes) => {
          metrics.download(bytes);
          if (request.url?.endsWith("?observer") !== true) {
            host.countDownload(bytes);
          }
        },
      });
    },
  });
  closers.add(() => face.close());
  const attach: AcceptWebSocketsOptions["attach"] = (link, { request, hold }) =>
    host.attach(link, { prefix: prefixOfRequest(request, config.proxyHeader), hold });
  const links = acceptWebSockets({ server: face.server, attach });
  closers.add(() => links.close("The relay is stopping; it will be back"));
  const port = await listen(face.server, config.port, config.host);
  const url = `http://${urlHost(config.host)}:${port}`;
  const demo = config.demoPort === 0 ? null : await serveDemo(config, url, closers);
  sayHello(log, config, host, { url, demo, kept: run.kept });
  if (config.contributor) {
    startContributor(url, config, closers, log);
  }
}

/** Waits, as a standby, until no other process serves the run of this store. */
function takeLease({ keys }: Store, onWait: (leader: string) => void): Promise<Lease> {
  return acquireLease({
    keys,
    key: "leader",
    clock: systemClock,
    holder: `process ${process.pid} on ${hostname()}`,
    onWait,
  });
}

/** An operator who has the relay drained gets an answer before it ends. */
const ANSWER_MS = 1_000;
/** Parameters times tokens of a batch, from which on the first measurement takes so long that a person wonders. */
const SLOW_WORK = 1e10;

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

function sayHello(log: Log, config: RelayConfig, host: CoordinatorHost, { url, demo, kept }: Hello): void {
  const view = host.view();
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
  const addresses = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter(({ internal, family }) => !internal && family === "IPv4")
    .map(({ address }) => url.replace("127.0.0.1", address));
  return [
    `  Elsewhere:    ${addresses.join(", ") || "this machine has no address that others can reach"}`,
    "                Other machines' browsers train over HTTPS only: put a TLS proxy in front; headless ones can join now.",
  ];
}

const COMPLAINT_CHARS_MAX = 2_000;
/** The contributor's exit code for what another try would not change, such as a model too big for this machine. */
const BAD_INPUT_CODE = 2;

/** The contributor of this machine, a process of its own that ends with this one and is started again if it dies. */
function startContributor(relay: string, config: RelayConfig, closers: Closers, log: Log): void {
  let closing = false;
  let child: ChildProcess;
  const begin = (): void => {
    const flags = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];
    const args = ["src/headless/main.ts", "--relay", relay, "--json", "--dir", join(config.dir, "contributor")];
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
      if (why === BAD_INPUT_CODE) {
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
