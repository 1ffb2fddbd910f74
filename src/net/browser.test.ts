import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test, type TestContext } from "vitest";
import { openBrowserPage, type BrowserPage } from "../store/browser.fixture.ts";
import { ECHO_LIMITS, echoAttach, type Echo } from "./echo.fixture.ts";
import { createRtcAnswerer, type RtcAnswerer } from "./rtc-node.ts";
import { acceptWebSockets, type WebSocketAcceptor } from "./ws-server.ts";

let browser: BrowserPage;
let answerer: RtcAnswerer;
let server: Server;
let acceptor: WebSocketAcceptor;

beforeAll(async () => {
  browser = await openBrowserPage(new URL("browser.page.ts", import.meta.url));
  answerer = await createRtcAnswerer(ECHO_LIMITS);
  server = createServer();
  acceptor = acceptWebSockets({ server, attach: echoAttach, ...ECHO_LIMITS });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  await browser.page.exposeFunction("answerOffer", (offer: string) => answerer.answer(offer, echoAttach));
});
afterAll(async () => {
  await browser.close();
  await acceptor.close("The test is over");
  await answerer.close("The test is over");
  server.close();
});

async function expectEcho({ annotate }: TestContext, echo: Echo): Promise<void> {
  await annotate(`opened in ${echo.openMs} ms, 5 MB there and back at ${echo.mbPerSecond} MB/s`);
  expect(echo).toMatchObject({ same: true, smallFirst: true, reason: "As you wish" });
}

test("dialWebSocket() in Chromium brings 5 MB there and back", async (context) => {
  const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/link`;
  await expectEcho(context, await browser.page.evaluate((to) => globalThis.echoBySocket(to), url));
});

test("dialRtc() in Chromium, built as for production, brings 5 MB to node-datachannel and back", async (context) => {
  await expectEcho(context, await browser.page.evaluate(() => globalThis.echoByRtc()));
});

test("dialRtcFromWorker() in Chromium brings 5 MB there and back over the page's connection", async (context) => {
  await expectEcho(context, await browser.page.evaluate(() => globalThis.echoFromWorker()));
});

test("dialRtc() in Chromium rejects an answer that is none", async () => {
  expect(await browser.page.evaluate(() => globalThis.dialWithBadAnswer())).toMatch(/^HeddleError: Cannot dial/);
});

test("dialRtc() in Chromium sends this end's addresses with the offer only where it is to gather them", async () => {
  const offerOf = (gathers: boolean): Promise<string> =>
    browser.page.evaluate((does) => globalThis.offerOf(does), gathers);
  expect(await offerOf(true)).toMatch(/^a=candidate:/m);
  expect(await offerOf(false)).not.toMatch(/^a=candidate:/m);
});

test("loadDeviceKey() in Chromium keeps one key, also after the page is loaded again", async () => {
  const first = await browser.page.evaluate(() => globalThis.useDeviceKey());
  await browser.page.reload();
  const second = await browser.page.evaluate(() => globalThis.useDeviceKey());
  expect(first).toEqual({ publicKey: second.publicKey, verified: true });
});
