/** The page of `browser.test.ts`: dials from a real browser, in the page and from a worker, and keeps a device key. */
import { toHex } from "../base/bytes.ts";
import type { IceServer } from "../protocol/ice.ts";
import { recorder } from "./contract.ts";
import { loadDeviceKey, verifySignature } from "./device-key.ts";
import { ECHO_LIMITS, measureEcho, type Echo } from "./echo.fixture.ts";
import { serveRtc } from "./proxy.ts";
import { answerRtc, dialRtc } from "./rtc-browser.ts";
import { dialWebSocket } from "./ws-client.ts";

declare global {
  /** Hands an offer to the answering process. */
  var answerOffer: (offerSdp: string) => Promise<string>;
  var echoBySocket: (url: string) => Promise<Echo>;
  var echoByRtc: () => Promise<Echo>;
  /** With STUN and TURN servers. */
  var echoByTurn: (iceServers: readonly IceServer[]) => Promise<Echo>;
  var echoFromWorker: () => Promise<Echo>;
  var dialWithBadAnswer: () => Promise<string>;
  /** What a dialling end sends to the other. */
  var offerOf: (gathers: boolean) => Promise<string>;
  var useDeviceKey: () => Promise<{ publicKey: string; verified: boolean }>;
}

const exchange = (sdp: string): Promise<string> => globalThis.answerOffer(sdp);

globalThis.echoBySocket = (url) => measureEcho((attach) => dialWebSocket({ url, attach, ...ECHO_LIMITS }));

globalThis.echoByRtc = () => measureEcho((attach) => dialRtc({ exchange, attach, ...ECHO_LIMITS }));

globalThis.echoByTurn = (iceServers) =>
  measureEcho((attach) => dialRtc({ exchange, attach, iceServers, ...ECHO_LIMITS }));

globalThis.echoFromWorker = () => {
  const worker = new Worker(new URL("browser-worker.page.ts", import.meta.url), { type: "module" });
  const { port1, port2 } = new MessageChannel();
  serveRtc(port1, { dial: dialRtc, answer: answerRtc });
  worker.postMessage(port2, [port2]);
  return new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = ({ data }: MessageEvent<{ offer: string } | { echo: Echo }>) => {
      if ("offer" in data) {
        void exchange(data.offer).then((answer) => worker.postMessage(answer));
      } else {
        worker.terminate();
        resolve(data.echo);
      }
    };
  });
};

globalThis.dialWithBadAnswer = () =>
  dialRtc({ exchange: async () => "v=0", attach: recorder().attach }).then(() => "opened", String);

globalThis.offerOf = (gathers) =>
  new Promise((resolve) => {
    const take = (offer: string): Promise<string> => {
      resolve(offer);
      return Promise.reject(new Error("Nobody answers"));
    };
    dialRtc({ exchange: take, attach: recorder().attach, gathers }).catch(() => undefined);
  });

globalThis.useDeviceKey = async () => {
  const [key, again] = [await loadDeviceKey("test"), await loadDeviceKey("test")];
  const signature = await key.sign("session", Uint8Array.of(1));
  const verified = await verifySignature(again.publicKey, "session", Uint8Array.of(1), signature);
  return { publicKey: toHex(key.publicKey), verified };
};

// Opened with STUN and TURN servers behind the "#", by a program that cannot be asked.
if (location.hash !== "") {
  const post = async (path: string, body: string): Promise<string> => {
    const response = await fetch(path, { method: "POST", body });
    return response.text();
  };
  globalThis.answerOffer = (offer) => post("/answer", offer);
  const echo = globalThis.echoByTurn(JSON.parse(decodeURIComponent(location.hash.slice(1))) as IceServer[]);
  void echo.catch(String).then((came) => post("/done", JSON.stringify(came)));
}
