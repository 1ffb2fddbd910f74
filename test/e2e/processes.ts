/**
 * Starts real relays and contributors as child processes for the end-to-end tests, and reads what they print as JSON lines.
 * Every child is stopped by its process id; nothing listens beyond loopback.
 */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { messageIn } from "../../src/base/assert.ts";
import { runAdmin } from "../../src/relay/admin.ts";

export const ROOT = resolve(import.meta.dirname, "../..");
const NODE = join(ROOT, "node_modules/.bin/node");
const FLAGS = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];

export interface PrintedEvent {
  readonly event: string;
  readonly [field: string]: unknown;
}

export interface Running {
  readonly pid: number;
  readonly events: readonly PrintedEvent[];
  /** The first event, past or future, that fits. Rejects when the process ends or `timeoutMs` passes before it. */
  waitFor(fits: (event: PrintedEvent) => boolean, timeoutMs?: number): Promise<PrintedEvent>;
  /** Sends a signal and resolves with the exit code (null when it was killed), when all that it printed has been read. */
  stop(signal: NodeJS.Signals): Promise<number | null>;
  readonly exited: Promise<number | null>;
  /** Everything on standard error, and what a relay's log calls an error, for messages of failing tests. */
  errors(): string;
}

export interface RunningRelay extends Running {
  readonly origin: string;
  readonly demoOrigin: string;
}

/** What a process has printed is read to the end, but for so long at most: those that it started may hold its output open. */
const HEIRS_MS = 2_000;
/** A port that was had before may be taken for a while, by a connection of this machine. */
const PORT_MS = 10_000;
const PORT_PAUSE_MS = 250;

/** A charter small enough that a round takes about two seconds, so that a test sees several. */
export const QUICK_CHARTER = {
  model: { channels: 32, layers: 1, heads: 2, kvHeads: 1, hidden: 64, time: 32 },
  inner: { batch: 4, learningRate: 5e-3 },
  round: { trainMs: 1_200, stepsMax: 40, graceMs: 3_000, judgeMs: 5_000 },
};

export function temporaryFolder(): { readonly path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), "heddle-"));
  // The contributor of a relay that was killed ends a moment after it, and writes until then.
  return {
    path,
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }),
  };
}

export interface RelayOptions {
  readonly dir: string;
  readonly charter?: object;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly port?: number;
}

/** Starts a relay and waits until it serves its run; where it asks for a port, until that is free, too. */
export function startRelay(options: RelayOptions): Promise<RunningRelay> {
  return untilFree(async () => {
    const running = launchRelay(options);
    const listening = await running.waitFor(({ event }) => event === "listening", 60_000);
    return { ...running, origin: String(listening["url"]), demoOrigin: String(listening["demo"] ?? "") };
  });
}

/** Starts what listens again while its port is taken. */
export async function untilFree<T>(begin: () => Promise<T>): Promise<T> {
  for (const patienceMs = Date.now() + PORT_MS; ;) {
    try {
      return await begin();
    } catch (error) {
      if (!messageIn(error).includes("Cannot listen on ") || Date.now() > patienceMs) {
        throw error;
      }
    }
    await new Promise((settle) => setTimeout(settle, PORT_PAUSE_MS));
  }
}

export function launchRelay({ dir, charter = QUICK_CHARTER, args = [], env = {}, port = 0 }: RelayOptions): Running {
  mkdirSync(dir, { recursive: true });
  const charterFile = join(dir, "charter.json");
  writeFileSync(charterFile, JSON.stringify(charter));
  const place = ["--port", String(port), "--dir", join(dir, "relay"), "--charter", charterFile];
  return start(["src/relay/main.ts", "--log", "json", ...place, ...args], env);
}

export function startContributor(
  relay: string,
  dir: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Running {
  return start(["src/headless/main.ts", "--json", "--relay", relay, "--dir", dir, ...args], env);
}

export function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): Running {
  const child = spawn(NODE, [...FLAGS, ...args], {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const events: PrintedEvent[] = [];
  const waiting = new Set<() => void>();
  let errors = "";
  let rest = "";
  let ending: string | null = null;
  const exited = new Promise<number | null>((settle) => {
    const end = (code: number | null, signal: NodeJS.Signals | null): void => {
      ending = String(code ?? signal);
      settle(code);
      for (const wake of waiting) {
        wake();
      }
    };
    // It may have ended before its last words are here.
    child.once("exit", (code, signal) => {
      const heirs = setTimeout(() => end(code, signal), HEIRS_MS);
      child.once("close", () => clearTimeout(heirs));
    });
    child.once("close", end);
  });
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  child.stdout.on("data", (chunk: Buffer) => {
    const lines = `${rest}${chunk.toString()}`.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines.filter((text) => text.startsWith("{"))) {
      const event = JSON.parse(line) as PrintedEvent;
      events.push(event);
      errors += event["level"] === "error" ? `${String(event["msg"])}\n` : "";
    }
    for (const wake of waiting) {
      wake();
    }
  });
  return {
    pid: child.pid ?? -1,
    events,
    exited,
    errors: () => errors,
    waitFor: (fits, timeoutMs = 60_000) =>
      waitForEvent({ events, waiting, ending: () => ending, errors: () => errors }, fits, timeoutMs),
    stop: async (signal) => {
      child.kill(signal);
      return exited;
    },
  };
}

interface Heard {
  readonly events: readonly PrintedEvent[];
  /** Called when there is more, and at the end. */
  readonly waiting: Set<() => void>;
  /** Exit code or signal, once nothing more is to come. */
  ending(): string | null;
  errors(): string;
}

function waitForEvent(
  { events, waiting, ending, errors }: Heard,
  fits: (event: PrintedEvent) => boolean,
  timeoutMs: number,
): Promise<PrintedEvent> {
  return new Promise((settle, reject) => {
    const done = (act: () => void): void => {
      clearTimeout(timer);
      waiting.delete(check);
      act();
    };
    const check = (): void => {
      const found = events.find(fits);
      if (found !== undefined) {
        done(() => settle(found));
      } else if (ending() !== null) {
        done(() => reject(new Error(`The process ended (${ending()}) before the event.\n${errors()}`)));
      }
    };
    const timer = setTimeout(() => {
      const seen = events.slice(-8).map((event) => JSON.stringify(event));
      done(() =>
        reject(new Error(`No such event within ${timeoutMs} ms. Last events:\n${seen.join("\n")}\n${errors()}`)),
      );
    }, timeoutMs);
    waiting.add(check);
    check();
  });
}

export function isVersion(least: number): (event: PrintedEvent) => boolean {
  return ({ event, version }) => event === "version" && Number(version) >= least;
}

interface Said {
  readonly code: number;
  readonly text: string;
}

/** An admin of the relay that is kept in `dir`. */
export function adminOf(dir: string): (...words: string[]) => Promise<Said> {
  return async (...words) => {
    const lines: string[] = [];
    const say = (line: string): unknown => lines.push(line);
    const sleep = (ms: number): Promise<void> => new Promise((settle) => setTimeout(settle, ms));
    const surroundings = { print: say, printError: say, sleep, nowMs: () => Date.now() };
    const code = await runAdmin([...words, "--dir", join(dir, "relay")], surroundings);
    return { code, text: lines.join("\n") };
  };
}
