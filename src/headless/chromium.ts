/**
 * The headless contributor in Chromium: opens the relay's own page and presses the buttons that a person would press. Whoever
 * runs the command agrees to what the page asks. Needs a Chromium on this machine; none is downloaded.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium, type Locator, type Page } from "playwright-core";
import { HeddleError } from "../base/assert.ts";
import type { ContributeConfig } from "./config.ts";

const PLACES = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/opt/google/chrome/chrome",
];
const MACOS = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];
/** The browser's own background traffic has no business in a laboratory. */
const QUIET = [
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Devices of graphics drivers. Containers may have NVIDIA's alone. */
const GPUS = ["/dev/dri", "/dev/nvidia0"];

/**
 * Contributes until `stop` resolves. Throws HeddleError "no-engine" without a browser, "unreachable" without a relay, "device-lost" when the
 * page ends or gives up before.
 */
export async function contributeInChromium(
  config: ContributeConfig,
  stop: Promise<void>,
  print: (text: string) => void,
): Promise<void> {
  if (config.privateData !== null) {
    throw new HeddleError("bad-input", "Cannot read --private-data in Chromium: use --runtime node or deno");
  }
  if (config.run !== null || config.relayKey !== null) {
    throw new HeddleError(
      "bad-input",
      "Cannot hold Chromium's page to --run or --relay-key: use --runtime node or deno",
    );
  }
  const executablePath = process.env["CHROMIUM"] ?? [...PLACES, ...MACOS].find((path) => existsSync(path));
  if (executablePath === undefined) {
    throw new HeddleError(
      "no-engine",
      "Cannot find Chromium: install it (Debian: apt-get install chromium) or name it in CHROMIUM",
    );
  }
  const profile = join(config.dir, "profile");
  mkdirSync(profile, { recursive: true });
  const asRoot = process.getuid?.() === 0;
  const webgpu = config.engine === "webgpu" ? ["--enable-unsafe-webgpu", "--ignore-gpu-blocklist"] : [];
  const software = config.engine === "webgpu" && !mayHaveGpu() ? ["--use-webgpu-adapter=swiftshader"] : [];
  const context = await chromium
    .launchPersistentContext(profile, {
      executablePath,
      headless: true,
      // Signals are ours: who stops the page first asks it to leave.
      handleSIGINT: false,
      handleSIGTERM: false,
      handleSIGHUP: false,
      args: [...QUIET, ...(asRoot ? ["--no-sandbox"] : []), ...webgpu, ...software],
    })
    .catch((error: unknown) => {
      const why = String(error).split("\n")[0];
      throw new HeddleError("no-engine", `Cannot start Chromium "${executablePath}": ${why}`, { cause: error });
    });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    await openPage(page, config);
    if (config.peers) {
      await page.locator("#peers-input").check();
    }
    const begun = beginContributing(page);
    begun.catch(() => undefined); // where `stop` is first, the page is closed under it
    await Promise.race([begun, stop]);
    await follow(page, config, stop, print);
  } finally {
    await context.close().catch(() => undefined); // Chromium may have ended by itself
  }
}

/** Only Linux says by its files that there is none. */
function mayHaveGpu(): boolean {
  return process.platform !== "linux" || GPUS.some((path) => existsSync(path));
}

async function openPage(page: Page, config: ContributeConfig): Promise<void> {
  const options = new URLSearchParams({ engine: config.engine, duty: String(Math.round(config.duty * 100)) });
  try {
    await page.goto(`${config.relay}/?${options}`);
  } catch (error) {
    throw new HeddleError("unreachable", `Cannot open ${config.relay}: is the relay running?`, { cause: error });
  }
}

/**
 * What a person does: presses the main button, and agrees where that is asked, until the page has begun. Pressed as the page changes, a
 * button may do nothing, and a busy machine takes its time to ask: so what is to be pressed is looked up anew each time. Throws HeddleError
 * "device-lost" when the page ends before, "unreachable" with what it says when it does not begin.
 */
