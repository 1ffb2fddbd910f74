/** Headless Chromium for the end-to-end tests: quiet, without the network, closed by the test that opened it. */
import { chromium, type Browser, type Page } from "playwright-core";

export const QUIET = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
export const SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** Rejects with a sentence when Chromium is missing; with `gpu` pages have WebGPU on SwiftShader. */
export function openBrowser({ gpu = false } = {}): Promise<Browser> {
  return chromium.launch({ executablePath: "/usr/bin/chromium", args: [...QUIET, ...(gpu ? SOFTWARE_GPU : [])] });
}

/** Opens a page and collects what goes wrong in it. */
export async function openPage(
  browser: Browser,
  url: string,
): Promise<{ readonly page: Page; readonly faults: readonly string[] }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) {
      faults.push(message.text());
    }
  });
  await page.goto(url);
  return { page, faults };
}

/** The rows of "This device", newest first, each as one line of text. */
export async function rowsOf(page: Page): Promise<string[]> {
  const rows = await page.locator("heddle-contributions .rows > li").allInnerTexts();
  return rows.map((row) => row.replaceAll(/\s+/g, " ").trim());
}

/** How many contributions "This device" lists, with those that it shows only when it is asked for all. */
export async function listedOn(page: Page): Promise<number> {
  return page
    .locator("heddle-contributions")
    .evaluate((list) =>
      Number(/Show all (\d+)/.exec(list.textContent)?.[1] ?? list.querySelectorAll(".rows > li").length),
    );
}

/** How many contributions the page says were accepted since its start; of the rows it shows the newest few. */
export async function acceptedOn(page: Page): Promise<number> {
  const facts = await page.locator("#device-facts").innerText();
  return Number(/(\d+) accepted/.exec(facts)?.[1] ?? 0);
}

export function acceptedIn(rows: readonly string[]): number {
  return rows.filter((row) => row.startsWith("Accepted")).length;
}
