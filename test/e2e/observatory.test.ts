/**
 * The observatory of a relay that has made some versions and is paused: going back to a round by keys and by address, verifying
 * the run in the browser, what it says while the relay is away, and verifying it again when one bit of an update that the relay
 * serves was flipped.
 */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Digest } from "../../src/base/bytes.ts";
import { createLedgerFetcher } from "../../src/net/ledger.ts";
import { decodeEntry } from "../../src/protocol/chain.ts";
import { DATABASE } from "../../src/store/locked.ts";
import { openBrowser, openPage } from "./browser.ts";
import { adminOf, isVersion, startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

const folder = temporaryFolder();
let relay: RunningRelay;
let browser: Browser;
let page: Page;
let faults: readonly string[];

beforeAll(async () => {
  [relay, browser] = await Promise.all([startRelay({ dir: folder.path }), openBrowser()]);
  await relay.waitFor(isVersion(3));
  await adminOf(folder.path)("pause");
});
afterAll(async () => {
  await browser.close();
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

async function phase(): Promise<string> {
  const run = (await (await fetch(`${relay.origin}/api/run`)).json()) as { readonly phase: string };
  return run.phase;
}

/** On a machine with other work. */
const SOON = { timeout: 15_000 };

interface Update {
  readonly entry: number;
  readonly version: number;
  readonly digest: Digest;
}

/** The newest update in the ledger. */
async function lastUpdate(): Promise<Update> {
  const { entries } = await createLedgerFetcher(relay.origin)(0);
  const found = entries.map(decodeEntry).flatMap((read): Update[] => {
    const { event, sequence: entry } = read.ok ? read.value : { event: null, sequence: 0 };
    return event?.type === "merged" && event.head.update !== null
      ? [{ entry, version: event.head.version, digest: event.head.update.digest }]
      : [];
  });
  return found.at(-1) as Update;
}

/** Of a small blob in the folder of a relay that does not run. */
function flipLastBit(digest: Digest): void {
  const database = new DatabaseSync(join(folder.path, "relay", DATABASE));
  const row = database.prepare("SELECT bytes FROM blobs WHERE digest = ?").get(digest);
  const bytes = row?.["bytes"] as Uint8Array<ArrayBuffer>;
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  database.prepare("UPDATE blobs SET bytes = ? WHERE digest = ?").run(bytes, digest);
  database.close();
}

/** Verifies, and returns what the page says in the end, and of each subject. */
async function verify(): Promise<{ readonly state: string; readonly rows: readonly string[] }> {
  // Stop is there while it verifies, which may be over before anybody has looked.
  await page.locator("#stop").evaluate((stop) => {
    stop.removeAttribute("data-shown");
    const note = (): void => void (stop.hasAttribute("hidden") || stop.setAttribute("data-shown", ""));
    new MutationObserver(note).observe(stop, { attributeFilter: ["hidden"] });
  });
  await page.locator("#verify").click();
  await page.locator("#stop[data-shown]").waitFor({ state: "attached" });
  await page.locator("#verify").waitFor({ state: "visible", timeout: 30_000 });
  const rows = await page.locator("#findings > li").allInnerTexts();
  return {
    state: await page.locator("#state").innerText(),
    rows: rows.map((row) => row.replaceAll(/\s+/g, " ").trim()),
  };
}

describe("the observatory", () => {
  test("shows the run as it was at any round, and finds that it agrees", async () => {
    await expect.poll(phase, { timeout: 20_000 }).toBe("paused"); // the round under way ends first
    const { version } = await lastUpdate();
    ({ page, faults } = await openPage(browser, `${relay.origin}/observatory.html`));
    const words = page.locator(".scrub-words");
    const facts = page.locator("#round-facts");
    await expect.poll(() => words.innerText(), SOON).toContain("Now: round");
    await expect.poll(() => facts.innerText(), SOON).toMatch(new RegExp(`^Version\\s+${version}\\s`));
    await expect.poll(() => page.locator("#moment-list").innerText(), SOON).toContain("Paused");

    await page.getByRole("slider", { name: "Round" }).focus();
    await page.keyboard.press("Home");
    await expect.poll(() => words.innerText(), SOON).toContain("The beginning of");
    await page.keyboard.press("ArrowRight");
    await expect.poll(() => words.innerText(), SOON).toContain("Round 1 of");
    await expect.poll(() => facts.innerText(), SOON).toMatch(/^Version\s+1\s/);
    expect(await page.locator("#moment-list").innerText()).not.toContain("Paused");
    await expect
      .poll(() => page.locator("#contributions").innerText())
      .toMatch(/Accepted\s+Device [0-9a-f]{8}, headless client/);
    await expect.poll(() => page.url(), SOON).toContain("?round=1");
    await page.reload();
    await expect.poll(() => words.innerText(), SOON).toContain("Round 1 of");
    await page.getByRole("button", { name: "Back to now" }).click();
    await expect.poll(() => words.innerText(), SOON).toContain("Now: round");

    const first = await verify();
    expect(first.state).toContain("All that can be checked agrees");
    const [chain, signatures, contributors] = first.rows;
    expect([chain, signatures, contributors].every((row) => row?.startsWith("Agrees "))).toBe(true);
    expect(first.rows.find((row) => row.includes(" Merges "))).toMatch(/^Agrees .*done again here from/);
    expect(faults).toEqual([]);
  });

  test("that opens while the relay is away says so until it is back, and verifies nothing before it knows the run", async () => {
    const trouble = page.locator("#broken");
    const button = page.locator("#verify");
    await page.route("**/api/**", (route) => route.abort());
    await page.reload();
    await expect.poll(() => trouble.innerText(), SOON).toBe("Cannot read the ledger: the relay does not answer");
    expect(await button.isDisabled()).toBe(true);
    await page.unroute("**/api/**");
    await expect.poll(() => page.locator(".scrub-words").innerText(), SOON).toContain("Now: round");
    expect(await trouble.isVisible()).toBe(false);
    expect(await button.isEnabled()).toBe(true);
  });

  test("says which round it could not read, reads it when the relay is back, and names an update with one bit flipped", async () => {
    const { entry, version, digest } = await lastUpdate();
    const title = page.locator("#round-title");
    const rows = page.locator("#contributions");
    await expect.poll(() => rows.innerText(), SOON).toMatch(/^(Accepted|Refused|Not judged)/);
    await relay.stop("SIGTERM");
    flipLastBit(digest);
    await page.getByRole("slider", { name: "Round" }).focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowRight");
    await expect.poll(() => rows.innerText(), SOON).toMatch(/^Cannot read the ledger: the relay does not answer/);
    expect(await title.innerText()).toBe("Contributions to round 1");
    relay = await startRelay({ dir: folder.path, port: Number(new URL(relay.origin).port) });
    await expect.poll(() => rows.innerText(), SOON).toMatch(/^Accepted/);
    expect(await title.innerText()).toBe("Contributions to round 1");

    const { state, rows: found } = await verify();
    expect(state).toBe("One thing is not as the ledger says.");
    const row = found.find((each) => each.startsWith("Differs "));
    expect(row).toContain(`Entry ${entry} names ${digest} as the update of version ${version}`);
    expect(found.find((each) => each.includes(" This browser’s memory "))).toMatch(/^Agrees .*still the same/);
    expect(faults).toEqual([]);
  });
});
