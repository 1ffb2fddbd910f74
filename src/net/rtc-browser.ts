/**
 * The rtc lane in a browser page, by `simple-peer`, which is loaded only when it is used. Workers have no
 * RTCPeerConnection: a page lends its link to a worker (`proxy.ts`). simple-peer makes the connection and its channel; its stream
 * layer is never used, the data channel is driven here. To a relay the offer is sent at once, without candidates: the
 * answering end learns this end's address from its first packet. Between two pages both ends gather theirs first.
 */
import type SimplePeer from "simple-peer";
import { HeddleError, messageIn } from "../base/assert.ts";
import type { IceServer } from "../protocol/ice.ts";
import { createFramedLink, type FramedEnd } from "./framed-link.ts";
import type { Attach, Link } from "./link.ts";
import { checkSdp, withFewCandidates, withoutCandidates } from "./sdp.ts";

export interface DialRtcOptions {
  /** Takes the offer to the other end and brings back its answer. */
  readonly exchange: (offerSdp: string) => Promise<string>;
  readonly attach: Attach;
  readonly timeoutMs?: number;
  /** None are needed for an answering end with an address of its own. */
  readonly iceServers?: readonly IceServer[];
  /** Sends this end's addresses with the offer: an answering end without one of its own needs them. */
  readonly gathers?: boolean;
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
}

/** For one link between two ends neither of which has an address of its own. */
export interface AnswerRtcOptions extends Pick<
  DialRtcOptions,
  "attach" | "timeoutMs" | "iceServers" | "messageBytesMax"
> {
  /** From an end that gathers. */
  readonly offerSdp: string;
}

const CHANNEL_LABEL = "heddle";
/** How long a closing end waits for the other to have read its last word. */
const CLOSE_MS = 1_000;
/** How long this end's addresses are gathered; those found by then are sent. */
const GATHER_MS = 1_500;

/** Resolves when the link is open and attached; rejects with HeddleError "unreachable" when it cannot be opened in time. */
export async function dialRtc({
  exchange,
  attach,
  timeoutMs = 10_000,
  iceServers = [],
  gathers = false,
  messageBytesMax,
}: DialRtcOptions): Promise<Link> {
  // Unless it gathers it does not wait for candidates; they are not sent.
  const peer = await createPeer({ initiator: true, trickle: !gathers, channelName: CHANNEL_LABEL }, iceServers);
  const { promise: opened, resolve, reject } = Promise.withResolvers<Link>();
  const fail = (sentence: string, cause?: unknown): void =>
    reject(new HeddleError("unreachable", `Cannot dial over WebRTC: ${sentence}`, { cause }));
  const timer = setTimeout(() => fail(`no channel opened within ${timeoutMs} ms`), timeoutMs);
  carry(peer, channelOf(peer), { attach, messageBytesMax, opened: resolve, failed: fail });
  peer.on("signal", (signal) => {
    if (signal.type === "offer" && typeof signal.sdp === "string") {
      const offer = gathers ? signal.sdp : withoutCandidates(signal.sdp);
      exchangeSdp(peer, offer, exchange).catch((error: unknown) =>
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

/** Answers an offer; `attach` is called when the channel opens, if it ever does. Rejects with HeddleError "bad-input". */
export async function answerRtc({
  offerSdp,
  attach,
  timeoutMs = 10_000,
  iceServers = [],
  messageBytesMax,
}: AnswerRtcOptions): Promise<string> {
  checkSdp(offerSdp, "offer");
  const peer = await createPeer({ initiator: false, trickle: false }, iceServers);
  const { promise: answered, resolve, reject } = Promise.withResolvers<string>();
  const fail = (sentence: string): void => {
    peer.destroy();
    reject(new HeddleError("bad-input", `Cannot answer an offer: ${sentence}`));
  };
  const timer = setTimeout(() => fail(`no channel opened within ${timeoutMs} ms`), timeoutMs);
  // After simple-peer's own listener, and before anything can arrive.
  const { _pc: connection } = peer as unknown as { readonly _pc: RTCPeerConnection };
  connection.addEventListener("datachannel", ({ channel }) => {
    const opened = (): void => clearTimeout(timer);
    carry(peer, channel, { attach, messageBytesMax, opened, failed: fail });
  });
  peer.on("error", (error) => fail(error.message));
  peer.on("close", () => clearTimeout(timer));
  peer.on("signal", (signal) => {
    if (signal.type === "answer" && typeof signal.sdp === "string") {
      resolve(signal.sdp);
    }
  });
  peer.signal({ type: "offer", sdp: withFewCandidates(offerSdp) });
  return answered;
}

async function createPeer(options: SimplePeer.Options, iceServers: readonly IceServer[]): Promise<SimplePeer.Instance> {
  const { default: Peer } = await import("simple-peer/simplepeer.min.js");
  if (!Peer.WEBRTC_SUPPORT) {
    throw new HeddleError("unreachable", "Cannot dial over WebRTC: this browser or worker has none");
  }
  return new Peer({
    ...options,
    iceCompleteTimeout: GATHER_MS,
    config: {
      iceServers: iceServers.map(({ url, username, credential }) =>
        username === null || credential === null ? { urls: url } : { urls: url, username, credential },
      ),
    },
  });
}

interface Carrying {
  readonly attach: Attach;
  readonly messageBytesMax: number | undefined;
  readonly opened: (link: Link) => void;
  /** Of no effect once the link is open. */
  readonly failed: (sentence: string) => void;
}

/** Makes the link once the channel is open. */
function carry(
  peer: SimplePeer.Instance,
  channel: RTCDataChannel,
  { attach, messageBytesMax, opened, failed }: Carrying,
): void {
  let end: FramedEnd | undefined;
  const begin = (): void => {
    end ??= createFramedLink({
      channel: {
        lane: "rtc",
        copies: true,
        send: (frame) => channel.send(frame),
        close: (after) => closePeer(peer, after),
      },
      attach,
      ...(messageBytesMax === undefined ? {} : { messageBytesMax }),
    });
    opened(end.link);
  };
  channel.addEventListener("open", begin);
  channel.onmessage = ({ data }: MessageEvent<unknown>) => {
    if (data instanceof ArrayBuffer) {
      end?.receive(new Uint8Array(data));
    } else {
      end?.link.close("Cannot read a frame: got text, need bytes");
    }
  };
  if (channel.readyState === "open") {
    begin();
  }
  const ended = (sentence: string): void => {
    failed(sentence);
    end?.ended(sentence);
  };
  peer.on("error", (error) => ended(`the connection broke: ${error.message}`));
  peer.on("close", () => ended("The other end closed the link"));
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
  const sdp = await exchange(offerSdp);
  checkSdp(sdp, "answer");
  if (!peer.destroyed) {
    peer.signal({ type: "answer", sdp: withFewCandidates(sdp) });
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
