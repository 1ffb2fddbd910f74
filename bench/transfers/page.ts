/** The near end of `bench/transfer.ts` in a browser: opens a raw channel and a link, and runs the transfers it is told to. */
import { dialRtc } from "../../src/net/rtc-browser.ts";
import { createMemoryStore } from "../../src/store/memory.ts";
import { LOW_WATER_BYTES, payloadOf, pieceEnd, rawEnd, type End } from "./ends.ts";

declare global {
  /** Has the far end answer an offer. */
  var askFar: (kind: "raw" | "memory", offer: string) => Promise<string>;
  var openEnds: (bytes: number) => Promise<void>;
  /** Milliseconds that a transfer takes. */
  var transfer: (which: "raw" | "link", way: "send" | "receive") => Promise<number>;
  /** Bytes that the link has carried, both ways. */
  var carried: () => number;
}

const ends = new Map<string, End>();

globalThis.openEnds = async (bytes) => {
  const payload = payloadOf(bytes);
  ends.set("raw", await dialRaw(bytes));
  const { attach, end } = pieceEnd(payload, createMemoryStore().keys);
  const link = await dialRtc({ exchange: (offer) => globalThis.askFar("memory", offer), attach });
  ends.set("link", end);
  globalThis.carried = () => link.bytesSent + link.bytesReceived;
};

globalThis.transfer = async (which, way) => {
  const end = ends.get(which) as End;
  const begun = performance.now();
  await end[way]();
  const tookMs = performance.now() - begun;
  await end.rest();
  return tookMs;
};

async function dialRaw(bytes: number): Promise<End> {
  const peer = new RTCPeerConnection();
  const channel = peer.createDataChannel("raw");
  channel.binaryType = "arraybuffer";
  channel.bufferedAmountLowThreshold = LOW_WATER_BYTES;
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
