/**
 * Contributors that agreed to exchange checkpoints get the shared base from each other, over a WebRTC link of their own, and the
 * relay sends them nothing but the data: headless ones, and pages in a real browser, where it is a switch of its own.
 */
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { RunView } from "../../src/protocol/run-view.ts";
import { beginContributing } from "../../src/headless/chromium.ts";
import { openBrowser, openPage } from "./browser.ts";
import { readMetrics, type MetricsRead } from "./metrics.ts";
import { QUICK_CHARTER, startContributor, startRelay, temporaryFolder, type Running } from "./processes.ts";

/** Large enough for several parts, and one round that outlasts the test: everybody needs version 0. */
const CHARTER = {
  ...QUICK_CHARTER,
  model: { ...QUICK_CHARTER.model, channels: 64, hidden: 256, layers: 2 },
  round: { ...QUICK_CHARTER.round, trainMs: 120_000, stepsMax: 100_000 },
};
const folder = temporaryFolder();
const running: Running[] = [];
let relay: Awaited<ReturnType<typeof startRelay>>;

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path, charter: CHARTER, args: ["--no-contributor"] });
});
afterAll(async () => {
  await Promise.all(running.map((one) => one.stop("SIGKILL")));
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

/** Starts a contributor and waits until it trains. */
async function join(
  name: string,
  args: readonly string[],
): Promise<{ http: number; read: MetricsRead; joined: Running }> {
  const dir = `${folder.path}/relay`;
  const http = (read: MetricsRead): number => read("heddle_bytes_total", 'direction="down",lane="http"');
  const before = http(await readMetrics(dir));
  const joined = startContributor(relay.origin, `${folder.path}/${name}`, [
    "--engine",
    "wasm",
    "--threads",
    "1",
    ...args,
  ]);
  running.push(joined);
  await joined.waitFor(({ status }) => status === "training");
  const read = await readMetrics(dir);
  return { http: http(read) - before, read, joined };
}

test("a contributor gets the shared base from another where both agreed", async () => {
  const { parameters } = (await (await fetch(`${relay.origin}/api/run`)).json()) as RunView;
  const checkpoint = 4 * parameters;
  const first = await join("first", ["--peers"]);
  const data = first.http - checkpoint;
  // On a busy machine the seconds that a peer is given may pass; whoever comes next may have more luck.
  let second = await join("second", ["--peers"]);
  for (let more = 0; more < 3 && second.http > data; more += 1) {
    second = await join(`second-${more}`, ["--peers"]);
  }
  expect(second.http).toBe(data);
  expect(await second.joined.waitFor(({ event }) => event === "peers")).toMatchObject({ bytesFetched: checkpoint });
  expect(second.read("heddle_peer_bytes_total")).toBe(checkpoint);
  expect(second.read("heddle_meetings_total", 'outcome="fetched"')).toBe(1);
});

test("pages exchange the shared base while both have it ticked, and one that has not stays out of it", async () => {
  await Promise.all(running.splice(0).map((one) => one.stop("SIGKILL")));
  const dir = `${folder.path}/relay`;
  const exchanged = async (): Promise<number> => (await readMetrics(dir))("heddle_peer_bytes_total");
  /** Introductions, whatever came of them. */
  const met = async (): Promise<number> => {
    const read = await readMetrics(dir);
    const outcomes = ["fetched", "failed", "wrong", "declined"];
    return outcomes.reduce((sum, outcome) => sum + read("heddle_meetings_total", `outcome="${outcome}"`), 0);
  };
  const before = await exchanged();
  const browser = await openBrowser();
  try {
    const server = await enter(browser, { ticked: true });
    const metBefore = await met();
    await leave(await enter(browser, { ticked: false }));
    expect(await met()).toBe(metBefore);
    // Again, as above.
    for (let tries = 0; tries < 4 && (await exchanged()) === before; tries += 1) {
      await leave(await enter(browser, { ticked: true }));
    }
    const after = await exchanged();
    expect(after).toBeGreaterThan(before);
    await expect
      .poll(() => server.locator("#device-facts").innerText())
      .toMatch(/With other volunteers\s+[1-9][\d.]*\skB sent/);
    await server.locator("#peers-input").uncheck();
    const metAfter = await met();
    await leave(await enter(browser, { ticked: true }));
    expect([await met(), await exchanged()]).toEqual([metAfter, after]);
  } finally {
    await browser.close();
  }
});

async function leave(page: Page): Promise<void> {
  await page.context().close();
}

/** A page on which somebody begins to contribute, once it trains. */
async function enter(browser: Browser, { ticked }: { readonly ticked: boolean }): Promise<Page> {
  const { page } = await openPage(browser, relay.origin);
  if (ticked) {
    await page.locator("#peers-input").check();
  }
  await beginContributing(page);
  await expect.poll(() => page.locator("#state").innerText(), { timeout: 60_000 }).toMatch(/^Training/);
  return page;
}
