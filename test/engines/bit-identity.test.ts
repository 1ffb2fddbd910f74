/**
 * The WASM engine's promise: the same training run gives the same bits in Node, in Deno and in Chromium, for every number
 * of threads. It is what lets a contribution be replayed as an audit anywhere.
 */
import { execFile, execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium, type Browser, type Page } from "playwright-core";
import { createServer, type ViteDevServer } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTwin } from "../../src/tensor/twin.ts";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { trainDigest, type TrainDigest } from "./train-digest.ts";

/**
 * Made by this test on 2026-11-22 with AssemblyScript 0.28.20 (Node 26.10.0, x86-64). It may change with the kernels, on
 * purpose; if a compiler or runtime upgrade changes it, recorded contributions can no longer be replayed.
 */
const GOLDEN = "8cc8fd08f42ca8b0e89f54ca6567bd046993fbcacf9bb0e62927cc5293917991";

const root = new URL("../../", import.meta.url);
const build = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(new URL(`build/${name}`, root)));

beforeAll(() => {
  execFileSync(process.execPath, [fileURLToPath(new URL("tools/build-wasm.mjs", root))]);
});

describe("trainDigest() on the WASM engine", () => {
  test.each([1, 2, 3])("is the golden one in Node with %d threads", async (threads) => {
    using engine = await createWasmEngine({ bytes: build("heddle-threads.wasm"), threads });
    expect((await trainDigest(engine)).digest).toBe(GOLDEN);
  });

  test("is the golden one in Node without shared memory, and the twin's losses are close", async () => {
    using engine = await createWasmEngine({ bytes: build("heddle.wasm") });
    const { digest, losses } = await trainDigest(engine);
    expect(digest).toBe(GOLDEN);
    using twin = createTwin();
    const reference = await trainDigest(twin);
    losses.forEach((loss, step) => expect(loss).toBeCloseTo(reference.losses[step] as number, 3));
  });

  test.each([1, 2])("is the golden one in Deno with %d threads", async (threads) => {
    const script = fileURLToPath(new URL("bit-identity-deno.ts", import.meta.url));
    const deno = fileURLToPath(new URL("node_modules/.bin/deno", root));
    const { stdout } = await promisify(execFile)(deno, ["run", "--allow-read", script, String(threads)]);
    expect((JSON.parse(stdout) as TrainDigest).digest).toBe(GOLDEN);
  });
});

describe("trainDigest() on the WASM engine in Chromium", () => {
  let server: ViteDevServer;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    server = await createServer({
      configFile: false,
      root: fileURLToPath(root),
      cacheDir: "node_modules/.vite-bit-identity",
      logLevel: "error",
      optimizeDeps: { noDiscovery: true },
      server: { port: 0, host: "127.0.0.1", hmr: false, watch: null },
      plugins: [{ name: "empty page", configureServer: serveEmptyPage }],
    });
    await server.listen();
    const flags = "--no-sandbox --disable-quic --no-first-run --disable-background-networking";
    browser = await chromium.launch({
      executablePath: "/usr/bin/chromium",
      args: `${flags} --disable-component-update --disable-sync`.split(" "),
    });
    page = await browser.newPage();
    await page.goto(`${server.resolvedUrls?.local[0]}empty`);
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  test.each([1, 2])("is the golden one with %d threads", async (threads) => {
    const result = await page.evaluate(
      (count) =>
        new Promise((resolve, reject) => {
          const worker = new Worker("/test/engines/bit-identity-worker.ts", { type: "module" });
          worker.addEventListener("message", (event) => resolve(event.data));
          worker.addEventListener("error", (event) => reject(new Error(event.message)));
          worker.postMessage(count);
        }),
      threads,
    );
    expect(result).toMatchObject({ digest: GOLDEN });
  });
});

/** Serves an empty page at /empty, and every file with the headers that shared memory asks for. */
function serveEmptyPage(server: ViteDevServer): void {
  server.middlewares.use((request, response, next) => {
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    if (request.url === "/empty") {
      response.setHeader("Content-Type", "text/html");
      response.end("<!doctype html><title>Empty</title>");
    } else {
      next();
    }
  });
}
