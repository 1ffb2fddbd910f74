/**
 * What a relay needs for the people who are connected: `npm run bench relay [-- 0 100 1000 5000]`. For each number it starts a
 * relay of the quick charter in a folder of its own, opens that many sessions over WebSocket (handshake, heartbeat, "ready",
 * an assignment each), and reads the relay's own metrics after a while of quiet. Nobody trains: what work costs is in the
 * metrics of a relay at work. Prints one JSON line a number. All sessions share this process, so times to the welcome are
 * those of a rush to the relay on one machine; others may use the machine too.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { assert } from "../src/base/assert.ts";
import { median } from "../src/base/statistics.ts";
import { createPair, deviceKeyOf } from "../src/net/device-key.ts";
import type { Link } from "../src/net/link.ts";
import { dialWebSocket } from "../src/net/ws-client.ts";
import { decodeRelayMessage, encodeMessage, sessionProof } from "../src/protocol/codec.ts";
import { PROTOCOL_VERSION } from "../src/protocol/limits.ts";
import { readMetrics } from "../test/e2e/metrics.ts";

const QUIET_MS = 20_000;
const DIALS_AT_ONCE = 20;
const ROOT = resolve(import.meta.dirname, "..");
const CHARTER = {
  model: { channels: 32, layers: 1, heads: 2, kvHeads: 1, hidden: 64, time: 32 },
  inner: { batch: 4 },
};

const numbers = process.argv.slice(2).map(Number);
for (const sessions of numbers.length === 0 ? [0, 100, 1_000, 5_000] : numbers) {
  process.stdout.write(`${JSON.stringify(await measure(sessions))}\n`);
}

async function measure(sessions: number): Promise<object> {
  const dir = mkdtempSync(join(tmpdir(), "heddle-"));
  writeFileSync(join(dir, "charter.json"), JSON.stringify(CHARTER));
  const flags = [
    "--experimental-import-text",
    "--disable-warning=ExperimentalWarning",
    join(ROOT, "src/relay/main.ts"),
  ];
  const run = [
    "--port",
    "0",
    "--no-contributor",
    "--log",
    "json",
    "--dir",
    dir,
    "--charter",
    join(dir, "charter.json"),
  ];
  const relay = spawn(process.execPath, [...flags, ...run], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((settle) => {
    relay.once("exit", settle);
  });
  try {
    const url = await listening(createInterface({ input: relay.stdout }));
    const welcomesMs: number[] = [];
    const links: Link[] = [];
    for (let from = 0; from < sessions; from += DIALS_AT_ONCE) {
      const rush = Array.from({ length: Math.min(DIALS_AT_ONCE, sessions - from) }, () => openSession(url, welcomesMs));
      links.push(...(await Promise.all(rush)));
    }
    const before = await readMetrics(dir);
    await new Promise((settle) => setTimeout(settle, QUIET_MS));
    const after = await readMetrics(dir);
    assert(after("heddle_sessions", 'lane="ws"') === sessions, "Cannot measure: not all sessions are open");
    const cpu = "process_cpu_seconds_total";
    const result = {
      sessions,
      residentMB: Math.round(after("process_resident_memory_bytes") / 1e5) / 10,
      processorPercent: Math.round(((after(cpu) - before(cpu)) * 1e6) / QUIET_MS) / 10,
      eventLoopP99Ms: Math.round(after("nodejs_eventloop_lag_p99_seconds") * 1e4) / 10,
      assignments: after("heddle_assignments_total", 'work="train"'),
      welcomeMedianMs: sessions === 0 ? null : Math.round(median(welcomesMs)),
    };
    links.forEach((link) => link.close("measured"));
    return result;
  } finally {
    relay.kill("SIGTERM");
    await ended;
    rmSync(dir, { recursive: true });
  }
}

async function listening(lines: AsyncIterable<string>): Promise<string> {
  for await (const line of lines) {
    const { event, url } = JSON.parse(line) as { readonly event: string; readonly url: string };
    if (event === "listening") {
      return url.replace("http", "ws");
    }
  }
  throw new Error("The relay ended before it listened");
}

/** Opens a session, when the relay has room for it, and resolves when it has been welcomed and has said that it is ready. */
async function openSession(url: string, welcomesMs: number[]): Promise<Link> {
  for (;;) {
    const opened = await askForSession(url, welcomesMs);
    if (typeof opened !== "number") {
      return opened;
    }
    await new Promise((settle) => setTimeout(settle, opened));
  }
}

/** The session's link, or milliseconds after which to come back. */
async function askForSession(url: string, welcomesMs: number[]): Promise<Link | number> {
  const key = await deviceKeyOf(await createPair(false));
  const agent = { agent: "bench relay", engine: "wasm", device: "none", privateData: false } as const;
  const nonce = crypto.getRandomValues(new Uint8Array(32));
  const hello = encodeMessage({ type: "hello", protocol: PROTOCOL_VERSION, publicKey: key.publicKey, nonce, ...agent });
  const startMs = performance.now();
  return new Promise((settle, reject) => {
    const attach = (link: Link) => ({
      message: (bytes: Uint8Array) => {
        const read = decodeRelayMessage(bytes);
        const message = read.ok ? read.value : null;
        if (message?.type === "challenge") {
          const proof = sessionProof({ nonce: message.nonce, hello });
          void key.sign("session", proof).then((signature) => link.send(encodeMessage({ type: "prove", signature })));
        } else if (message?.type === "welcome") {
          welcomesMs.push(performance.now() - startMs);
          link.send(encodeMessage({ type: "ready", version: message.head.version }));
          settle(link);
        } else if (message?.type === "refused") {
          settle(message.retryMs ?? 1_000);
        } else if (message?.type === "ping") {
          link.send(encodeMessage({ type: "pong" }));
        }
      },
      closed: (reason: string) => reject(new Error(reason)),
    });
    dialWebSocket({ url: `${url}/link`, attach }).then((link) => link.send(hello), reject);
  });
}
