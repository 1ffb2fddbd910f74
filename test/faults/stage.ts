/** The relays and NATS servers of a campaign: real processes on loopback, which are killed and started again, and watched for ends of their own. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { assert, present } from "../../src/base/assert.ts";
import type { RunView } from "../../src/protocol/run-view.ts";
import { startNats, type Nats } from "../../src/store/nats-server.fixture.ts";
import { adminOf, launchRelay, temporaryFolder, type PrintedEvent, type Running } from "../e2e/processes.ts";
import { openLine, type Line } from "../fixtures/line.ts";

/**
 * A round takes some 0.3 s. Every update is taken, or there would be less to lose, and travels as f64 without a rest, so that it has
 * pieces and packets enough to lose some.
 */
function charterOf(channels: number): object {
  return {
    model: { channels, layers: 1, heads: 2, kvHeads: 1, hidden: 2 * channels, time: 32 },
    inner: { batch: 2, learningRate: 5e-3 },
    uplink: { keep: 4096, bits: 64, beta: 1, together: 0, carry: false },
    round: { trainMs: 300, stepsMax: 6, graceMs: 6_000, judgeMs: 4_000 },
    trust: { normMax: 0, improvementMin: -1, improvementShare: 0, harmMax: 1, auditShare: 0.5, sequences: 2 },
  };
}

const START_MS = 60_000;
const SETTLE_MS = 30_000;

export interface Relay {
  readonly name: string;
  readonly dir: string;
  readonly process: Running;
  /** 0 before it listens. */
  port: number;
  /** It was asked to end. */
  leaving?: boolean;
}

export interface StageOptions {
  /** Relays that share the run; one alone keeps it in its folder where there are no NATS servers. */
  readonly relays: number;
  readonly natsServers: number;
  /** Of the model, C: updates have 8 bytes a parameter, 53 kB for 16 channels and 141 kB for 32. */
  readonly channels: number;
  /** Relays may end by themselves with exit code 1, as one that was deposed does, and are started again. */
  readonly mayEnd?: boolean;
}

/** Those whose processes are not ended yet. */
const open = new Set<Stage>();

/** For a campaign that is stopped or breaks. */
export async function closeStages(): Promise<void> {
  await Promise.all([...open].map((stage) => stage.close()));
}

/** A class because processes must be ended. */
export class Stage {
  readonly #options: StageOptions;
  readonly #folder = temporaryFolder();
  readonly #relays = new Map<string, Relay>();
  readonly #lines = new Map<string, Line>();
  #nats: Nats | null = null;
  #closing = false;
  /** Relays that ended though nobody killed them, with why. */
  readonly ends: string[] = [];

  private constructor(options: StageOptions) {
    this.#options = options;
    open.add(this);
  }

  static async open(options: StageOptions): Promise<Stage> {
    const stage = new Stage(options);
    try {
      if (options.natsServers > 0) {
        stage.#nats = await startNats({ dir: stage.#folder.path, servers: options.natsServers });
      }
      for (let i = 0; i < options.relays; i += 1) {
        await stage.launch(`relay-${i}`);
      }
      return stage;
    } catch (error) {
      await stage.close();
      throw error;
    }
  }

