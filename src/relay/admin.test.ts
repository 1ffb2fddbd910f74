import { createServer, type Server } from "node:http";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openEmbeddedStore } from "../store/embedded.ts";
import { runAdmin } from "./admin.ts";
import { KEY_FILE } from "./backup.ts";
import { listenOnSocket } from "./operator-socket.ts";

let dir: string;
let relay: Server | undefined;
const said: string[] = [];
const say = (line: string): void => void said.push(line);
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "heddle-admin-"));
  said.length = 0;
});
afterEach(() => {
  relay?.close();
  relay = undefined;
  rmSync(dir, { recursive: true });
});

/** A relay that closes its socket as soon as it is asked to drain. */
async function startDrainable(): Promise<void> {
  const server = createServer((request, response) => {
    response.setHeader("connection", "close").end("{}");
    if (request.method === "POST") {
      server.close();
    }
  });
  relay = server;
  await listenOnSocket(server, dir);
}

test("drain waits until the relay has given up its folder, not only its socket", async () => {
  writeFileSync(join(dir, KEY_FILE), "");
  const store = await openEmbeddedStore(dir);
  await startDrainable();
  let looks = 0;
  const sleep = async (): Promise<void> => {
    looks += 1;
    expect(said.join()).not.toContain("Drained");
    if (looks === 3) {
      await store.close();
    }
    await new Promise(setImmediate);
  };
  expect(await runAdmin(["drain", "--dir", dir], { print: say, printError: say, sleep })).toBe(0);
  expect(looks).toBeGreaterThanOrEqual(3);
  expect(said.at(-1)).toBe("Drained: the relay has ended");
});

test("drain of a relay whose run is kept elsewhere waits for its socket", async () => {
  await startDrainable();
  const sleep = async (): Promise<void> => undefined;
  expect(await runAdmin(["drain", "--dir", dir], { print: say, printError: say, sleep })).toBe(0);
  expect(said.at(-1)).toBe("Drained: the relay has ended");
});

test("ledger export leaves nothing behind when the relay ends in the middle of it", async () => {
  relay = createServer((request, response) => {
    if (request.url === "/healthz") {
      response.end("ok");
    } else {
      response.write("heddle ledger 1\n", () => response.destroy());
    }
  });
  await listenOnSocket(relay, dir);
  const sleep = async (): Promise<void> => undefined;
  const file = join(dir, "ledger");
  const code = await runAdmin(["ledger", "export", file, "--dir", dir], { print: say, printError: say, sleep });
  expect({ code, said }).toEqual({ code: 1, said: [expect.stringMatching(/^The relay ended in the middle of/)] });
  expect(readdirSync(dir)).toEqual(["operator.sock"]);
});

test("flags that a command does not know are refused: a dry run of what knows none must not be a real one", async () => {
  const sleep = async (): Promise<void> => undefined;
  const run = (...words: string[]) => runAdmin([...words, "--dir", dir], { print: say, printError: say, sleep });
  for (const words of [
    "backup to --dry-run",
    "pause --json",
    `unban ${"a".repeat(64)} --reason y`,
    "status --checkpoints 1",
  ]) {
    said.length = 0;
    const code = await run(...words.split(" "));
    expect({ words, code }).toEqual({ words, code: 2 });
  }
  expect(await run("status", "--json")).toBe(1); // there is no run here
});
