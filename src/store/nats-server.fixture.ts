/**
 * Real nats-servers for tests and benchmarks: on loopback, with folders of their own, stopped by process id. NATS_SERVER names
 * another program than the one that is installed.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { messageIn } from "../base/assert.ts";
import { parseNatsAddress, type NatsAddress } from "./nats-address.ts";

const DEBIAN_PATH = "/usr/sbin/nats-server";

export interface NatsServer {
  readonly name: string;
  readonly port: number;
  /** Starts it, also again after `kill`, and resolves when it takes clients. */
  start(): Promise<void>;
  /** Ends it at once, without a word to anyone. */
  kill(): Promise<void>;
  /** Whether it has all that it should have: a cluster bears the loss of one server, and of the next only then. */
  healthy(): Promise<boolean>;
}

export interface Nats {
  readonly servers: readonly NatsServer[];
  /** Address of a store. */
  address(name?: string): NatsAddress;
  url(name?: string): string;
  /** Works on it as an operator does, not through a store. */
  manage<T>(work: (manager: JetStreamManager) => Promise<T>): Promise<T>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface NatsFixtureOptions {
  /** Scratch folder, which the caller removes. */
  readonly dir: string;
  /** 1, or the size of a cluster. */
  readonly servers?: number;
  /** More lines for the configuration file of each server. */
  readonly config?: string;
  readonly jetStream?: string;
}

/** A server that is one of several says the second after the first. */
const READY = "Server is ready";
const ROUTED = "Listening for route connections";
/** Ports that were free may be taken before the servers have them. */
const STARTS_MAX = 5;

/** Starts servers that know each other, each with JetStream. */
export async function startNats(options: NatsFixtureOptions): Promise<Nats> {
  for (let starts = 1; ; starts += 1) {
    const nats = await placeNats(options);
    const begun = await Promise.allSettled(nats.servers.map((server) => server.start()));
    const failed = begun.find((one) => one.status === "rejected");
    if (failed === undefined) {
      return nats;
    }
    await nats.close();
    if (starts === STARTS_MAX || !messageIn(failed.reason).includes("address already in use")) {
      throw failed.reason;
    }
  }
}

/** Gives each server its ports and a folder; none runs yet. */
async function placeNats({ dir, servers: count = 1, config = "", jetStream = "" }: NatsFixtureOptions): Promise<Nats> {
  const ports = await freePorts(3 * count);
  const routes = ports.slice(count, 2 * count).map((port) => `nats-route://127.0.0.1:${port}`);
  const servers = Array.from({ length: count }, (_, i) => {
    const home = join(dir, `server-${i}`);
    mkdirSync(home, { recursive: true });
    const file = join(home, "nats.conf");
    const cluster = `cluster { name: test, listen: "127.0.0.1:${ports[count + i]}", routes: [${routes.join()}] }`;
    const lines = [
      `server_name: test-${i}`,
      `listen: "127.0.0.1:${ports[i]}"`,
      `http: "127.0.0.1:${ports[2 * count + i]}"`,
      jetStream === "off" ? "" : `jetstream { store_dir: "${home}", ${jetStream} }`,
      count === 1 ? "" : cluster,
      config,
    ];
    writeFileSync(file, lines.join("\n"));
    const [port, monitor] = [ports[i] as number, ports[2 * count + i] as number];
    return natsServer(`test-${i}`, { port, monitor, file, signs: count === 1 ? [READY] : [READY, ROUTED] });
  });
  const url = (name = "heddle"): string => `nats://${servers.map(({ port }) => `127.0.0.1:${port}`).join()}/${name}`;
  const close = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.kill()));
  };
  return {
    servers,
    url,
    address: (name) => parseNatsAddress(url(name)),
    manage: async (work) => {
      const connection = await connect({ servers: servers.map(({ port }) => `127.0.0.1:${port}`) });
      try {
        return await work(await jetstreamManager(connection));
      } finally {
        await connection.close();
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

interface ServerFiles {
  readonly port: number;
  /** Port of its own metrics. */
  readonly monitor: number;
  readonly file: string;
  /** What it says once it has all its ports. */
  readonly signs: readonly string[];
}

function natsServer(name: string, { port, monitor, file, signs }: ServerFiles): NatsServer {
  let child: ChildProcess | undefined;
  return {
    name,
    port,
    start: async () => {
      const path = process.env["NATS_SERVER"] ?? (existsSync(DEBIAN_PATH) ? DEBIAN_PATH : "nats-server");
      const started = spawn(path, ["-c", file], { stdio: ["ignore", "ignore", "pipe"] });
      child = started;
      const said: string[] = [];
      const missing = new Set(signs);
      await new Promise<void>((settle, reject) => {
        started.once("error", reject);
        started.once("close", (code) => reject(new Error(`nats-server ended (${code}):\n${said.join("\n")}`)));
        createInterface(started.stderr).on("line", (line) => {
          said.push(line);
          missing.forEach((sign) => line.includes(sign) && missing.delete(sign));
          if (missing.size === 0) {
            settle();
          }
        });
      });
    },
    kill: async () => {
      if (child !== undefined && child.exitCode === null && child.signalCode === null) {
        const exited = once(child, "exit");
        child.kill("SIGKILL");
        await exited;
      }
    },
    healthy: () =>
      fetch(`http://127.0.0.1:${monitor}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      ),
  };
}

/** Of 127.0.0.1, for TCP; nobody else has them now. */
export async function freePorts(count: number): Promise<number[]> {
  const listeners = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(listeners.map((listener) => once(listener, "listening")));
  const ports = listeners.map((listener) => (listener.address() as AddressInfo).port);
  await Promise.all(listeners.map((listener) => new Promise((settle) => listener.close(settle))));
  return ports;
}
