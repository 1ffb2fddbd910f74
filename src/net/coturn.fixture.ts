/** A real TURN server for tests: coturn on loopback, with a shared secret, stopped by process id. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { freePorts } from "../store/nats-server.fixture.ts";
import { freeUdpPort } from "./rtc-node.ts";

/** UDP ports from which it sends what it relays. */
export const RELAY_PORTS = { min: 21_000, max: 21_099 } as const;

const DEBIAN_PATH = "/usr/bin/turnserver";

export interface Coturn {
  /** turn:host:port, with ?transport=tcp where that is how it is reached. */
  readonly url: string;
  /** Bytes that it has taken from its client `username` so far, as it logs them every 2,048 packets and at the end. */
  bytesFrom(username: string): number;
  close(): Promise<void>;
}

export interface CoturnOptions {
  /** Scratch folder, which the caller removes. */
  readonly dir: string;
  readonly secret: string;
  /** One client more, with a password of its own: name:password. */
  readonly user?: string;
  /** How clients reach it; nothing else is taken. */
  readonly transport?: "udp" | "tcp";
}

export async function startCoturn({ dir, secret, user, transport = "udp" }: CoturnOptions): Promise<Coturn> {
  const [port] = transport === "udp" ? [await freeUdpPort()] : await freePorts(1);
  const own = ["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--listening-port", String(port)];
  const login =
    user === undefined ? ["--use-auth-secret", "--static-auth-secret", secret] : ["--lt-cred-mech", "--user", user];
  const quiet = ["--no-tls", "--no-dtls", "--no-cli", "--no-multicast-peers", "--allow-loopback-peers"];
  const other = transport === "udp" ? "--no-tcp" : "--no-udp";
  const peers = ["--denied-peer-ip", "0.0.0.0-255.255.255.255", "--allowed-peer-ip", "127.0.0.1"];
  const ports = ["--min-port", String(RELAY_PORTS.min), "--max-port", String(RELAY_PORTS.max)];
  const files = ["--log-file", "stdout", "--pidfile", join(dir, "pid"), "--userdb", join(dir, "users")];
  const args = ["-n", "-v", "--realm", "heddle.test", ...own, ...ports, ...peers, ...login, other, ...quiet, ...files];
  const server = spawn(DEBIAN_PATH, args, { stdio: ["ignore", "pipe", "pipe"] });
  const said: string[] = [];
  await new Promise<void>((settle, reject) => {
    server.once("error", reject);
    server.once("exit", (code) => reject(new Error(`coturn ended (${code}):\n${said.join("\n")}`)));
    for (const stream of [server.stdout, server.stderr]) {
      createInterface(stream).on("line", (line) => {
        said.push(line);
        if (line.includes(`${transport.toUpperCase()} listener opened on`)) {
          settle();
        }
      });
    }
  });
  return {
    url: `turn:127.0.0.1:${port}${transport === "tcp" ? "?transport=tcp" : ""}`,
    bytesFrom: (username) =>
      said.reduce((sum, line) => {
        const usage = line.includes(`username=<${username}>`) && !line.includes("peer usage");
        return sum + (usage ? Number(/ rb=(\d+)/.exec(line)?.[1] ?? 0) : 0);
      }, 0),
    close: async () => {
      if (server.exitCode === null && server.signalCode === null) {
        const exited = once(server, "exit");
        server.kill("SIGKILL");
        await exited;
      }
    },
  };
}
