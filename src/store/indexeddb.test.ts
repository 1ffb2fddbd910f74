import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openBrowserPage, type BrowserPage } from "./browser.fixture.ts";
import { STORE_CASES } from "./contract.ts";
import { openIndexedDbStore } from "./indexeddb.ts";

let browser: BrowserPage;
beforeAll(async () => {
  browser = await openBrowserPage(new URL("indexeddb.page.ts", import.meta.url));
});
afterAll(() => browser.close());

describe("openIndexedDbStore() keeps the contract in Chromium", () => {
  test.each(STORE_CASES)("$name", ({ name }) => browser.page.evaluate((one) => globalThis.runStoreCase(one), name));
});

test("openIndexedDbStore() says when there is no IndexedDB", async () => {
  await expect(openIndexedDbStore("here")).rejects.toMatchObject({ code: "store" });
});