  get nats(): Nats {
    return present(this.#nats, "NATS servers");
  }

  relays(): Relay[] {
    return [...this.#relays.values()];
  }

  /** Where contributors can go now. */
  ports(): number[] {
    return this.relays().flatMap(({ port }) => (port === 0 ? [] : [port]));
  }

  /** The relay that said last that it leads; one alone always does. */
  leader(): Relay {
    const [alone] = this.relays();
    return present(this.#nats === null ? alone : newest(this.relays()), "a relay that leads");
  }

  edges(): Relay[] {
    const leader = this.leader();
    return this.relays().filter((relay) => relay !== leader);
  }

  /** Between a relay and NATS, where there is one server: its weather cuts the relay off. */
  line(relay: Relay): Line {
    return present(this.#lines.get(relay.name), "a line");
  }

  /** Starts a relay in its folder, and resolves when it listens. */
  async launch(name: string, port = 0): Promise<Relay> {
    const dir = join(this.#folder.path, name);
    const nats = this.#nats === null ? [] : ["--nats", await this.#natsUrl(name)];
    const running = launchRelay({
      dir,
      port,
      args: ["--no-contributor", ...nats],
      charter: charterOf(this.#options.channels),
    });
    const relay: Relay = { name, dir, process: running, port: 0 };
    this.#relays.set(name, relay);
    void running.exited.then((code) => this.#ended(relay, code));
    const { url } = await running.waitFor(({ event }) => event === "listening", START_MS);
    relay.port = Number(new URL(String(url)).port);
    return relay;
  }

  /** Kills it at once; resolves to when that was, in milliseconds since the epoch. */
  async kill(relay: Relay): Promise<number> {
    this.#relays.delete(relay.name);
    process.kill(relay.process.pid, "SIGKILL");
    const atMs = Date.now();
    await relay.process.exited;
    return atMs;
  }

  /** Asks it to end, which it has to do with exit code 0, and starts it again in its place. */
  async restart(relay: Relay): Promise<void> {
    relay.leaving = true;
    const code = await relay.process.stop("SIGTERM");
    assert(code === 0, `${relay.name} ended with ${code}, need 0: ${relay.process.errors().trim()}`);
    await this.launch(relay.name, relay.port);
  }

  /** Whether every relay is there and listens, and one of them leads. */
  isWhole(): boolean {
    const led = this.#nats === null || newest(this.relays()) !== undefined;
    return led && this.ports().length === this.#options.relays;
  }

  /** Resolves to when another relay than `last` said that it leads, in milliseconds since the epoch. */
  async nextLeader(last: Relay): Promise<number> {
    let next: Relay | undefined;
    await until("the next leader", () => {
      next = newest(this.relays());
      return next !== undefined && next !== last;
    });
    return Date.parse(String(next?.process.events.findLast(isLeading)?.["time"]));
  }

  /** Resolves when every NATS server has everything, by what it and the others say. Under load some are always a write behind. */
  async natsCaughtUp(): Promise<void> {
    const healthy = async (): Promise<boolean> =>
      (await Promise.all(this.nats.servers.map((server) => server.healthy()))).every(Boolean);
    await until("NATS to catch up", async () => (await healthy()) && (await this.#replicated()));
  }

  async #replicated(): Promise<boolean> {
    const current = this.nats.manage(async (manager) => {
      for await (const { cluster } of manager.streams.list()) {
        const replicas = cluster?.replicas ?? [];
        if (cluster?.leader === undefined || replicas.some(({ current: there }) => !there)) {
          return false;
        }
      }
      return true;
    });
    return current.catch(() => false);
  }

  /** No more rounds: resolves when the one under way has ended. */
  async pause(): Promise<void> {
    await this.#ask("pause");
    await until("the run to pause", async () => (await runOf(this.leader())).phase === "paused");
  }

  resume(): Promise<void> {
    return this.#ask("resume");
  }

  async close(): Promise<void> {
    this.#closing = true;
    open.delete(this);
    await Promise.all(this.relays().map(({ process: running }) => running.stop("SIGKILL")));
    await this.#nats?.close();
    this.#lines.forEach((line) => line.close());
    rmSync(this.#folder.path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }

  /** The lead may change in between. */
  async #ask(word: string): Promise<void> {
    await until(`a leader to ${word}`, async () => {
      for (const { dir } of this.relays()) {
        if ((await adminOf(dir)(word)).code === 0) {
          return true;
        }
      }
      return false;
    });
  }

  async #natsUrl(name: string): Promise<string> {
    if (this.#options.natsServers > 1) {
      return this.nats.url();
    }
    const [server] = this.nats.servers;
    const ports = (): number[] => [present(server, "a NATS server").port];
    const line = this.#lines.get(name) ?? (await openLine({ ports }));
    this.#lines.set(name, line);
    return `${line.origin.replace("http", "nats")}/heddle`;
  }

  #ended(relay: Relay, code: number | null): void {
    if (this.#closing || this.#relays.get(relay.name) !== relay) {
      return;
    }
    this.#relays.delete(relay.name);
    if (relay.leaving === true) {
      return;
    }
    this.ends.push(`${relay.name} ended by itself (${code}): ${relay.process.errors().trim()}`);
    if (this.#options.mayEnd === true && code === 1) {
      void this.launch(relay.name).catch((error: unknown) => this.ends.push(String(error)));
    }
  }
}

function isLeading({ event }: PrintedEvent): boolean {
  return event === "leading";
}

function newest(relays: readonly Relay[]): Relay | undefined {
  const epochOf = ({ process: running }: Relay): number =>
    Math.max(0, ...running.events.filter(isLeading).map(({ epoch }) => Number(epoch)));
  const best = relays.toSorted((a, b) => epochOf(b) - epochOf(a))[0];
  return best !== undefined && epochOf(best) > 0 ? best : undefined;
}

export async function runOf({ port }: Relay): Promise<RunView> {
  return (await (await fetchAgain(`http://127.0.0.1:${port}/api/run`)).json()) as RunView;
}

/** As fetch, with a second try: this process is busy at times, and then sees late that an idle connection has been closed. */
export const fetchAgain: typeof fetch = (...request) => fetch(...request).catch(() => fetch(...request));

export async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  timeoutMs = SETTLE_MS,
): Promise<void> {
  for (const endMs = performance.now() + timeoutMs; !(await isSo());) {
    assert(performance.now() < endMs, `Cannot wait longer than ${timeoutMs} ms for ${what}`);
    await new Promise((settle) => setTimeout(settle, 25));
  }
}
