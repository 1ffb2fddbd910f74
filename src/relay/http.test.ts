import { once } from "node:events";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Duplex } from "node:stream";
import { afterEach, expect, test, vi } from "vitest";
import { sampleRun } from "../../test/fixtures/ui/samples.ts";
import type { RunView } from "../protocol/run-view.ts";
import { createMemoryStore } from "../store/memory.ts";
import {
  CONNECTIONS_SHARED,
  createHttpFace,
  EVENT_STREAMS_MAX,
  listen,
  PIPELINED_MAX,
  RUN_PAUSE_MS,
  type HttpFace,
} from "./http.ts";

const FILE_BYTES = 400_000;
const run = sampleRun(1_000);
/** Of one network. */
const SHARE = 0.01;
const open: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) {
    await close();
  }
});

/** A face that serves one large file; `views` counts how often the run was read. */
async function serve(
  proxyHeader: string | null = null,
): Promise<{ face: HttpFace; port: number; views: () => number; wait: (ms: number) => void }> {
  const dist = await mkdtemp(join(tmpdir(), "heddle-dist-"));
  await writeFile(join(dist, "large.bin"), new Uint8Array(FILE_BYTES));
  await Promise.all(["index.html", "widget.html"].map((page) => writeFile(join(dist, page), "")));
  let [views, waitMs] = [0, 0];
  const view = (): RunView => {
    views += 1;
    return { ...run, connected: views };
  };
  const face = createHttpFace({
    proxyHeader,
    prefixShare: SHARE,
    waitMs: () => waitMs,
    dist,
    view,
    log: createMemoryStore().log,
    blob: (_request, response) => void response.writeHead(404).end(),
  });
  const port = await listen(face.server, 0, "127.0.0.1");
  open.push(
    () => face.close(),
    () => rm(dist, { recursive: true }),
  );
  const wait = (ms: number): void => {
    waitMs = ms;
  };
  return { face, port, views: () => views, wait };
}

async function descriptors(): Promise<number> {
  return (await readdir("/proc/self/fd")).length;
}

/** Resolves with the number of answers that begin, once the other side has closed or `answers` are there. */
async function ask(port: number, requests: number, answers: number): Promise<number> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => undefined); // cut off
  socket.write("GET /large.bin HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(requests));
  let seen = 0;
  socket.on("data", (chunk: Buffer) => {
    seen += chunk.toString("latin1").split("HTTP/1.1 200").length - 1;
    if (seen === answers) {
      socket.destroy();
    }
  });
  await once(socket, "close");
  return seen;
}

test.runIf(process.platform === "linux")("createHttpFace() keeps no file open for readers that go away", async () => {
  const { port } = await serve();
  const before = await descriptors();
  for (let i = 0; i < 40; i += 1) {
    await ask(port, PIPELINED_MAX, 1);
  }
  // What is being read for one that has gone is read to its end.
  await expect.poll(async () => (await descriptors()) - before, { timeout: 10_000 }).toBeLessThan(20);
});

test("createHttpFace() answers requests of one connection in turn, and cuts it off when too many wait", async () => {
  const { port } = await serve();
  expect(await ask(port, PIPELINED_MAX, PIPELINED_MAX)).toBe(PIPELINED_MAX);
  expect(await ask(port, 10 * PIPELINED_MAX, 10 * PIPELINED_MAX)).toBeLessThanOrEqual(PIPELINED_MAX);
  expect((await fetch(`http://127.0.0.1:${port}/large.bin`)).status).toBe(200);
});

test("createHttpFace() isolates its pages, and lets every site embed the widget, isolated ones too; all run their own scripts alone", async () => {
  const { port } = await serve();
  const headersOf = async (path: string): Promise<readonly (string | null)[]> => {
    const { headers } = await fetch(`http://127.0.0.1:${port}${path}`);
    expect(headers.get("content-security-policy")).toContain("script-src 'self'");
    return ["resource-policy", "embedder-policy", "opener-policy"].map((name) => headers.get(`cross-origin-${name}`));
  };
  expect(await headersOf("/")).toEqual(["cross-origin", "require-corp", "same-origin"]);
  expect(await headersOf("/widget.html")).toEqual(["cross-origin", "require-corp", null]);
});

test("createHttpFace() tells those who have to wait when to come back, a minute at most", async () => {
  const { port, wait } = await serve();
  for (const path of ["/api/ledger", "/api/run"]) {
    const answer = async (): Promise<readonly [number, string | null]> => {
      const { status, headers } = await fetch(`http://127.0.0.1:${port}${path}`);
      return [status, headers.get("retry-after")];
    };
    wait(1_200);
    expect(await answer()).toEqual([429, "2"]);
    wait(1e9);
    expect(await answer()).toEqual([429, "60"]);
    wait(0);
    expect(await answer()).toEqual([200, null]);
  }
});