export async function beginContributing(page: Page): Promise<void> {
  const begun = page.locator(BEGUN);
  const isThere = (what: Locator): Promise<boolean> =>
    what.isVisible().catch((error: unknown) => {
      throw new HeddleError("device-lost", "The page in Chromium ended before it had begun", { cause: error });
    });
  const agree = page.getByRole("button", { name: "Agree and start" });
  const giveUpMs = Date.now() + PRESS_MS;
  let pressed = false;
  while (!(await isThere(begun))) {
    if (Date.now() > giveUpMs) {
      const words = `Cannot contribute on the relay's page. It says: ${await textOf(page, "#state")}`;
      throw new HeddleError("unreachable", words);
    }
    if (pressed && (await isThere(page.locator(GIVEN_UP)))) {
      return; // it began and failed while nobody looked: `follow` says so
    }
    const next = (await isThere(agree)) ? agree : page.locator(BEGINS);
    const clicked = await next.click({ timeout: 1_000 }).then(
      () => true,
      () => false,
    );
    pressed ||= clicked;
    await agree
      .or(begun)
      .first()
      .waitFor({ timeout: 1_000 })
      .catch(() => undefined);
  }
}

/** The main button while a press on it begins the work. */
const BEGINS = '#main:not([hidden])[data-act="contribute"]';
/** What there is to press once the page has begun. */
const BEGUN = '#other[data-act="stop"]:not([hidden])';
const PRESS_MS = 60_000;

/** Prints the page's state whenever its words change, until `stop` resolves or the page cannot go on by itself. */
async function follow(
  page: Page,
  config: ContributeConfig,
  stop: Promise<void>,
  print: (text: string) => void,
): Promise<void> {
  const ended = Promise.race([stop.then(() => true), lossOf(page)]);
  ended.catch(() => undefined); // looked at below
  const seen = new Set(await rowsOf(page)); // what the page remembers of earlier visits is not news
  let state = "";
  do {
    const words = await textOf(page, "#state");
    if (words !== state && words !== "") {
      state = words;
      print(config.json ? `${JSON.stringify({ event: "status", sentence: words })}\n` : `${words}\n`);
    }
    if (
      (await page
        .locator(GIVEN_UP)
        .count()
        .catch(() => 0)) > 0
    ) {
      throw new HeddleError("device-lost", `The page in Chromium has given up: ${words}`);
    }
    for (const text of await rowsOf(page)) {
      if (/^(Accepted|Refused)/.test(text) && !seen.has(text)) {
        seen.add(text);
        print(config.json ? `${JSON.stringify({ event: "verdict", sentence: text })}\n` : `${text}\n`);
      }
    }
  } while (!(await Promise.race([ended, wait(LOOK_MS)])));
}

/** What a page shows that waits for a person. */
const GIVEN_UP = '#panel[data-mood="trouble"] #main[data-act="retry"]';

/** Rejects when the page is gone. */
function lossOf(page: Page): Promise<never> {
  return new Promise((_resolve, reject) => {
    const lose = (how: string) => (): void => reject(new HeddleError("device-lost", `The page in Chromium ${how}`));
    page.once("crash", lose("has crashed"));
    page.once("close", lose("was closed, or Chromium has ended"));
  });
}

/** How often the page is looked at. */
const LOOK_MS = 500;

function wait(delayMs: number): Promise<false> {
  return new Promise((settle) => {
    setTimeout(() => settle(false), delayMs);
  });
}

/** Empty while the page is loading or gone. */
async function textOf(page: Page, selector: string): Promise<string> {
  return page
    .locator(selector)
    .innerText()
    .catch(() => "");
}

/** The page's list of contributions, one line each, without the words that change by the minute. */
async function rowsOf(page: Page): Promise<string[]> {
  const rows = await page
    .locator("heddle-contributions .rows > li")
    .allInnerTexts()
    .catch(() => []);
  return rows.map((row) =>
    row
      .replaceAll(/\s+/g, " ")
      .replace(/, (just now|[^,.]* ago)/, "")
      .trim(),
  );
}
