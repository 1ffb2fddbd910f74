/**
 * The rtc lane in a browser page, dialling end, by `simple-peer`, which is loaded only when it is used. Workers have no
 * RTCPeerConnection: a page lends its link to a worker (`proxy.ts`). simple-peer makes the connection and its channel; its stream
 * layer is never used, the data channel is driven here. The offer is sent at once, without candidates: the answering end learns
 * this end's address from its first packet.
 */
import type SimplePeer from "simple-peer";
import { HeddleError, messageIn } from "../base/assert.ts";
import type { IceServer } from "../protocol/ice.ts";
import { createFramedLink, type FramedEnd } from "./framed-link.ts";
import type { Attach, Link } from "./link.ts";
import { checkSdp, withoutCandidates } from "./sdp.ts";

export interface DialRtcOptions {
  /** Takes the offer to the other end and brings back its answer. */
  readonly exchange: (offerSdp: string) => Promise<string>;
  readonly attach: Attach;
  readonly timeoutMs?: number;
  /** None are needed for an answering end with an address of its own. */
  readonly iceServers?: readonly IceServer[];
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
}

const CHANNEL_LABEL = "heddle";
/** How long a closing end waits for the other to have read its last word. */
const CLOSE_MS = 1_000;

/** Resolves when the link is open and attached; rejects with HeddleError "unreachable" when it cannot be opened in time. */
export async function dialRtc({
  exchange,
  attach,
  timeoutMs = 10_000,
  iceServers = [],
  messageBytesMax,
}: DialRtcOptions): Promise<Link> {
  const { default: Peer } = await import("simple-peer/simplepeer.min.js");
  if (!Peer.WEBRTC_SUPPORT) {
    throw new HeddleError("unreachable", "Cannot dial over WebRTC: this browser or worker has none");
  }
  const peer = new Peer({
    initiator: true,
    trickle: true, // do not wait for candidates; they are not sent
    channelName: CHANNEL_LABEL,
    config: {
      iceServers: iceServers.map(({ url, username, credential }) =>
        username === null || credential === null ? { urls: url } : { urls: url, username, credential },
      ),
    },
  });
  const channel = channelOf(peer);
  const { promise: opened, resolve, reject } = Promise.withResolvers<Link>();
  const fail = (sentence: string, cause?: unknown): void =>
    reject(new HeddleError("unreachable", `Cannot dial over WebRTC: ${sentence}`, { cause }));
  const timer = setTimeout(() => fail(`no channel opened within ${timeoutMs} ms`), timeoutMs);
  let end: FramedEnd | undefined;
  channel.addEventListener("open", () => {
    end = createFramedLink({
      channel: { lane: "rtc", send: (frame) => channel.send(frame), close: (after) => closePeer(peer, after) },
      attach,
      ...(messageBytesMax === undefined ? {} : { messageBytesMax }),
    });
    resolve(end.link);
  });
  channel.onmessage = ({ data }: MessageEvent<unknown>) => {
    if (data instanceof ArrayBuffer) {
      end?.receive(new Uint8Array(data));
    } else {
      end?.link.close("Cannot read a frame: got text, need bytes");
    }
  };
  const ended = (sentence: string): void => {
    fail(sentence); // of no effect once the link is open
    end?.ended(sentence);
  };
  peer.on("error", (error) => ended(`the connection broke: ${error.message}`));
  peer.on("close", () => ended("The other end closed the link"));
  peer.on("signal", (signal) => {
    if (signal.type === "offer" && typeof signal.sdp === "string") {
      exchangeSdp(peer, signal.sdp, exchange).catch((error: unknown) =>
        fail(`there was no usable answer: ${messageIn(error)}`, error),
      );
    }
  });
  try {
    return await opened;
  } catch (error) {
    peer.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** simple-peer opens its channel while it is made; taking `onmessage` from it keeps the bytes out of its stream. */
function channelOf(peer: SimplePeer.Instance): RTCDataChannel {
  const { _channel: channel } = peer as unknown as { readonly _channel: RTCDataChannel };
  channel.binaryType = "arraybuffer";
  return channel;
}

async function exchangeSdp(
  peer: SimplePeer.Instance,
  offerSdp: string,
  exchange: (offerSdp: string) => Promise<string>,
): Promise<void> {
  const sdp = await exchange(withoutCandidates(offerSdp));
  checkSdp(sdp, "answer");
  if (!peer.destroyed) {
    peer.signal({ type: "answer", sdp });
  }
}

/** Destroying drops what was sent: after a last word the other end is the one to close, or time is up. */
function closePeer(peer: SimplePeer.Instance, after: "sent" | "now"): void {
  if (after === "sent") {
    const timer = setTimeout(() => peer.destroy(), CLOSE_MS);
    peer.once("close", () => clearTimeout(timer));
  } else {
    peer.destroy();
  }
}