test("createHttpFace() tells listeners of many changes once, with the last state, and of a version at once", async () => {
  const { face, port, views } = await serve();
  const response = await fetch(`http://127.0.0.1:${port}/api/events`);
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let text = "";
  const until = async (sign: string): Promise<void> => {
    while (!text.includes(sign)) {
      text += Buffer.from((await reader.read()).value ?? []).toString();
    }
  };
  const change = (connected: number): string => {
    const { run: digest, round, phase, versions } = run;
    return `event: change\ndata: ${JSON.stringify({ run: digest, round, phase, connected, head: versions.at(-1) })}\n\n`;
  };
  await until(change(1));
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    for (let i = 0; i < 1_000; i += 1) {
      face.announce(null);
    }
    face.announce({ version: 7 } as Parameters<HttpFace["announce"]>[0]);
    await until('event: version\ndata: {"version":7}\n\n');
    vi.advanceTimersByTime(RUN_PAUSE_MS - 1);
    expect(views()).toBe(1);
    vi.advanceTimersByTime(1);
    await until(change(2));
  } finally {
    vi.useRealTimers();
  }
  expect(views()).toBe(2);
  expect(text.length).toBeLessThan(2_000); // of a record of 250 kB
  await reader.cancel();
});

test("createHttpFace() serves the record as it is after each change, and reads it once for all who ask", async () => {
  const { face, port, views } = await serve();
  const read = async (): Promise<unknown> => (await fetch(`http://127.0.0.1:${port}/api/run`)).json();
  expect(await read()).toEqual({ ...run, connected: 1 });
  expect(await read()).toEqual({ ...run, connected: 1 });
  face.announce(null);
  expect(await read()).toEqual({ ...run, connected: 2 });
  expect(views()).toBe(2);
});

test("createHttpFace() serves the newest versions alone where so many are asked for, and all for what is no number of them", async () => {
  const { port } = await serve();
  const lengthOf = async (query: string): Promise<number> =>
    ((await (await fetch(`http://127.0.0.1:${port}/api/run?versions=${query}`)).json()) as RunView).versions.length;
  expect([await lengthOf("1"), await lengthOf("20"), await lengthOf("20"), await lengthOf("100")]).toEqual([
    1, 20, 20, 100,
  ]);
  for (const query of ["0", "-1", "1e1", "101", "x", ""]) {
    expect(await lengthOf(query)).toBe(run.versions.length);
  }
});

test("createHttpFace() gives one network its share of the event streams, and what it lets go to whoever comes", async () => {
  const { port } = await serve("X-Forwarded-For");
  const listenFrom = async (address: string): Promise<Response> =>
    fetch(`http://127.0.0.1:${port}/api/events`, { headers: { "x-forwarded-for": address } });
  const held: Response[] = [];
  for (let i = 0; i < SHARE * EVENT_STREAMS_MAX; i += 1) {
    held.push(await listenFrom(`203.0.113.${i}`));
  }
  expect(held.map(({ status }) => status)).not.toContain(503);
  expect((await listenFrom("203.0.113.200")).status).toBe(503);
  const other = await listenFrom("198.51.100.7");
  expect(other.status).toBe(200);
  await held.pop()?.body?.cancel();
  const isLetIn = async (): Promise<boolean> => {
    const response = await listenFrom("203.0.113.200");
    held.push(response);
    return response.ok;
  };
  await vi.waitUntil(isLetIn, { timeout: 10_000 });
  for (const { body } of [...held, other]) {
    await body?.cancel();
  }
});

test("createHttpFace() gives one network its share of the connections, but for those of a proxy", async () => {
  for (const proxyHeader of [null, "X-Forwarded-For"]) {
    const { face } = await serve(proxyHeader);
    const connectFrom = (remoteAddress: string): Duplex => {
      const bare = new Duplex({ read: () => undefined, write: (_bytes, _encoding, done) => done() });
      const socket = Object.assign(bare, { remoteAddress });
      face.server.emit("connection", socket);
      return socket;
    };
    const open = Array.from({ length: Math.floor(SHARE * CONNECTIONS_SHARED) }, () => connectFrom("203.0.113.7"));
    expect(open.some(({ destroyed }) => destroyed)).toBe(false);
    expect(connectFrom("203.0.113.8").destroyed).toBe(proxyHeader === null);
    expect(connectFrom("198.51.100.7").destroyed).toBe(false);
    await once((open[0] as Duplex).destroy(), "close");
    expect(connectFrom("203.0.113.8").destroyed).toBe(false);
  }
});
