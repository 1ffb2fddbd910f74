/** The widget on a page of another origin: sandboxed, silent before the agreement, contributing after it, stopped by one click. */
import { createServer } from "node:http";
import type { Browser, FrameLocator } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { listen, shut } from "../../src/relay/http.ts";
import { openBrowser, openPage } from "./browser.ts";
import { startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

const folder = temporaryFolder();
let relay: RunningRelay;
let browser: Browser;

beforeAll(async () => {
  const free = createServer();
  const demoPort = await listen(free, 0, "127.0.0.1");
  await shut(free);
  relay = await startRelay({ dir: folder.path, args: ["--no-contributor", "--demo-port", String(demoPort)] });
  browser = await openBrowser();
});
afterAll(async () => {
  await browser.close();
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

test("the widget contributes from another origin after a click inside its own frame, and stops by one", async () => {
  expect(new URL(relay.demoOrigin).origin).not.toBe(new URL(relay.origin).origin);
  const { page, faults } = await openPage(browser, relay.demoOrigin);
  const element = page.locator("heddle-widget iframe");
  await element.scrollIntoViewIfNeeded();
  expect(await element.getAttribute("src")).toContain(relay.origin);
  const sandbox = (await element.getAttribute("sandbox")) ?? "";
  expect(sandbox).toContain("allow-scripts");
  expect(sandbox).not.toContain("allow-top-navigation");
  const frame = page.frameLocator("heddle-widget iframe");
  await frame.locator("#lend").waitFor();
  expect(page.workers().length).toBe(0);

  await page.waitForTimeout(1_000); // a click in the first half second of being visible does not count
  const pressTooEarly = async (): Promise<boolean> => {
    await frame.locator("#lend").click();
    await frame.locator("#yes").click(); // neither starts nor opens anything
    const ignored = await frame.locator("#terms").isVisible();
    if (!ignored) {
      await frame.locator("#stop").click(); // between the two this machine was busy for half a second
    }
    return ignored;
  };
  await expect.poll(pressTooEarly, { timeout: 60_000 }).toBe(true);
  await expect.poll(() => page.workers().length).toBe(0);
  await page.waitForTimeout(1_000);
  expect(page.workers().length).toBe(0);
  expect(page.context().pages().length).toBe(1);
  await agree(frame);
  await expect
    .poll(async () => (await versions(relay.origin)).at(-1)?.accepted ?? 0, { timeout: 90_000 })
    .toBeGreaterThan(0);
  await expect.poll(() => page.locator("#said").innerText()).not.toBe("nothing yet");
  expect(await frame.getByRole("status").textContent()).toBe("This device is contributing.");

  await frame.locator("#stop").click();
  await frame.locator("#lend").waitFor();
  await expect.poll(async () => (await run(relay.origin)).connected, { timeout: 30_000 }).toBe(0);
  expect(faults).toEqual([]);
});

test("a host page cannot start the widget by messages", async () => {
  const { page } = await openPage(browser, relay.demoOrigin);
  const frame = page.frameLocator("heddle-widget iframe");
  await frame.locator("#lend").waitFor();
  await page.evaluate(() => {
    const target =
      document.querySelector("heddle-widget")?.querySelector("iframe") ??
      document.querySelector("heddle-widget")?.shadowRoot?.querySelector("iframe");
    for (const message of [
      { type: "start" },
      { type: "consent", agreed: true },
      { type: "duty", duty: 1 },
      "start",
      null,
      { type: "x".repeat(100_000) },
    ]) {
      target?.contentWindow?.postMessage(message, "*");
    }
  });
  await page.waitForTimeout(1_000); // for something wrong to happen
  expect(page.workers().length).toBe(0);
  expect(await frame.locator("#lend").isVisible()).toBe(true);
});

test("a site that is cross-origin isolated can embed the widget, and hide it", async () => {
  const site = createServer((_request, response) => {
    response.setHeader("content-type", "text/html");
    response.setHeader("cross-origin-opener-policy", "same-origin");
    response.setHeader("cross-origin-embedder-policy", "require-corp");
    response.end(`<heddle-widget></heddle-widget><script src="${relay.origin}/heddle-widget.js"></script>`);
  });
  const port = await listen(site, 0, "127.0.0.1");
  const { page } = await openPage(browser, `http://127.0.0.1:${port}`);
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  await page.frameLocator("heddle-widget iframe").locator("#lend").waitFor();
  const widget = page.locator("heddle-widget");
  expect((await widget.boundingBox())?.width).toBe(400);
  await widget.evaluate((element) => element.toggleAttribute("hidden"));
  expect(await widget.isVisible()).toBe(false);
  await page.context().close();
  await shut(site);
});

test("a stop while the program loads is the last word, work ends with the agreement to it, and another run is asked about anew", async () => {
  const { page, faults } = await openPage(browser, relay.demoOrigin);
  const frame = page.frameLocator("heddle-widget iframe");
  const load = Promise.withResolvers<undefined>();
  await page.context().route(/assets\/bridge-/, async (route) => {
    await load.promise;
    await route.continue();
  });
  await page.locator("heddle-widget iframe").scrollIntoViewIfNeeded();
  await frame.locator("#lend").waitFor();
  await page.waitForTimeout(1_000);
  await frame.locator("#lend").click();
  await page.waitForTimeout(1_000);
  await agree(frame);
  await page.waitForTimeout(1_000); // the box takes its new height, and what is clicked moves
  await frame.locator("#stop").click();
  await frame.locator("#lend").waitFor();
  load.resolve(undefined);
  await page.waitForTimeout(1_000); // for something wrong to happen
  expect(page.workers().length).toBe(0);
  await frame.locator("#lend").click();
  await frame.locator("#terms").waitFor(); // Stop has taken the agreement back
  await page.waitForTimeout(1_000);
  await agree(frame);
  await frame.locator("#pause").waitFor(); // it works
  const key = "heddle.widget.agreement";
  const agreement = await frame.locator("#frame").evaluate((_, name) => localStorage.getItem(name) ?? "", key);
  const keep = (text: string): Promise<void> =>
    frame.locator("#frame").evaluate((_, [name, value]) => localStorage.setItem(name, value), [key, text] as const);
  await keep(agreement.replace(/("endsMs":)\d+/, `$1${Date.now()}`));
  await expect.poll(() => frame.locator("#state").innerText()).toMatch(/day is over/);
  await keep(agreement);

  const other = "0".repeat(64);
  const late = Promise.withResolvers<undefined>();
  let looks = 0;
  await page.context().route("**/api/run?*", async (route) => {
    looks += 1;
    if (looks === 1) {
      await late.promise;
    }
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...((await response.json()) as object), run: other } });
  });
  await page.reload();
  await page.locator("heddle-widget iframe").scrollIntoViewIfNeeded();
  await frame.locator("#lend").waitFor();
  await page.waitForTimeout(1_000);
  await frame.locator("#lend").click();
  await frame.locator("#terms").waitFor(); // though the agreement of before is some seconds old
  expect(page.workers().length).toBe(0);
  late.resolve(undefined); // the first look-up, after the one that was asked for by the click
  await page.waitForTimeout(1_000);
  await agree(frame);
  await expect.poll(() => frame.locator("#state").innerText(), { timeout: 30_000 }).toMatch(/another run/);
  expect(page.workers().length).toBe(0);
  expect(faults).toEqual([]);
});

/** Presses "Agree and start" until it counts: a machine that is slow to draw shows it later than it is there. */
async function agree(frame: FrameLocator): Promise<void> {
  const yes = frame.locator("#yes");
  const press = async (): Promise<boolean> => {
    await yes.click();
    return yes.isHidden();
  };
  await expect.poll(press, { interval: 700, timeout: 30_000 }).toBe(true);
}

async function run(origin: string): Promise<{ connected: number; versions: { accepted: number }[] }> {
  return (await (await fetch(`${origin}/api/run`)).json()) as { connected: number; versions: { accepted: number }[] };
}

async function versions(origin: string): Promise<{ accepted: number }[]> {
  return (await run(origin)).versions;
}
