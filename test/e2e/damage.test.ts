/**
 * A checkpoint that is damaged on its way from a relay to a contributor, headless and in a real browser: a proxy between them changes one
 * byte, once, and the contributor trains after it has asked for one piece again.
 */
import { once } from "node:events";
import { createServer, request as ask, type Server } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { PIECE_BYTES, UNCUT_BYTES_MAX } from "../../src/protocol/limits.ts";
import type { RunView } from "../../src/protocol/run-view.ts";
import { beginContributing } from "../../src/headless/chromium.ts";
import { openBrowser, openPage } from "./browser.ts";
import { QUICK_CHARTER, startContributor, startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

/** A checkpoint of 2 MB, and one round that outlasts the test: everybody needs version 0. */
const CHARTER = {
  ...QUICK_CHARTER,
  model: { ...QUICK_CHARTER.model, channels: 128, hidden: 512, layers: 2 },
  round: { ...QUICK_CHARTER.round, trainMs: 120_000, stepsMax: 100_000 },
};
const folder = temporaryFolder();
const open = new Set<Socket>();
let relay: RunningRelay;
let proxy: Server;
let damaged = "";
let parameters = 0;
let origin = "";
/** Bytes of the checkpoint in each answer. */
const sent: number[] = [];

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path, charter: CHARTER, args: ["--no-contributor"] });
  const { hostname, port } = new URL(relay.origin);
  proxy = createServer(({ method, url, headers }, response) => {
    const asking = ask({ hostname, port, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      const isDamaged = url === `/blob/${damaged}`;
      const number = isDamaged ? sent.push(0) - 1 : -1;
      answer.on("data", (bytes: Buffer) => {
        if (isDamaged) {
          const [place, before] = [PIECE_BYTES, sent[number] as number];
          sent[number] = before + bytes.length;
          if (number === 0 && before <= place && place < before + bytes.length) {
            bytes[place - before] = (bytes[place - before] as number) ^ 1;
          }
        }
        response.write(bytes);
      });
      answer.on("end", () => response.end());
    });
    asking.on("error", () => response.destroy()).end();
  });
  proxy.on("connection", (socket: Socket) => open.add(socket));
  proxy.on("upgrade", ({ url, rawHeaders }, socket, head: Buffer) => {
    const lines = rawHeaders.map((text, i) => (i % 2 === 0 ? `${text}: ` : `${text}\r\n`)).join("");
    const far = connect(Number(port), hostname);
    far.write(`GET ${url} HTTP/1.1\r\n${lines}\r\n`);
    far.write(head);
    far.on("error", () => socket.destroy()).pipe(socket);
    socket.on("error", () => far.destroy()).pipe(far);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  origin = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const run = (await (await fetch(`${relay.origin}/api/run`)).json()) as RunView;
  damaged = run.versions.at(-1)?.digest ?? "";
  ({ parameters } = run);
  expect(4 * parameters).toBeGreaterThan(UNCUT_BYTES_MAX);
});
beforeEach(() => {
  sent.length = 0;
});
afterAll(async () => {
  open.forEach((socket) => socket.destroy());
  proxy.close();
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

function expectOneMore(): void {
  expect(sent).toEqual([4 * parameters, expect.any(Number)]);
  expect(sent[1]).toBeLessThanOrEqual(PIECE_BYTES);
}

test("a wrong byte in a checkpoint costs a contributor the piece that it is in", async () => {
  const contributor = startContributor(origin, `${folder.path}/one`, ["--engine", "wasm", "--threads", "1"]);
  await contributor.waitFor(({ status }) => status === "training");
  await contributor.stop("SIGKILL");
  expectOneMore();
});

test("and so it does in a browser", async () => {
  const browser = await openBrowser();
  try {
    const { page } = await openPage(browser, origin);
    await beginContributing(page);
    await expect.poll(() => page.locator("#state").innerText(), { timeout: 60_000 }).toMatch(/^Training/);
    expectOneMore();
  } finally {
    await browser.close();
  }
});
