/**
 * Entry for browsers: `node test/engines/browser.ts chromium|firefox [webgpu] [wasm] [only=TRACE]`. Serves a page whose worker
 * runs everything, opens it in the machine's browser, and prints the worker's reports. Chromium has Dawn on SwiftShader for a
 * GPU, Firefox wgpu on Mesa's llvmpipe. The page is cross-origin isolated, so that the WASM engine may use threads. The browsers
 * are started as a person starts them: under WebDriver BiDi Firefox hangs in one of a hundred workers that a worker starts.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { QUIET, SOFTWARE_GPU } from "../e2e/browser.ts";
import { serveIsolated } from "../fixtures/isolated-server.ts";
import { REPORT, wantedIn, wordsOf, type Reports } from "./entry.ts";

/** What the page posts: the name of what begins, and in the end the reports or what was thrown. */
interface Said {
  readonly begun?: string;
  readonly reports?: Reports;
  readonly thrown?: string;
}

const BROWSERS = {
  chromium: (profile: string) => [
    "/usr/bin/chromium",
    "--headless",
    `--user-data-dir=${profile}`,
    ...QUIET,
    ...SOFTWARE_GPU,
  ],
  firefox: (profile: string) => ["/usr/bin/firefox-esr", "--headless", "--no-remote", "--profile", profile],
};
const FIREFOX_PREFERENCES = {
  "dom.webgpu.enabled": true,
  "dom.webgpu.workers.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
  // A fresh profile opens pages of its own beside ours, and asks the network about them.
  "browser.aboutwelcome.enabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
};

const profile = mkdtempSync(join(tmpdir(), "heddle-browser-"));
const preferences = Object.entries(FIREFOX_PREFERENCES).map(([name, value]) => `user_pref("${name}", ${value});\n`);
writeFileSync(join(profile, "user.js"), preferences.join(""));
const { promise: ended, resolve, reject } = Promise.withResolvers<Reports>();
await using server = await serveIsolated((text) => {
  const { begun, reports, thrown } = JSON.parse(text) as Said;
  if (begun !== undefined) {
    process.stderr.write(`${begun}\n`);
  } else if (reports === undefined) {
    reject(new Error(thrown));
  } else {
    resolve(reports);
  }
});
const words = encodeURIComponent(JSON.stringify(wordsOf(wantedIn(process.argv))));
const [program = "", ...flags] = BROWSERS[process.argv.includes("firefox") ? "firefox" : "chromium"](profile);
const browser = spawn(program, [...flags, `${server.origin}/test/engines/page/index.html?${words}`], {
  stdio: ["ignore", "ignore", "pipe"],
});
let errors = "";
browser.stderr.on("data", (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-2000)));
browser.on("error", reject);
browser.on("exit", (code) => reject(new Error(`${program} ended with ${code}: ${errors}`)));
process.on("SIGTERM", () => reject(new Error("Stopped")));
try {
  process.stdout.write(REPORT.begin + JSON.stringify(await ended) + REPORT.end);
} finally {
  const gone = new Promise((done) => browser.once("close", done));
  if (browser.kill("SIGKILL")) {
    await gone;
  }
  rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
}
