import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { beginContributing } from "../../src/headless/chromium.ts";
import { openBrowser } from "./browser.ts";

let browser: Browser;
beforeAll(async () => {
  browser = await openBrowser();
});
afterAll(() => browser.close());

/** A page's two buttons and its question, for which it takes 4 s, where the first press does nothing. */
const SLOW = `
  <div id="panel"><button id="main" data-act="contribute">Contribute</button><button id="other" hidden>Stop</button></div>
  <script>
    let presses = 0;
    main.onclick = () => {
      presses += 1;
      if (presses !== 2) return;
      setTimeout(() => {
        const agree = document.body.appendChild(document.createElement("button"));
        agree.textContent = "Agree and start";
        agree.onclick = () => {
          agree.remove();
          main.dataset.act = "pause";
          other.dataset.act = "stop";
          other.hidden = false;
        };
      }, 4_000);
    };
  </script>`;

test("beginContributing() presses until the page has begun, and not what comes then", async () => {
  const page = await browser.newPage();
  await page.setContent(SLOW);
  await beginContributing(page);
  expect(await page.locator("#main").getAttribute("data-act")).toBe("pause");
});

test("beginContributing() leaves a page that has begun and failed meanwhile", async () => {
  const page = await browser.newPage();
  await page.setContent(`
    <div id="panel"><button id="main" data-act="contribute">Contribute</button></div>
    <script>main.onclick = () => { panel.dataset.mood = "trouble"; main.dataset.act = "retry"; };</script>`);
  await beginContributing(page);
  expect(await page.locator("#main").getAttribute("data-act")).toBe("retry");
});

test("beginContributing() says when the page is closed under it", async () => {
  const page = await browser.newPage();
  await page.setContent("Nothing to press");
  setTimeout(() => void page.close(), 500);
  await expect(beginContributing(page)).rejects.toThrow("The page in Chromium ended");
});
