/** deploy/Caddyfile as it is, in a real Caddy before two relays that share a run; environment variables alone say where all are. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { LENGTH_HEADER } from "../../src/net/ledger.ts";
import { createDeviceKey } from "../../src/net/device-key.ts";
import { dialWebSocket } from "../../src/net/ws-client.ts";
import { decodeRelayMessage, encodeMessage } from "../../src/protocol/codec.ts";
import { PROTOCOL_VERSION } from "../../src/protocol/limits.ts";
import type { RunView } from "../../src/protocol/run-view.ts";
import { freePorts, startNats } from "../../src/store/nats-server.fixture.ts";
import { launchRelay, ROOT, temporaryFolder, type Running } from "./processes.ts";

const DEBIAN_PATH = "/usr/bin/caddy";
const CADDYFILE = join(ROOT, "deploy", "Caddyfile");

const running = new Set<Running>();
const caddies = new Set<ChildProcess>();
afterEach(async () => {
  await Promise.all([...running].map((relay) => relay.stop("SIGKILL")));
  for (const caddy of caddies) {
    const exited = once(caddy, "exit");
    caddy.kill("SIGKILL");
    await exited;
  }
  running.clear();
  caddies.clear();
});

/** Imports the Caddyfile: on loopback alone, without TLS, and without the port of Caddy's own. Resolves to its origin. */
async function startCaddy(dir: string, relays: readonly number[]): Promise<string> {
  const [port] = await freePorts(1);
  const origin = `http://127.0.0.1:${port}`;
  const file = join(dir, "Caddyfile");
  writeFileSync(file, `{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\nimport ${CADDYFILE}\n`);
  const upstreams = relays.map((port) => `127.0.0.1:${port}`).join(" ");
  const caddy = spawn(DEBIAN_PATH, ["run", "--adapter", "caddyfile", "--config", file], {
    env: { HOME: dir, HEDDLE_HOST: origin, HEDDLE_RELAYS: upstreams },
    stdio: ["ignore", "ignore", "pipe"],
  });
  caddies.add(caddy);
  let said = "";
  await new Promise<void>((settle, reject) => {
    caddy.once("error", reject);
    caddy.once("exit", (code) => reject(new Error(`Caddy ended (${code}):\n${said}`)));
    caddy.stderr?.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes("serving initial configuration")) {
        settle();
      }
    });
  });
  return origin;
}

test("Caddy finds nothing wrong with deploy/Caddyfile", async () => {
  using folder = temporaryFolder();
  const env = { HOME: folder.path, HEDDLE_HOST: "relay.example.org" };
  const caddy = spawn(DEBIAN_PATH, ["validate", "--adapter", "caddyfile", "--config", CADDYFILE], { env });
  let said = "";
  for (const stream of [caddy.stdout, caddy.stderr]) {
    stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  }
  const [code] = (await once(caddy, "close")) as [number];
  expect({ code, said }).toEqual({ code: 0, said: expect.stringMatching(/^Valid configuration$/m) });
  expect(said).not.toContain('"level":"warn"');
});

test("through deploy/Caddyfile come page, WebSocket, ranges and events of two relays, and of one when the other ends", async () => {
  using folder = temporaryFolder();
  await using nats = await startNats({ dir: folder.path });
  const args = ["--nats", nats.url(), "--no-contributor", "--proxy-header", "X-Forwarded-For"];
  const launch = async (name: string): Promise<Running & { readonly port: number }> => {
    const dir = join(folder.path, name);
    const relay = launchRelay({ dir, args });
    running.add(relay);
    const { url } = await relay.waitFor(({ event }) => event === "listening");
    return { ...relay, port: Number(new URL(String(url)).port) };
  };
  const [first, second] = await Promise.all([launch("first"), launch("second")]);
  const origin = await startCaddy(folder.path, [first.port, second.port]);

  const page = await fetch(`${origin}/`);
  expect([page.status, page.headers.get("server")]).toEqual([200, "Caddy"]);
  expect(await page.text()).toContain("<title>Heddle");
  const ledger = await fetch(`${origin}/api/ledger?count=0`);
  expect(Number(ledger.headers.get(LENGTH_HEADER))).toBeGreaterThan(0);

  const { versions } = (await (await fetch(`${origin}/api/run`)).json()) as RunView;
  const range = await fetch(`${origin}/blob/${versions.at(-1)?.digest}`, { headers: { range: "bytes=4-103" } });
  expect([range.status, (await range.arrayBuffer()).byteLength]).toEqual([206, 100]);
  expect(range.headers.get("content-range")).toMatch(/^bytes 4-103\/\d+$/);

  // Server-sent events are not held back.
  const events = await fetch(`${origin}/api/events`);
  const { value } = (await events.body?.getReader().read()) ?? {};
  expect(new TextDecoder().decode(value)).toMatch(/^(event|data|retry|id|:)/);

  const links: { readonly heard: string[]; closed: string }[] = [];
  const dial = async (): Promise<void> => {
    const link = { heard: [] as string[], closed: "" };
    links.push(link);
    const { publicKey } = await createDeviceKey();
    const nonce = crypto.getRandomValues(new Uint8Array(32));
    const socket = await dialWebSocket({
      url: `${origin.replace("http", "ws")}/link`,
      attach: () => ({
        message: (bytes) => {
          const read = decodeRelayMessage(bytes);
          link.heard.push(read.ok ? read.value.type : "unreadable");
        },
        closed: (reason) => {
          link.closed = reason;
        },
      }),
    });
    const device = { engine: "wasm", device: "test", agent: "test", privateData: false } as const;
    socket.send(encodeMessage({ type: "hello", protocol: PROTOCOL_VERSION, publicKey, nonce, ...device }));
    await vi.waitUntil(() => link.heard.includes("challenge"), { timeout: 10_000 });
  };
  // By least_conn each gets some, whichever sends the events.
  for (let i = 0; i < 4; i += 1) {
    await dial();
  }

  expect(await first.stop("SIGTERM")).toBe(0);
  await vi.waitUntil(() => links.some(({ closed }) => closed === "The relay is stopping; it will be back"), {
    timeout: 10_000,
  });
  for (let i = 0; i < 10; i += 1) {
    expect((await fetch(`${origin}/api/run`)).status).toBe(200);
  }
  await dial();
});
