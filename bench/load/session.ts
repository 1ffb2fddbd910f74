/**
 * A contributor's session as a load is made of: the production key, link and messages, without the contributor's state machine. Who
 * is told to come back does so at the time it is told.
 */
import {
  contributorIdOf,
  decodeRelayMessage,
  encodeMessage,
  rtcProof,
  sessionProof,
} from "../../src/protocol/codec.ts";
import type { ContributorId } from "../../src/base/bytes.ts";
import { createPair, deviceKeyOf } from "../../src/net/device-key.ts";
import type { Link } from "../../src/net/link.ts";
import { dialRtcNode } from "../../src/net/rtc-node.ts";
import { dialWebSocket } from "../../src/net/ws-client.ts";
import type { DeviceKey } from "../../src/protocol/keys.ts";
import { PROTOCOL_VERSION } from "../../src/protocol/limits.ts";
import type { ContributorMessage, RelayMessage, VersionInfo } from "../../src/protocol/messages.ts";

export interface Session {
  readonly contributor: ContributorId;
  readonly key: DeviceKey;
  /** From the dial that was let in to the welcome. */
  readonly welcomeMs: number;
  /** At the welcome. */
  readonly head: VersionInfo;
  /** Over the second link, where there is one. */
  send(message: ContributorMessage): void;
  /**
   * Opens the WebRTC link, with an offer and an answer over the first. Resolves when it carries messages; `onPong` is called for
   * each pong that comes over it.
   */
  openRtc(onPong: () => void): Promise<Link>;
  close(): void;
}

export interface SessionOptions {
  /** ws://host:port of the relay. */
  readonly url: string;
  /** What comes after the welcome. Pings are answered already. */
  readonly onMessage?: (message: RelayMessage) => void;
  /** The link is gone, other than by `close`. */
  readonly onLost: (reason: string) => void;
}

const AGENT = { agent: "bench relay", engine: "wasm", device: "none", privateData: false } as const;

/** Resolves when the relay has welcomed a new device, after however many tries that takes. */
export async function openSession(options: SessionOptions): Promise<Session> {
  const key = await deviceKeyOf(await createPair(false));
  for (;;) {
    const opened = await askForSession(options, key);
    if (typeof opened !== "number") {
      return opened;
    }
    await new Promise((settle) => setTimeout(settle, opened));
  }
}

/** The session, or milliseconds after which to come back. */
function askForSession({ url, onMessage, onLost }: SessionOptions, key: DeviceKey): Promise<Session | number> {
  const nonce = crypto.getRandomValues(new Uint8Array(32));
  const hello = encodeMessage({ type: "hello", protocol: PROTOCOL_VERSION, publicKey: key.publicKey, nonce, ...AGENT });
  const contributor = contributorIdOf(key.publicKey);
  const startMs = performance.now();
  return new Promise((settle, reject) => {
    let stage: "greeting" | "open" | "closed" = "greeting";
    let proven: Uint8Array = nonce;
    let rtc: Link | undefined;
    let answer: (sdp: string) => void = () => undefined;
    const openRtc = async (link: Link, onPong: () => void): Promise<Link> => {
      const exchange = async (offer: string): Promise<string> => {
        const signature = await key.sign("rtc", rtcProof({ nonce: proven, offer }));
        const answered = new Promise<string>((resolve) => {
          answer = resolve;
        });
        link.send(encodeMessage({ type: "rtc", kind: "offer", sdp: offer, signature }));
        return answered;
      };
      rtc = await dialRtcNode({ exchange, attach: (second) => handlers(second, onPong) });
      return rtc;
    };
    const welcomed = (link: Link, head: VersionInfo): void => {
      stage = "open";
      const send = (message: ContributorMessage): void => (rtc ?? link).send(encodeMessage(message));
      const close = (): void => {
        stage = "closed";
        rtc?.close("measured");
        link.close("measured");
      };
      const welcomeMs = performance.now() - startMs;
      settle({ contributor, key, welcomeMs, head, send, openRtc: (onPong) => openRtc(link, onPong), close });
    };
    const take = (link: Link, message: RelayMessage, onPong?: () => void): void => {
      if (message.type === "pong") {
        onPong?.();
      } else if (message.type === "ping") {
        link.send(encodeMessage({ type: "pong" }));
      } else if (message.type === "challenge") {
        proven = message.nonce;
        const proof = sessionProof({ nonce: message.nonce, hello });
        void key.sign("session", proof).then((signature) => link.send(encodeMessage({ type: "prove", signature })));
      } else if (message.type === "welcome") {
        welcomed(link, message.head);
      } else if (message.type === "rtc") {
        answer(message.sdp);
      } else if (message.type === "refused" && stage === "greeting") {
        settle(message.retryMs ?? 1_000);
      } else {
        onMessage?.(message);
      }
    };
    const handlers = (link: Link, onPong?: () => void) => ({
      message: (bytes: Uint8Array) => {
        const read = decodeRelayMessage(bytes);
        if (read.ok) {
          take(link, read.value, onPong);
        } else {
          onLost(`The relay sent something unreadable: ${read.detail}`);
        }
      },
      closed: (reason: string) => {
        if (stage === "open") {
          onLost(`${link.lane}: ${reason}`);
        }
        reject(new Error(reason)); // of no effect once it is settled
      },
    });
    dialWebSocket({ url: `${url}/link`, attach: (link) => handlers(link) }).then((link) => link.send(hello), reject);
  });
}
