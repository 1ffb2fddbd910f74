/**
 * The package as its users get it: built, packed, installed into an empty folder, and used there in Node, in Chromium as
 * plain modules, through a bundler with threads, and by the type checker. Nothing is fetched: it has no dependencies.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build } from "vite";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { openBrowser, openPage } from "./browser.ts";
import { ROOT, temporaryFolder } from "./processes.ts";

const bin = join(ROOT, "node_modules/.bin");
const folder = temporaryFolder();
let server: Server;
let origin: string;
let browser: Browser;

beforeAll(async () => {
  execFileSync(join(bin, "node"), [join(ROOT, "tools/build-package.mjs")], { stdio: "pipe" });
  writeFileSync(join(folder.path, "package.json"), JSON.stringify({ type: "module", private: true }));
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
  const flags = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"];
  execFileSync("npm", ["install", ...flags, join(ROOT, `build/heddle-${version}.tgz`)], { cwd: folder.path });
  server = serve(folder.path);
  await new Promise<void>((listening) => {
    server.listen(0, "127.0.0.1", listening);
  });
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  browser = await openBrowser();
});
afterAll(async () => {
  await browser?.close();
  server?.close();
  folder[Symbol.dispose]();
});

describe("the package", () => {
  test("brings nothing with it", () => {
    expect(readdirSync(join(folder.path, "node_modules")).filter((name) => !name.startsWith("."))).toEqual(["heddle"]);
  });

  test("runs its examples in Node, unbuilt and without flags", () => {
    const output = execFileSync(join(bin, "node"), ["node_modules/heddle/examples/matmul.js"], { cwd: folder.path });
    expect(output.toString()).toMatch(/^512×512 · 512×512 on WASM SIMD, (fused, )?\d threads?: [\d.]+ GFLOP\/s\n$/);
  });

  test("runs its examples in Chromium as plain modules", async () => {
    for (const [example, wanted] of [
      ["matmul?m=64", /^64×512 · 512×512 on WASM SIMD, (fused, )?1 thread/],
      ["generate?steps=2&count=4", /^step 1: loss 5\.5\d\d\nI was /],
    ] as const) {
      const [name = "", query = ""] = example.split("?");
      const url = `${origin}/node_modules/heddle/examples/index.html?${query}#${name}`;
      const { page, faults } = await openPage(browser, url);
      await page
        .waitForFunction(() => document.title === "Done", undefined, { timeout: 60_000 })
        .catch(() => undefined);
      expect(await page.locator("#out").innerText()).toMatch(wanted);
      expect(faults).toEqual([]);
      await page.context().close();
    }
  });

  test("goes through a bundler, WASM files and threads with it", async () => {
    const app = join(folder.path, "app");
    mkdirSync(app);
    writeFileSync(join(app, "index.html"), `<script type="module" src="./main.js"></script>`);
    writeFileSync(
      join(app, "main.js"),
      `const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
       worker.onmessage = ({ data }) => { document.title = data; };`,
    );
    writeFileSync(
      join(app, "worker.js"),
      `import { createWasmEngine, record } from "heddle/engine";
       const r = record("sum");
       r.add(r.input("x", [3]), r.input("y", [3]));
       try {
         const engine = await createWasmEngine({ threads: 2, fused: true });
         const plan = await engine.compile(r.finish(["sum"]));
         plan.write("x", Float32Array.of(1, 2, 3));
         plan.write("y", Float32Array.of(4, 5, 6));
         const { sum } = await plan.run(["sum"]);
         postMessage(engine.device + ": " + sum.join());
       } catch (error) {
         postMessage(String(error));
       }`,
    );
    using here = await createWasmEngine({ threads: 2, fused: true }); // fuses where this processor does
    await build({ configFile: false, root: app, base: "./", logLevel: "error", worker: { format: "es" } });
    const { page, faults } = await openPage(browser, `${origin}/app/dist/index.html`);
    await expect.poll(() => page.title(), { timeout: 20_000 }).toBe(`${here.device}: 5,7,9`);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("has types that hold without any others", () => {
    writeFileSync(
      join(folder.path, "user.ts"),
      `import { createEngine, record, HeddleError, type Engine } from "heddle/engine";
       export async function sum(gpu: GPU | null): Promise<Float32Array> {
         const r = record("sum");
         r.add(r.input("x", [3]), r.input("y", [3]));
         const engine: Engine = await createEngine({ gpu });
         const plan = await engine.compile(r.finish(["sum"]));
         const { sum: result } = await plan.run(["sum"]);
         return result;
       }
       export const isLost = (error: unknown): boolean => error instanceof HeddleError && error.code === "device-lost";`,
    );
    const flags = "--noEmit --strict --target es2023 --module nodenext --lib es2024,esnext.disposable,dom";
    execFileSync(join(bin, "tsc"), [...flags.split(" "), "user.ts"], { cwd: folder.path, stdio: "pipe" });
  });
});

/** A static server that makes pages cross-origin isolated, which threads ask for. */
function serve(root: string): Server {
  const types: Record<string, string> = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
  };
  return createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    try {
      const body = readFileSync(join(root, pathname));
      response.writeHead(200, {
        "content-type": types[extname(pathname)] ?? "application/octet-stream",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
      });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
}
