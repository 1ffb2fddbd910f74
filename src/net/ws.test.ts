import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { connect as connectTcp, type AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FRAME_BYTES_MAX } from "../protocol/limits.ts";
import { LINK_CASES, recorder, type LinkPlace } from "./contract.ts";
import type { Link } from "./link.ts";
import { dialWebSocket } from "./ws-client.ts";
import { acceptWebSockets, type AcceptWebSocketsOptions, type WebSocketAcceptor } from "./ws-server.ts";

let server: Server;
let url = "";
const acceptors: WebSocketAcceptor[] = [];

beforeEach(async () => {
  server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/link`;
});
afterEach(async () => {
  await Promise.all(acceptors.splice(0).map((acceptor) => acceptor.close("The test is over")));
  server.close();
  await once(server, "close");
});

function accept(
  attach: AcceptWebSocketsOptions["attach"],
  limits: { messageBytesMax?: number; sessionsMax?: number } = {},
): WebSocketAcceptor {
  const acceptor = acceptWebSockets({ server, attach, ...limits });
  acceptors.push(acceptor);
  return acceptor;
}

const place: LinkPlace = {
  connect: async ({ attachA, attachB, messageBytesMax }) => {
    const accepted = Promise.withResolvers<Link>();
    accept(
      (link) => {
        accepted.resolve(link);
        return attachB(link);
      },
      { messageBytesMax },
    );
    return { a: await dialWebSocket({ url, attach: attachA, messageBytesMax }), b: await accepted.promise };
  },
};

describe("dialWebSocket() to acceptWebSockets() keeps the contract", () => {
  test.each(LINK_CASES)("$name", ({ run }) => run(place));
});

/** A plain WebSocket that does not know frames. */
async function openRaw(): Promise<{ readonly socket: WebSocket; readonly closed: Promise<unknown> }> {
  const socket = new WebSocket(url);
  const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
  await new Promise((resolve) => socket.addEventListener("open", resolve));
  return { socket, closed };
}

test.each([
  [
    "garbage",
    Uint8Array.from({ length: 40 }, () => 0xee),
    "Cannot read a frame: got version 238, flags 61166, need 1 and 0",
  ],
  ["a short frame", Uint8Array.of(1, 1), "Cannot read a frame: got 2 bytes, need 16 to 65536"],
  ["text", "hello", "Cannot read a frame: got text, need bytes"],
  ["an oversized frame", new Uint8Array(FRAME_BYTES_MAX + 1), "The connection broke: Max payload size exceeded"],
])("acceptWebSockets() ends a link that sends %s, with a sentence, and keeps the others", async (_, data, sentence) => {
  const ends = [recorder(), recorder()];
  let count = 0;
  accept((link) => (ends[count++] as (typeof ends)[0]).attach(link));
  const good = await dialWebSocket({ url, attach: recorder().attach });
  const { socket, closed } = await openRaw();
  socket.send(data);
  expect(await ends[1]?.closed()).toBe(sentence);
  await closed;
  good.send(Uint8Array.of(5));
  expect(await ends[0]?.next()).toEqual(Uint8Array.of(5));
});

test("acceptWebSockets() refuses a message above its own limit, though the sender's is higher", async () => {
  const [a, b] = [recorder(), recorder()];
  accept(b.attach, { messageBytesMax: 100_000 });
  const link = await dialWebSocket({ url, attach: a.attach, messageBytesMax: 200_000 });
  link.send(new Uint8Array(100_001));
  expect(await b.closed()).toContain("a message of 100001 bytes was announced, this link carries at most 100000");
  expect(await a.closed()).toBe(await b.closed());
});

test("acceptWebSockets() takes sessionsMax sessions and turns the next away until one ends", async () => {
  const first = recorder();
  const acceptor = accept(first.attach, { sessionsMax: 1 });
  const link = await dialWebSocket({ url, attach: recorder().attach });
  await expect(dialWebSocket({ url, attach: recorder().attach })).rejects.toMatchObject({ code: "unreachable" });
  expect(acceptor.sessions()).toBe(1);
  link.close("Done");
  await first.closed();
});

test("acceptWebSockets() reads nothing from a connection that is held, and all of it afterwards", async () => {
  const end = recorder();
  let hold: (ms: number) => void = () => undefined;
  accept((link, arrival) => {
    ({ hold } = arrival);
    return end.attach(link);
  });
  const link = await dialWebSocket({ url, attach: recorder().attach });
  link.send(Uint8Array.of(1));
  await end.next();
  const heldMs = performance.now();
  hold(300);
  link.send(Uint8Array.of(2));
  expect(await end.next()).toEqual(Uint8Array.of(2));
  expect(performance.now() - heldMs).toBeGreaterThan(290);
});

test("acceptWebSockets() tells the end of a connection that breaks without a word", async () => {
  const end = recorder();
  accept(end.attach);
  const socket = connectTcp(Number(new URL(url).port), "127.0.0.1");
  socket.write(
    "GET /link HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
  );
  await once(socket, "data");
  socket.destroy();
  expect(await end.closed()).toBe("The connection was lost");
});

test("acceptWebSockets() turns a path away that is none, and goes on", async () => {
  const end = recorder();
  accept(end.attach);
  const socket = connectTcp(Number(new URL(url).port), "127.0.0.1");
  socket.write("GET //[ HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  expect(String((await once(socket, "data"))[0])).toMatch(/^HTTP\/1.1 404 /);
  socket.destroy();
  (await dialWebSocket({ url: `${url}?from=here`, attach: recorder().attach })).send(Uint8Array.of(1));
  expect([...(await end.next())]).toEqual([1]);
});

test("acceptWebSockets() lets go of a connection it turned away, though the other end keeps its half open", async () => {
  accept(recorder().attach);
  const socket = connectTcp({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true });
  socket.write("GET /other HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  socket.resume();
  await once(socket, "end");
  const connections = (): Promise<number> =>
    new Promise((resolve) => server.getConnections((_error, count) => resolve(count)));
  await expect.poll(connections, { timeout: 5_000 }).toBe(0);
  socket.destroy();
});

test("dialWebSocket() rejects where nobody listens, at another path, for a silent host, and for a bad address", async () => {
  accept(recorder().attach);
  const attach = recorder().attach;
  await expect(dialWebSocket({ url: "ws://127.0.0.1:9/link", attach })).rejects.toMatchObject({ code: "unreachable" });
  await expect(dialWebSocket({ url: `${url}/other`, attach })).rejects.toMatchObject({ code: "unreachable" });
  await expect(dialWebSocket({ url: "relay", attach })).rejects.toMatchObject({ code: "bad-input" });
  const silent = createServer();
  silent.on("upgrade", () => undefined);
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  const silentUrl = `ws://127.0.0.1:${(silent.address() as AddressInfo).port}/link`;
  await expect(dialWebSocket({ url: silentUrl, attach, timeoutMs: 20 })).rejects.toMatchObject({ code: "unreachable" });
  silent.closeAllConnections();
  silent.close();
});
