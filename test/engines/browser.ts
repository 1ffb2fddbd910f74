/**
 * Entry for browsers: `node test/engines/browser.ts chromium|firefox [webgpu] [wasm] [only=TRACE]`. Serves a page whose worker
 * runs everything, opens it in the machine's browser, and prints the worker's reports. Chromium has Dawn on SwiftShader for a
 * GPU, Firefox wgpu on Mesa's llvmpipe. The page is cross-origin isolated, so that the WASM engine may use threads.
 */
import process from "node:process";
import { launch, type Browser } from "puppeteer-core";
import { QUIET, SOFTWARE_GPU } from "../e2e/browser.ts";
import { serveIsolated } from "../fixtures/isolated-server.ts";
import { REPORT, wantedIn, wordsOf, type Reports } from "./entry.ts";

const REPORT_MS_MAX = 1_800_000;

const server = await serveIsolated();
const browser = await open(process.argv.includes("firefox") ? "firefox" : "chromium");
try {
  const page = await browser.newPage();
  await page.goto(`${server.origin}/test/engines/page/index.html`);
  const { reports, thrown } = await page.evaluate(
    (words) => (globalThis as unknown as Page).runInWorker(words),
    wordsOf(wantedIn(process.argv)),
  );
  if (thrown !== undefined) {
    throw new Error(thrown);
  }
  process.stdout.write(REPORT.begin + JSON.stringify(reports) + REPORT.end);
} finally {
  await browser.close();
  await server[Symbol.asyncDispose]();
}

/** What the page's script declares. */
interface Page {
  runInWorker(words: readonly string[]): Promise<{ readonly reports?: Reports; readonly thrown?: string }>;
}

function open(name: "chromium" | "firefox"): Promise<Browser> {
  if (name === "firefox") {
    const preferences = {
      "dom.webgpu.enabled": true,
      "dom.webgpu.workers.enabled": true,
      "gfx.webgpu.ignore-blocklist": true,
    };
    return launch({
      browser: "firefox",
      executablePath: "/usr/bin/firefox-esr",
      extraPrefsFirefox: preferences,
      protocolTimeout: REPORT_MS_MAX,
    });
  }
  return launch({
    executablePath: "/usr/bin/chromium",
    args: [...QUIET, ...SOFTWARE_GPU],
    protocolTimeout: REPORT_MS_MAX,
  });
}
