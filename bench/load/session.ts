/**
 * A contributor's session as a load is made of: the production key, link and messages, without the contributor's state machine. Until it
 * is welcomed it does what that does: who is told to come back does so at that time or a little later, a lost link is dialled again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { HeddleError, messageIn } from "../../src/base/assert.ts";
import type { ContributorId } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { waitMs } from "../../src/contributor/draft.ts";
import { DIAL_BACK_OFF, HANDSHAKE_MS, RETRY_SPREAD } from "../../src/contributor/state.ts";
import {
  contributorIdOf,
  decodeRelayMessage,
  encodeMessage,
  rtcProof,
  sessionProof,
} from "../../src/protocol/codec.ts";
import { createDeviceKey } from "../../src/net/device-key.ts";
import type { Link } from "../../src/net/link.ts";
import { dialRtcNode } from "../../src/net/rtc-node.ts";
import { dialWebSocket } from "../../src/net/ws-client.ts";
import type { DeviceKey } from "../../src/protocol/keys.ts";
import { PROTOCOL_VERSION } from "../../src/protocol/limits.ts";
import type { ContributorMessage, RelayMessage, VersionInfo } from "../../src/protocol/messages.ts";
import type { Reason } from "../../src/protocol/verdict.ts";

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
  /** It has no session yet, and will ask again. */
  readonly onAway?: (away: Away) => void;
  /** The link of an open session is gone, other than by `close`. */
  readonly onLost: (reason: string) => void;
}

/** What came of asking for a session, where that is none. */
export type Away =
  /** The relay said to come back after so many milliseconds. */
  | { readonly type: "told"; readonly reason: Reason; readonly retryMs: number }
  /** The link could not be opened, or ended before the relay said anything of the kind. */
  | { readonly type: "lost"; readonly sentence: string };

/** Links in a row that may be lost. */
const LOST_MAX = 10;

const AGENT = { agent: "bench relay", engine: "wasm", device: "none", privateData: false } as const;

const rng = createRng("sessions", performance.timeOrigin);

/** Resolves when the relay has welcomed a new device, after however many tries that takes. Rejects with HeddleError "unreachable". */
export async function openSession(options: SessionOptions): Promise<Session> {
  const key = await createDeviceKey();
  for (let lost = 0; ;) {
    const came = await askForSession(options, key);
    if (came.type === "open") {
      return came.session;
    }
    lost = came.type === "lost" ? lost + 1 : 0;
    if (came.type === "lost" && lost === LOST_MAX) {
      throw new HeddleError(
        "unreachable",
        `Cannot open a session: ${lost} links were lost, the last: ${came.sentence}`,
      );
    }
    options.onAway?.(came);
    const pauseMs =
      came.type === "told" ? came.retryMs * (1 + rng.float() * RETRY_SPREAD) : waitMs(rng, lost - 1, DIAL_BACK_OFF);
    await sleep(pauseMs);
  }
}

type Came = Away | { readonly type: "open"; readonly session: Session };

/** Asks once. Never rejects. */
function askForSession({ url, onMessage, onLost }: SessionOptions, key: DeviceKey): Promise<Came> {
  const nonce = crypto.getRandomValues(new Uint8Array(32));
  const hello = encodeMessage({ type: "hello", protocol: PROTOCOL_VERSION, publicKey: key.publicKey, nonce, ...AGENT });
  const contributor = contributorIdOf(key.publicKey);
  const startMs = performance.now();
  return new Promise((settle) => {
    const lose = (sentence: string): void => settle({ type: "lost", sentence }); // of no effect once it is settled
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
      const open = { contributor, key, welcomeMs, head, send, close };
      settle({ type: "open", session: { ...open, openRtc: (onPong) => openRtc(link, onPong) } });
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
        const { reason, retryMs } = message;
        if (retryMs === null) {
          lose(`refused as "${reason}" without a time to come back`);
        } else {
          settle({ type: "told", reason, retryMs });
        }
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
        lose(reason);
      },
    });
    const greet = (link: Link): void => {
      link.send(hello);
      const late = (): void => (stage === "greeting" ? link.close("The handshake took too long") : undefined);
      setTimeout(late, HANDSHAKE_MS).unref();
    };
    dialWebSocket({ url: `${url}/link`, attach: (link) => handlers(link) }).then(greet, (error: unknown) =>
      lose(messageIn(error)),
    );
  });
}
