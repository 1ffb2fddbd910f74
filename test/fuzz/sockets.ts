/**
 * Targets behind sockets of this machine: the relay's HTTP face, its WebSockets, the operator's face, and the native WebRTC that
 * answers offers. Each input takes a connection, so there are fewer.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HeddleError } from "../../src/base/assert.ts";
import { concatBytes, textBytes, type Bytes } from "../../src/base/bytes.ts";
import { BlobPieces } from "../../src/net/blob-pieces.ts";
import { createRtcAnswerer, dialRtcNode } from "../../src/net/rtc-node.ts";
import { serveBlob } from "../../src/net/serve-blob.ts";
import { dialWebSocket } from "../../src/net/ws-client.ts";
import { acceptWebSockets } from "../../src/net/ws-server.ts";
import type { Attach } from "../../src/net/link.ts";
import { UNCUT_BYTES_MAX } from "../../src/protocol/limits.ts";
import { sampleRun } from "../fixtures/ui/samples.ts";
import { createHttpFace, listen, shut } from "../../src/relay/http.ts";
import type { Operations } from "../../src/relay/operations.ts";
import { createOperatorFace } from "../../src/relay/operator-face.ts";
import { createMemoryStore } from "../../src/store/memory.ts";
import type { Subject, Target } from "./fuzz.ts";
import { OFFER, outcomeOfCall } from "./readers.ts";
import { exampleFrames } from "./sessions.ts";

/** A server that has said nothing for so long waits for more. */
const QUIET_MS = 60;
/** Connections at a time. */
const TOGETHER = 16;
const HONEST_MS = 10_000;

/** Sends bytes and resolves with the first line of the answer, "closed", or "waits for more"; rejects where it cannot connect. */
function converse(port: number, input: Uint8Array, quietMs = QUIET_MS): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let [connected, said] = [false, ""];
    socket.setTimeout(quietMs, () => {
      resolve(said === "" ? "waits for more" : said);
      socket.destroy();
    });
    socket.on("connect", () => {
      connected = true;
      socket.write(input);
    });
    socket.on("data", (chunk: Buffer) => {
      said ||= /^HTTP\/1\.1 (\d{3})/.exec(chunk.toString("latin1"))?.[1] ?? "";
      if (said !== "101") {
        resolve(said === "" ? "answers" : said);
        socket.destroy();
      }
    });
    socket.on("error", (error) => (connected ? resolve("closed") : reject(error)));
    socket.on("close", () => resolve(said === "" || said === "101" ? "closed" : said));
  });
}

const request = (line: string, ...headers: string[]): Bytes =>
  textBytes([`${line} HTTP/1.1`, "Host: relay", ...headers, "", ""].join("\r\n"));

async function must(what: string, done: Promise<boolean>): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => reject(new Error(`${what} took more than ${HONEST_MS} ms`)), HONEST_MS);
  const fine = await Promise.race([done, late]).finally(() => clearTimeout(timer));
  if (!fine) {
    throw new Error(`${what} failed`);
  }
}

