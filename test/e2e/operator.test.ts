/**
 * What an operator does wrong or in a hurry: charters that this machine cannot serve, an impatient Ctrl-C, a reader of the
 * output that goes away, two contributors with one name. Each ends in a sentence, never in a stack trace.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ROOT, startContributor, startRelay, temporaryFolder, type Running } from "./processes.ts";

const running = new Set<Running>();
afterEach(async () => {
  await Promise.all([...running].map((process) => process.stop("SIGKILL")));
  running.clear();
});

function kept<T extends Running>(process: T): T {
  running.add(process);
  return process;
}

const quiet = ["--no-contributor"];

describe("an operator", () => {
  test("is told why a charter cannot be served, and the folder stays free for another", async () => {
    using folder = temporaryFolder();
    const refusals: [object, RegExp][] = [
      [{ inner: { batch: 65_536 } }, /Cannot serve this run here: .* \d+ MiB more than WebAssembly has free\n$/],
      [{ model: { time: 65_536 } }, /Cannot serve this run here: .* the corpus has \d+ bytes of text, need .*\n$/],
    ];
    for (const [charter, reason] of refusals) {
      const start = startRelay({ dir: folder.path, charter, args: quiet });
      await expect(start).rejects.toThrow(reason);
      await expect(start).rejects.not.toThrow(/^\s+at /m);
    }
    const relay = kept(await startRelay({ dir: folder.path, args: quiet }));
    expect(relay.events[0]).toMatchObject({ event: "listening", version: 0 });
  });

  test("who presses Ctrl-C once is not taken for two when the terminal and npm both send it", async () => {
    using folder = temporaryFolder();
    const relay = kept(await startRelay({ dir: folder.path, args: quiet }));
    process.kill(relay.pid, "SIGINT");
    expect(await relay.stop("SIGINT")).toBe(0);
    expect(relay.events.at(-1)).toMatchObject({ level: "info", event: "stopped" });
  });

  test("who stops reading the output stops the relay without a stack trace", async () => {
    using folder = temporaryFolder();
    const flags = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];
    const args = ["src/relay/main.ts", "--port", "0", "--dir", folder.path, ...quiet];
    const relay = spawn(join(ROOT, "node_modules/.bin/node"), [...flags, ...args], { cwd: ROOT });
    relay.stdout.destroy();
    let errors = "";
    relay.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    expect(await new Promise((settle) => relay.once("close", settle))).toBe(0);
    expect(errors).toBe("");
  });

  test("is told which Chromium cannot be started", async () => {
    using folder = temporaryFolder();
    const args = ["--runtime", "chromium"];
    const contributor = startContributor("http://127.0.0.1:9", folder.path, args, { CHROMIUM: "/nowhere/chromium" });
    expect(await contributor.exited).toBe(1);
    expect(contributor.errors()).toMatch(/^Cannot start Chromium "\/nowhere\/chromium": .*\n$/);
  });

  test("is told to name the second contributor of a machine, and of an absent relay once", async () => {
    using folder = temporaryFolder();
    const dir = join(folder.path, "contributor");
    const nowhere = "http://127.0.0.1:9";
    const first = kept(startContributor(nowhere, dir, ["--engine", "wasm"]));
    const lost = (event: { readonly [field: string]: unknown }): boolean =>
      String(event["sentence"]).startsWith("No connection yet");
    await first.waitFor(lost);
    const second = startContributor(nowhere, dir, ["--engine", "wasm"]);
    expect(await second.exited).toBe(1);
    expect(second.errors()).toMatch(/is in use by process \d+; give this contributor a --name of its own\n$/);
    expect(first.events.filter(lost)).toHaveLength(1);
  });
});
