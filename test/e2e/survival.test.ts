/**
 * A GPU that goes away under a contributing page: the browser's GPU process is made to crash in the middle of training, and the
 * page goes on by itself, on a new device or on the processor, with what it had.
 */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { beginContributing } from "../../src/headless/chromium.ts";
import { acceptedOn, openBrowser, openPage } from "./browser.ts";
import { startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

const folder = temporaryFolder();
let relay: RunningRelay;
let browser: Browser;

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path, args: ["--no-contributor"] });
  browser = await openBrowser({ gpu: true });
});
afterAll(async () => {
  await browser.close();
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

test("a page goes on contributing after the browser's GPU process has crashed", async () => {
  const { page, faults } = await openPage(browser, `${relay.origin}/?engine=webgpu`);
  await beginContributing(page);
  const facts = page.locator("#device-facts");
  await expect
    .poll(() => facts.innerText(), { timeout: 60_000 })
    .toContain("processor trains while the GPU gets ready");
  await expect.poll(() => facts.innerText(), { timeout: 120_000 }).toContain("GPU, by WebGPU");
  // One of the processor's may still be judged; the next is the GPU's.
  const moved = await acceptedOn(page);
  await expect.poll(() => acceptedOn(page), { timeout: 90_000 }).toBeGreaterThan(moved + 1);
  const before = await acceptedOn(page);
  const session = await browser.newBrowserCDPSession();
  const gpuProcesses = async (): Promise<number[]> => {
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    return processInfo.filter(({ type }) => type === "GPU").map(({ id }) => id);
  };
  const crashed = await gpuProcesses();
  await session.send("Browser.crashGpuProcess");
  await expect.poll(() => acceptedOn(page), { timeout: 90_000 }).toBeGreaterThan(before + 1);
  expect(await facts.innerText()).toMatch(/GPU, by WebGPU|Processor, by WebAssembly/);
  expect(crashed).toHaveLength(1);
  expect(await gpuProcesses()).not.toContain(crashed[0]);
  expect(faults).toEqual([]);
});