async function httpSubject(): Promise<Subject> {
  const dist = await mkdtemp(join(tmpdir(), "heddle-fuzz-"));
  await writeFile(join(dist, "index.html"), "<p>page");
  const store = createMemoryStore();
  const pieces = new BlobPieces(store.blobs);
  const digest = await store.blobs.put(new Uint8Array(1_000));
  const large = await store.blobs.put(new Uint8Array(UNCUT_BYTES_MAX + 1));
  await store.log.append(0, [new Uint8Array(100), new Uint8Array(200)]);
  const face = createHttpFace({
    proxyHeader: null,
    prefixShare: 1,
    waitMs: () => 0,
    dist,
    view: () => sampleRun(1),
    log: store.log,
    blob: (incoming, response, name) =>
      void serveBlob({ request: incoming, response, name, blobs: store.blobs, pieces }),
  });
  const port = await listen(face.server, 0, "127.0.0.1");
  const upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"];
  return {
    corpus: [
      request("GET /"),
      request("GET /index.html"),
      request("HEAD /assets/%7Ea.js?x=1"),
      request("OPTIONS /api/run", "Origin: http://other"),
      request("GET /api/run"),
      request("GET /api/ledger?from=0&count=10"),
      request("GET /api/events", "Accept: text/event-stream"),
      request(`GET /blob/${digest}`, "Range: bytes=10-20", `If-Range: "${digest}"`),
      request(`HEAD /blob/${digest}`, `If-None-Match: "${digest}", "x"`),
      request(`GET /blob/${large}/pieces`, "Range: bytes=10-20"),
      request("POST /api/run", "Content-Length: 5", "", "12345"),
      request("PUT /", "Transfer-Encoding: chunked", "", "5", "12345", "0", ""),
      request("GET /link", ...upgrade, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    ],
    together: TOGETHER,
    feed: (input) => converse(port, input),
    useHonestly: () =>
      must(
        "An honest request",
        fetch(`http://127.0.0.1:${port}/api/run`).then(async (response) => (await response.text()).includes("1")),
      ),
    close: async () => {
      await face.close();
      await rm(dist, { recursive: true });
    },
  };
}

/** A frame of RFC 6455 as a client sends it, masked with zeros. */
function webSocketFrame(opcode: number, payload: Uint8Array): Bytes {
  const length =
    payload.length < 126 ? [0x80 | payload.length] : [0x80 | 126, payload.length >> 8, payload.length & 255];
  return concatBytes([Uint8Array.of(0x80 | opcode, ...length, 0, 0, 0, 0), payload]);
}

const echo: Attach = (link) => ({ message: (bytes) => link.send(bytes), closed: () => undefined });

async function webSocketSubject(): Promise<Subject> {
  const server = createServer();
  const acceptor = acceptWebSockets({ server, attach: echo });
  const port = await listen(server, 0, "127.0.0.1");
  const greeting = request(
    "GET /link",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
  );
  return {
    corpus: [
      ...exampleFrames().map((frame) => webSocketFrame(2, frame)),
      webSocketFrame(1, textBytes("text")),
      webSocketFrame(9, textBytes("ping")),
      webSocketFrame(8, Uint8Array.of(3, 232)),
    ],
    together: TOGETHER,
    feed: (input) => converse(port, concatBytes([greeting, input]), QUIET_MS / 2),
    useHonestly: () =>
      must(
        "An honest link",
        new Promise((resolve, reject) => {
          const attach: Attach = (link) => ({
            message: (bytes) => {
              resolve(bytes.length === 3);
              link.close("Done");
            },
            closed: (reason) => reject(new Error(reason)),
          });
          dialWebSocket({ url: `ws://127.0.0.1:${port}/link`, attach }).then(
            (link) => link.send(new Uint8Array(3)),
            reject,
          );
        }),
      ),
    close: async () => {
      await acceptor.close("Done");
      await shut(server);
    },
  };
}

/** The operator's face, on a port here; what it would do is refused with a sentence, as on a relay that cannot. */
async function operatorSubject(): Promise<Subject> {
  const no = async (): Promise<never> => {
    throw new HeddleError("bad-input", "Cannot operate: this is a test");
  };
  const operations: Operations = {
    status: no,
    operate: no,
    backUp: no,
    prune: no,
    // oxlint-disable-next-line require-yield -- an empty ledger
    entries: async function* entries() {},
    close: async () => undefined,
  };
  const server = createOperatorFace({
    metrics: { text: async () => "metric 1\n", contentType: "text/plain" },
    unready: async () => null,
    operations: () => operations,
  });
  const port = await listen(server, 0, "127.0.0.1");
  const post = (path: string, body: object): Bytes => {
    const text = JSON.stringify(body);
    return request(`POST ${path}`, "Content-Type: application/json", `Content-Length: ${text.length}`, "", text);
  };
  return {
    corpus: [
      request("GET /status"),
      request("GET /ledger"),
      request("GET /metrics"),
      request("GET /readyz"),
      post("/operate", { type: "ban", contributor: "a".repeat(64), why: "Noise" }),
      post("/operate", { type: "pause" }),
      post("/backup", { to: "/tmp/x" }),
      post("/prune", { checkpoints: 3, dryRun: true }),
    ],
    together: TOGETHER,
    feed: (input) => converse(port, input),
    useHonestly: () =>
      must(
        "An honest request",
        fetch(`http://127.0.0.1:${port}/healthz`).then(async (response) => (await response.text()) === "ok\n"),
      ),
    close: () => shut(server),
  };
}

async function rtcSubject(): Promise<Subject> {
  const answerer = await createRtcAnswerer({ addresses: ["127.0.0.1"], openMs: 1_000 });
  const text = new TextDecoder();
  return {
    corpus: [textBytes(OFFER)],
    feed: async (input) => {
      for (let waits = 0; answerer.connections() > 100 && waits < 1_000; waits += 1) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return outcomeOfCall(() => answerer.answer(text.decode(input), echo));
    },
    useHonestly: () =>
      must(
        "An honest WebRTC link",
        (async () => {
          const link = await dialRtcNode({
            exchange: (offer) => answerer.answer(offer, echo),
            attach: () => ({ message: () => undefined, closed: () => undefined }),
          });
          link.close("Done");
          return true;
        })(),
      ),
    close: () => answerer.close("Done"),
  };
}

export const SOCKETS: readonly Target[] = [
  { name: "http", inputs: 10_000, inputsInTest: 160, open: httpSubject },
  { name: "websocket", inputs: 10_000, inputsInTest: 160, open: webSocketSubject },
  { name: "operator", inputs: 10_000, inputsInTest: 80, open: operatorSubject },
  { name: "rtc", inputs: 2_000, inputsInTest: 20, open: rtcSubject },
];
