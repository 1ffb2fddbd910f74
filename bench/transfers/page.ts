/** The near end of `bench/transfer.ts` in a browser: opens a raw channel and a link, and runs the transfers it is told to. */
import { dialRtc } from "../../src/net/rtc-browser.ts";
import { linkEnd, RAW_LOW_WATER_BYTES, payloadOf, rawEnd, type Dial, type End } from "./ends.ts";

declare global {
  /** Has the far end answer an offer. */
  var askFar: (kind: "raw" | "memory" | "serve", offer: string) => Promise<string>;
  var openEnds: (bytes: number) => Promise<void>;
  /** Milliseconds that a transfer takes. */
  var transfer: (which: "raw" | "link", way: "send" | "receive") => Promise<number>;
  /** Bytes that the links have carried, both ways. */
  var carried: () => number;
}

const ends = new Map<string, End>();

globalThis.openEnds = async (bytes) => {
  const payload = payloadOf(bytes);
  ends.set("raw", await dialRaw(bytes));
  const dialTo =
    (kind: "memory" | "serve"): Dial =>
    (attach) =>
      dialRtc({ exchange: (offer) => globalThis.askFar(kind, offer), attach });
  const link = await linkEnd(payload, { up: dialTo("memory"), down: dialTo("serve") });
  ends.set("link", link);
  globalThis.carried = () => link.carried();
};

globalThis.transfer = async (which, way) => {
  const end = ends.get(which) as End;
  const tookMs = await end[way]();
  await end.rest();
  return tookMs;
};

async function dialRaw(bytes: number): Promise<End> {
  const peer = new RTCPeerConnection();
  const channel = peer.createDataChannel("raw");
  channel.binaryType = "arraybuffer";
  channel.bufferedAmountLowThreshold = RAW_LOW_WATER_BYTES;
  const { message, end } = rawEnd(
    {
      send: (each) => channel.send(each),
      buffered: () => channel.bufferedAmount,
      onLow: (wake) => {
        channel.onbufferedamountlow = wake;
      },
    },
    bytes,
  );
  channel.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => message(new Uint8Array(data));
  const opened = new Promise((resolve) => {
    channel.onopen = resolve;
  });
  await peer.setLocalDescription();
  const sdp = await globalThis.askFar("raw", peer.localDescription?.sdp ?? "");
  await peer.setRemoteDescription({ type: "answer", sdp });
  await opened;
  return end;
}
