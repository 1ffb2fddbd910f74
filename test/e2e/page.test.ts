/**
 * The built page in a real browser against a real relay: consent, training in a worker, verdicts, power, pause, resume, stop,
 * reload, text from the model, the installed shell offline, and a relay that is killed and comes back.
 */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { beginContributing } from "../../src/headless/chromium.ts";
import { acceptedIn, acceptedOn, listedOn, openBrowser, openPage, rowsOf } from "./browser.ts";
import { QUICK_CHARTER, startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

const folder = temporaryFolder();
/** Steps are not capped, so that the slider shows in how many are done. */
const charter = { ...QUICK_CHARTER, round: { ...QUICK_CHARTER.round, stepsMax: 5_000 } };
let relay: RunningRelay;
let browser: Browser;

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path, charter, args: ["--no-contributor"] });
  browser = await openBrowser();
});
afterAll(async () => {
  await browser.close();
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

test("beginContributing() presses again what did nothing while the page changed", async () => {
  const page = await browser.newPage();
  await page.setContent(
    `<button id="main" data-act="contribute">Contribute</button><button hidden id="yes">Agree and start</button>
     <button hidden id="other" data-act="stop">Stop</button>
     <script>
       let presses = 0;
       const once = (from, to) => from.addEventListener("click", () => { if (++presses % 2 === 0) [from.hidden, to.hidden] = [true, false]; });
       once(main, yes);
       once(yes, other);
     </script>`,
  );
  await beginContributing(page);
  expect(await page.evaluate("presses")).toBe(4);
  await page.close();
});

describe("the contributor page", () => {
  test("starts nothing before the agreement, then trains in a worker over WebRTC until a contribution is accepted", async () => {
    const { page, faults } = await openPage(browser, relay.origin);
    await expect.poll(() => page.locator("#main").innerText()).toBe("Contribute");
    expect(page.workers().length).toBe(0);
    await page.locator("#main").click();
    await page.getByRole("button", { name: "No, thank you" }).click();
    expect(page.workers().length).toBe(0);
    await beginContributing(page);
    await expect.poll(async () => acceptedIn(await rowsOf(page)), { timeout: 60_000 }).toBeGreaterThan(0);
    expect(page.workers().length).toBeGreaterThan(0);
    await expect.poll(() => page.locator("#device-facts").innerText()).toContain("WebRTC");
    await expect.poll(() => page.locator("heddle-chart").innerText()).toContain("the newest");
    // The area under the curve is filled, faintly; lines are not. Asked in one turn of the page: a chart is drawn anew at each version.
    const fills = page
      .locator("heddle-chart")
      .evaluate((chart) =>
        Array.from(
          chart.querySelectorAll("path"),
          (path) => `${path.getAttribute("class")}: ${getComputedStyle(path).fill === "none" ? "line" : "filled"}`,
        ),
      );
    expect(await fills).toEqual(["chart-later: line", "chart-area: filled", "chart-line: line"]);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("the power slider changes the load: at 100 % a round has more than twice the steps of one at 10 %", async () => {
    // The waits between rounds count as rests: only in a longer round is the share what it is when a device trains all the time.
    using calm = temporaryFolder();
    const round = { ...charter.round, trainMs: 4_000 };
    const longer = await startRelay({ dir: calm.path, charter: { ...charter, round }, args: ["--no-contributor"] });
    const { page } = await openPage(browser, longer.origin);
    const newestSteps = async (): Promise<number> => {
      const [newest = ""] = await rowsOf(page);
      return Number(/([\d,]+) steps?/.exec(newest)?.[1]?.replaceAll(",", ""));
    };
    await page.locator("#power-input").fill("10");
    await beginContributing(page);
    await expect.poll(async () => (await rowsOf(page)).length, { timeout: 60_000 }).toBeGreaterThanOrEqual(2);
    const slow = await newestSteps();
    expect(slow).toBeGreaterThan(0);
    await page.locator("#power-input").fill("100");
    // Not every round: what else runs on this machine may have the processor for one.
    await expect.poll(newestSteps, { timeout: 60_000 }).toBeGreaterThan(2 * slow);
    await page.context().close();
    await longer.stop("SIGKILL");
  });

  test("pause, resume, stop, reload, and taking back the agreement in another tab do what they say", async () => {
    const { page } = await openPage(browser, relay.origin);
    await beginContributing(page);
    await expect.poll(async () => acceptedIn(await rowsOf(page)), { timeout: 60_000 }).toBeGreaterThan(0);
    await page.locator("#main").click();
    await expect.poll(() => page.locator("#main").innerText()).toBe("Resume");
    const paused = await listedOn(page);
    await page.waitForTimeout(4_000); // two rounds' time, in which nothing may be made
    expect(await listedOn(page)).toBeLessThanOrEqual(paused + 1);
    await page.locator("#main").click();
    await expect.poll(() => listedOn(page), { timeout: 60_000 }).toBeGreaterThan(paused + 1);
    await page.reload();
    await expect.poll(() => page.locator("#main").innerText()).toBe("Continue contributing");
    expect(page.workers().length).toBe(0);
    await page.locator("#main").click();
    await expect.poll(() => page.locator("#main").innerText(), { timeout: 30_000 }).toBe("Pause");
    await page.locator("#other").dblclick(); // the second click must not press what takes the button's place
    await expect.poll(() => page.locator("#main").innerText()).toBe("Contribute");
    expect(await page.evaluate(() => localStorage.getItem("heddle.agreement"))).not.toBeNull();
    await page.locator("#main").dblclick();
    await expect.poll(() => page.locator("#main").innerText(), { timeout: 30_000 }).toBe("Pause");
    await expect.poll(() => page.locator("#status").textContent()).toBe("This device is contributing.");
    await page.locator("#other").focus();
    await page.keyboard.down("Enter");
    await expect.poll(() => page.evaluate(() => document.activeElement?.id)).toBe("main");
    await page.keyboard.down("Enter"); // is held, and would begin again
    await page.keyboard.up("Enter");
    expect(await page.locator("#main").innerText()).toBe("Contribute");
    await page.locator("#main").click();
    await expect.poll(() => page.locator("#main").innerText(), { timeout: 30_000 }).toBe("Pause");
    const beside = await page.context().newPage();
    await beside.goto(relay.origin);
    await beside.getByRole("button", { name: "Take back my agreement" }).click();
    await expect.poll(() => page.locator("#main").innerText()).toBe("Contribute");
    expect(await page.locator("#hint").innerText()).toContain("press the button and agree");
    await page.context().close();
  });

  test("continues a text from the shared base without contributing", async () => {
    const { page, faults } = await openPage(browser, relay.origin);
    await page.locator("#try-prompt").fill("The whale");
    await page.getByRole("button", { name: "Continue the text" }).click();
    await expect
      .poll(async () => (await page.locator(".try-text").innerText()).length, { timeout: 60_000 })
      .toBeGreaterThan(60);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("is installable, and its shell opens offline", async () => {
    const { page } = await openPage(browser, relay.origin);
    const session = await page.context().newCDPSession(page);
    const manifest = await session.send("Page.getAppManifest");
    expect(manifest.errors).toEqual([]);
    expect(JSON.parse(manifest.data ?? "{}")).toMatchObject({ display: "standalone" });
    await page.evaluate(async () => {
      await navigator.serviceWorker.ready;
    });
    const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
    // A private window cannot install; nothing else may be in the way.
    expect(installabilityErrors.map(({ errorId }) => errorId).filter((id) => id !== "in-incognito")).toEqual([]);
    // With a second session open the browser goes on telling the page that it is online.
    await session.detach();
    await page.context().setOffline(true);
    await page.reload();
    await expect.poll(() => page.locator("#state").innerText()).toBe("This device is offline.");
    await expect(page.locator("h1").innerText()).resolves.toContain("Lend a thread");
    await page.context().close();
  });

  test("goes on by itself after the relay was killed in the middle of a round", async () => {
    const { page } = await openPage(browser, relay.origin);
    await beginContributing(page);
    await expect.poll(async () => acceptedIn(await rowsOf(page)), { timeout: 60_000 }).toBeGreaterThan(0);
    await relay.stop("SIGKILL");
    const before = await acceptedOn(page); // the list shows the newest few only
    await page.waitForTimeout(1_000); // long enough for the page to notice
    const port = Number(new URL(relay.origin).port);
    relay = await startRelay({ dir: folder.path, charter, args: ["--no-contributor"], port });
    await expect.poll(() => acceptedOn(page), { timeout: 90_000 }).toBeGreaterThan(before);
    await page.context().close();
  });
});
