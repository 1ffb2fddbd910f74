/**
 * A real browser for tests: builds a page from one module with Vite as production does, serves it on loopback, opens it in
 * headless Chromium. The module hangs functions on `globalThis`, tests call them with `page.evaluate`. Debian's Firefox is opened as
 * a person does it, and tests hear what its page posts.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
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
const FIREFOX = "/usr/bin/firefox-esr";
/** For its start, too. */
const FIREFOX_MS_MAX = 60_000;
const FIREFOX_PREFERENCES = {
  "media.peerconnection.ice.loopback": true,
  // A fresh profile opens pages of its own beside ours, and asks the network about them.
  "browser.aboutwelcome.enabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
};
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];

/** Opens the page whose only script is the module at `entry` (a file URL). */
export async function openBrowserPage(entry: URL): Promise<BrowserPage> {
  const { server, origin, close } = await servePage(entry);
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
      await close();
    },
  };
}

/**
 * Opens the page in Firefox with `question` behind its address' "#", and resolves to what it posts to /done. What it posts elsewhere is
 * answered by `answer`.
 */
export async function askFirefox(
  entry: URL,
  question: string,
  answer: (text: string) => Promise<string>,
): Promise<string> {
  const { promise: done, resolve, reject } = Promise.withResolvers<string>();
  const { origin, close } = await servePage(entry, async (path, body) => {
    if (path !== "/done") {
      return answer(body);
    }
    resolve(body);
    return "";
  });
  const profile = mkdtempSync(join(tmpdir(), "heddle-firefox-"));
  const preferences = Object.entries(FIREFOX_PREFERENCES).map(([name, value]) => `user_pref("${name}", ${value});\n`);
  writeFileSync(join(profile, "user.js"), preferences.join(""));
  const address = `${origin}/#${encodeURIComponent(question)}`;
  const firefox = spawn(FIREFOX, ["--headless", "--no-remote", "--profile", profile, address], { stdio: "ignore" });
  const gone = once(firefox, "close");
  firefox.once("exit", (code) => reject(new Error(`Firefox ended with ${code}`)));
  const timer = setTimeout(() => reject(new Error(`Firefox said nothing within ${FIREFOX_MS_MAX} ms`)), FIREFOX_MS_MAX);
  try {
    return await done;
  } finally {
    clearTimeout(timer);
    firefox.kill("SIGKILL");
    await gone;
    await close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

type Post = (path: string, body: string) => Promise<string>;

interface ServedPage {
  readonly server: Server;
  readonly origin: string;
  close(): Promise<void>;
}

async function servePage(entry: URL, post: Post = () => Promise.resolve("")): Promise<ServedPage> {
  const files = await bundle(fileURLToPath(entry));
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://page").pathname;
    if (request.method === "POST") {
      void text(request).then(async (body) => response.end(await post(path, body)));
      return;
    }
    const file = files.get(path);
    response.writeHead(file === undefined ? 404 : 200, {
      "content-type": path === "/" ? "text/html; charset=utf-8" : "text/javascript; charset=utf-8",
    });
    response.end(file);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    server,
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
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
