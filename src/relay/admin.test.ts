import { createServer, type Server } from "node:http";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openEmbeddedStore } from "../store/embedded.ts";
import { runAdmin } from "./admin.ts";
import { listenOnSocket, PROCESS_HEADER } from "./operator-socket.ts";
import { KEY_FILE } from "./place.ts";

let dir: string;
const relays: Server[] = [];
let nowMs = 0;
const said: string[] = [];
const say = (line: string): void => void said.push(line);
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "heddle-admin-"));
  said.length = 0;
});
afterEach(() => {
  for (const relay of relays.splice(0)) {
    relay.close();
  }
  rmSync(dir, { recursive: true });
});

/** Runs a command in the folder; time passes only while it waits, and `wait` is what happens then. */
function admin(words: string, wait: () => unknown = () => undefined): Promise<number> {
  const sleep = async (ms: number): Promise<void> => {
    nowMs += ms;
    await wait();
    await new Promise(setImmediate);
  };
  return runAdmin([...words.split(" "), "--dir", dir], { print: say, printError: say, sleep, nowMs: () => nowMs });
}

/** A relay that calls itself `name`. When it is asked to drain it does `drain` before it answers; by default it closes its socket. */
async function start(name: string, drain: (server: Server) => unknown = (server) => server.close()): Promise<void> {
  const server = createServer((request, response) => {
    response.setHeader("connection", "close").setHeader(PROCESS_HEADER, name);
    void Promise.resolve(request.method === "POST" ? drain(server) : null).then(() => response.end("{}"));
  });
  relays.push(server);
  await listenOnSocket(server, dir);
}

test("drain waits until the relay has given up its folder, not only its socket", async () => {
  writeFileSync(join(dir, KEY_FILE), "");
  const store = await openEmbeddedStore(dir);
  await start("process 1");
  let looks = 0;
  const wait = async (): Promise<void> => {
    looks += 1;
    expect(said.join()).not.toContain("Drained");
    if (looks === 3) {
      await store.close();
    }
  };
  expect(await admin("drain", wait)).toBe(0);
  expect(looks).toBeGreaterThanOrEqual(3);
  expect(said.at(-1)).toBe("Drained: the relay has ended");
});

test("drain of a relay whose run is kept elsewhere waits for its socket", async () => {
  await start("process 1");
  expect(await admin("drain")).toBe(0);
  expect(said.at(-1)).toBe("Drained: the relay has ended");
});

test("drain says that something has started the relay again, and ends", async () => {
  await start("process 1, started today", async (server) => {
    server.close();
    await start("process 1, started tomorrow");
  });
  expect(await admin("drain")).toBe(1);
  expect(said.at(-1)).toMatch(/has ended, and now process 1, started tomorrow, runs; have what starts it again/);
});

test("drain waits no longer than an hour for a relay that does not end", async () => {
  await start("process 1", () => undefined);
  let waits = 0;
  const wait = (): void => {
    waits += 1;
    nowMs += 600_000;
  };
  expect(await admin("drain", wait)).toBe(1);
  expect(waits).toBe(6);
  expect(said.at(-1)).toMatch(/^Cannot wait for the relay's end any longer: it has not come within 60 min/);
});

test("ledger export leaves nothing behind when the relay ends in the middle of it", async () => {
  const relay = createServer((request, response) => {
    if (request.url === "/healthz") {
      response.end("ok");
    } else {
      response.write("heddle ledger 1\n", () => response.destroy());
    }
  });
  relays.push(relay);
  await listenOnSocket(relay, dir);
  const code = await admin(`ledger export ${join(dir, "ledger")}`);
  expect({ code, said }).toEqual({ code: 1, said: [expect.stringMatching(/^The relay ended in the middle of/)] });
  expect(readdirSync(dir)).toEqual(["operator.sock"]);
});

test("flags that a command does not know are refused: a dry run of what knows none must not be a real one", async () => {
  for (const words of [
    "backup to --dry-run",
    "pause --json",
    `unban ${"a".repeat(64)} --reason y`,
    "status --checkpoints 1",
  ]) {
    said.length = 0;
    const code = await admin(words);
    expect({ words, code }).toEqual({ words, code: 2 });
  }
  expect(await admin("status --json")).toBe(1); // there is no run here
});

test("backup in a folder without a run says that it also takes --nats", async () => {
  expect(await admin("backup to")).toBe(1);
  expect(said).toEqual([expect.stringMatching(/^Cannot find a relay's run in .*; a backup also takes --nats\)$/)]);
});
