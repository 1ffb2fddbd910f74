/**
 * The benchmark page as the relay serves it, on a software GPU and without one: the smallest course, and a report that
 * programs can read.
 */
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ATTENTION_RUNGS } from "../../src/gpu/attention.ts";
import { MATMUL_RUNGS } from "../../src/gpu/matmul.ts";
import type { Report } from "../../src/ui/report.ts";
import { openBrowser, openPage } from "./browser.ts";
import { startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

const folder = temporaryFolder();
let relay: RunningRelay;

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path, args: ["--no-contributor"] });
});
afterAll(async () => {
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

describe("bench.html", () => {
  test("checks and measures every rung on a GPU, beside WASM, and gives a report", async () => {
    const browser = await openBrowser({ gpu: true });
    const { page, faults } = await openSmallest(browser);
    await page.locator("#start").click();
    const report = await finished(page);
    expect(faults).toEqual([]);
    expect(report).toMatchObject({ format: "heddle-bench-1", complete: true, faults: [] });
    expect(report.gpu?.software).toBe(true);
    expect(report.peak?.unrolledGflops).toBeGreaterThan(0);
    const of = (work: string): string[] => report.readings.flatMap((one) => (one.work === work ? [one.rung] : []));
    expect(of("matmul 64×64×64").toSorted()).toEqual([...MATMUL_RUNGS, "wasm"].toSorted());
    expect(of("attention T 64").toSorted()).toEqual([...ATTENTION_RUNGS, "wasm"].toSorted());
    expect(report.readings.filter(({ type }) => type === "wrong" || type === "failed")).toEqual([]);
    expect(report.readings.filter(({ type }) => type === "measured").length).toBeGreaterThan(5);
    await page.locator("#gpu-name").fill("A test's GPU");
    expect(await page.locator("#report-text").innerText()).toMatch(/### Heddle .* on A test's GPU, google swiftshader/);
    await browser.close();
  });

  test("runs WASM alone where there is no WebGPU, says so, and stops when asked to", async () => {
    const browser = await openBrowser();
    const { page } = await openSmallest(browser);
    await page.locator("#start").click();
    await expect.poll(() => page.locator("#device-lead").innerText()).toContain("the WASM engine is measured alone");
    const report = await finished(page);
    expect(report.gpu).toBeNull();
    expect([...new Set(report.readings.map(({ rung }) => rung))]).toEqual(["wasm"]);
    await page.locator("#length").selectOption("full");
    await page.locator("#start").click();
    await page.locator("#stop").click();
    expect(await finished(page)).toMatchObject({ complete: false });
    await browser.close();
  });
});

async function openSmallest(browser: Browser): Promise<{ readonly page: Page; readonly faults: readonly string[] }> {
  const opened = await openPage(browser, `${relay.origin}/bench.html?length=smallest`);
  await opened.page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  return opened;
}

/** Waits for the end of the course, and reads the report as a visitor would copy it. */
async function finished(page: Page): Promise<Report> {
  await page.locator("#start").waitFor({ state: "visible", timeout: 170_000 });
  await page.locator("#copied").evaluate((copied) => copied.replaceChildren()); // the word of the time before
  await page.locator("#copy-json").click();
  await expect.poll(() => page.locator("#copied").innerText()).toBe("Copied.");
  return JSON.parse(await page.evaluate(() => navigator.clipboard.readText())) as Report;
}
