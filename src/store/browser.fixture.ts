/**
 * A real browser for tests: builds a page from one module with Vite as production does, serves it on loopback, opens it in
 * headless Chromium. The module hangs functions on `globalThis`, tests call them with `page.evaluate`.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { chromium, type Page } from "playwright-core";
import { build, type Rollup } from "vite";
import { present } from "../base/assert.ts";

export interface BrowserPage {
  readonly page: Page;
  /** The server that serves the page; further paths and upgrades may be added. */
  readonly server: Server;
  readonly origin: string;
  close(): Promise<void>;
}

const CHROMIUM = "/usr/bin/chromium";
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];

/** Opens the page whose only script is the module at `entry` (a file URL). */
export async function openBrowserPage(entry: URL): Promise<BrowserPage> {
  const files = await bundle(fileURLToPath(entry));
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://page").pathname;
    const file = files.get(path);
    response.writeHead(file === undefined ? 404 : 200, {
      "content-type": path === "/" ? "text/html; charset=utf-8" : "text/javascript; charset=utf-8",
    });
    response.end(file);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--no-first-run", ...QUIET],
  });
  const page = await browser.newPage();
  await page.goto(origin);
  return {
    page,
    server,
    origin,
    close: async () => {
      await browser.close();
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** The built page by path: index.html, the entry and its chunks. */
async function bundle(input: string): Promise<Map<string, string | Uint8Array>> {
  const output = (await build({
    configFile: false,
    logLevel: "error",
    build: { write: false, target: "es2023", rollupOptions: { input }, modulePreload: { polyfill: false } },
    worker: { format: "es" },
  })) as Rollup.RollupOutput;
  const files = new Map<string, string | Uint8Array>();
  for (const chunk of output.output) {
    files.set(`/${chunk.fileName}`, chunk.type === "chunk" ? chunk.code : chunk.source);
  }
  const entry = present(
    output.output.find((chunk) => chunk.type === "chunk" && chunk.isEntry),
    "the entry chunk",
  );
  files.set("/", `<!doctype html><title>Test</title><script type="module" src="/${entry.fileName}"></script>`);
  return files;
}
