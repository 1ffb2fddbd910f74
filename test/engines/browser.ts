/**
 * Entry for Chromium: `node test/engines/browser.ts engine=webgpu|wasm`. Serves the page and its worker, opens it in the
 * machine's Chromium with SwiftShader for a GPU, and prints the worker's report. The page is cross-origin isolated, so that
 * the WASM engine may use threads.
 */
import process from "node:process";
import { chromium } from "playwright-core";
import { createServer } from "vite";
import { textPlugin } from "../../vite.config.ts";
import { engineChoice, REPORT, type Report } from "./entry.ts";

export const CHROMIUM = "/usr/bin/chromium";
const REPORT_MS_MAX = 240_000;

const server = await createServer({
  configFile: false,
  root: new URL("../..", import.meta.url).pathname,
  logLevel: "error",
  plugins: [textPlugin()],
  // A page of its own needs nothing bundled ahead, and two servers must not fight over one cache.
  cacheDir: `node_modules/.vite-engines-${process.pid}`,
  optimizeDeps: { noDiscovery: true },
  server: {
    port: 0,
    host: "127.0.0.1",
    hmr: false,
    watch: null,
    headers: { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" },
  },
});
await server.listen();
const address = server.httpServer?.address();
const port = typeof address === "object" ? address?.port : undefined;
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: [
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${port}/test/engines/page/index.html?engine=${engineChoice(process.argv)}`);
  await page.waitForFunction("globalThis.report !== undefined", undefined, { timeout: REPORT_MS_MAX });
  const report = (await page.evaluate("globalThis.report")) as Report;
  process.stdout.write(REPORT.begin + JSON.stringify(report) + REPORT.end);
} finally {
  await browser.close();
  await server.close();
}
