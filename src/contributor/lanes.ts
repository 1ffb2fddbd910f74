/**
 * The two links of a session: the dialled one, which carries control, and the WebRTC one beside it while that is open. Here
 * bytes become messages and events, and events of links that were given up are kept away.
 */
import { assert, HeddleError, messageIn } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Attach, Lane, Link } from "../net/link.ts";
import { decodeRelayMessage, encodeMessage, rtcProof, sessionProof } from "../protocol/codec.ts";
import type { DeviceKey, VerifySignature } from "../protocol/keys.ts";
import type { IceServer } from "../protocol/ice.ts";
import type { ContributorMessage, RelayMessage, RtcSignal } from "../protocol/messages.ts";
import type { ContributorEvent, ContributorState, Effect, SessionLane } from "./state.ts";

/** Time to set the WebRTC lane up. */
const RTC_MS = 15_000;

/** Sets the WebRTC lane up; `exchange` carries the offer over the dialled link and returns the relay's answer. */
export type OpenRtc = (options: {
  readonly exchange: (offerSdp: string) => Promise<string>;
  readonly attach: Attach;
  readonly timeoutMs: number;
  /** That the relay named. */
  readonly iceServers: readonly IceServer[];
}) => Promise<Link>;

export interface LanesOptions {
  readonly dial: (attach: Attach) => Promise<Link>;
  readonly openRtc?: OpenRtc;
  readonly key: DeviceKey;
  readonly verify: VerifySignature;
  /** The session as it stands: which dial counts, and whether a WebRTC link is wanted. */
  readonly state: () => ContributorState;
  readonly dispatch: (event: ContributorEvent) => void;
}

/** A class because links must be closed, and their bytes counted when they are. */
export class Lanes {
  readonly #options: LanesOptions;
  #link: Link | undefined;
  #rtc: Link | undefined;
  #hello: Bytes | undefined;
  /** What the relay has proven on the present link: its key, and the nonce that stands for the session. */
  #proven: { readonly nonce: Bytes; readonly relay: Bytes } | undefined;
  #iceServers: readonly IceServer[] = [];
  #answer: { resolve: (signal: RtcSignal) => void; reject: (error: Error) => void } | undefined;
  /** Bytes of links that have ended. */
  #pastUp = 0;
  #pastDown = 0;

  constructor(options: LanesOptions) {
    this.#options = options;
  }

  /** That the relay named last. */
  get iceServers(): readonly IceServer[] {
    return this.#iceServers;
  }
  get controlLane(): Lane | null {
    return this.#link?.lane ?? null;
  }
  get bytesUp(): number {
    return this.#pastUp + (this.#link?.bytesSent ?? 0) + (this.#rtc?.bytesSent ?? 0);
  }
  get bytesDown(): number {
    return this.#pastDown + (this.#link?.bytesReceived ?? 0) + (this.#rtc?.bytesReceived ?? 0);
  }

  /** Where an upload goes; undefined when that link is gone. */
  uploadLink(lane: SessionLane): Link | undefined {
    return lane === "rtc" ? this.#rtc : this.#link;
  }

  hangUp(reason: string): void {
    this.closeRtc(reason);
    const link = this.#link;
    this.#forgetLink();
    link?.close(reason);
  }

  async dial(dial: number): Promise<void> {
    const attach: Attach = (link) => ({
      message: (bytes) => this.#receive(bytes, { dial, lane: "ws", link }),
      taken: () => this.#options.dispatch({ type: "carried", dial, lane: "ws" }),
      closed: (reason) => {
        if (this.#link === link) {
          this.#forgetLink();
          this.closeRtc(reason);
        }
        this.#options.dispatch({ type: "linkEnded", dial, reason });
      },
    });
    try {
      const link = await this.#options.dial(attach);
      if (this.#options.state().dial !== dial) {
        link.close("The dial came too late");
        return;
      }
      this.#link = link;
      this.#options.dispatch({ type: "linked", dial });
    } catch (error) {
      this.#options.dispatch({ type: "linkEnded", dial, reason: messageIn(error) });
    }
  }

  async openRtc(dial: number): Promise<void> {
    const { openRtc } = this.#options;
    assert(openRtc !== undefined, "Cannot open WebRTC: this program has none");
    const exchange = (offer: string): Promise<string> => this.#exchange(offer);
    const attach: Attach = (link) => ({
      message: (bytes) => this.#receive(bytes, { dial, lane: "rtc", link }),
      taken: () => this.#options.dispatch({ type: "carried", dial, lane: "rtc" }),
      closed: (reason) => {
        if (this.#rtc === link) {
          this.#forgetRtc();
          this.#options.dispatch({ type: "rtcEnded", reason });
        }
      },
    });
    try {
      const link = await openRtc({ exchange, attach, timeoutMs: RTC_MS, iceServers: this.#iceServers });
      if (this.#options.state().dial !== dial || this.#options.state().rtc !== "opening") {
        link.close("The session it belongs to has ended");
        return;
      }
      this.#rtc = link;
      this.#options.dispatch({ type: "rtcOpened" });
    } catch (error) {
      if (this.#options.state().dial === dial) {
        this.#options.dispatch({ type: "rtcEnded", reason: messageIn(error) });
      }
    }
  }

  send(message: ContributorMessage): void {
    const bytes = encodeMessage(message);
    if (message.type === "hello") {
      this.#hello = bytes;
    }
    this.#link?.send(bytes);
  }

  /** Proves this device's key to a relay that has proven its own. */
  async prove({ nonce, relay, signature, dial }: Extract<Effect, { readonly type: "prove" }>): Promise<void> {
    const { key, verify, dispatch } = this.#options;
    const link = this.#link;
    assert(this.#hello !== undefined, "Cannot prove: no hello was sent");
    const proof = sessionProof({ nonce, hello: this.#hello });
    const valid = await verify(relay, "relay", proof, signature);
    if (link === undefined || link !== this.#link) {
      return;
    }
    if (!valid) {
      dispatch({ type: "garbled", dial, reason: "The relay does not prove the key that it names" });
      return;
    }
    this.#proven = { nonce, relay };
    dispatch({ type: "proven", dial, relay });
    link.send(encodeMessage({ type: "prove", signature: await key.sign("session", proof) }));
  }

  /** Takes a signed offer to the relay and brings back its answer, if the key that it has proven signed that for this offer. */
  async #exchange(offer: string): Promise<string> {
    const { key, verify } = this.#options;
    assert(this.#proven !== undefined, "Cannot offer a link: no session is proven");
    const { nonce, relay } = this.#proven;
    const signature = await key.sign("rtc", rtcProof({ nonce, offer }));
    const answer = await new Promise<RtcSignal>((resolve, reject) => {
      this.#answer = { resolve, reject };
      this.send({ type: "rtc", kind: "offer", sdp: offer, signature });
    });
    if (!(await verify(relay, "rtc", rtcProof({ nonce, offer, answer: answer.sdp }), answer.signature))) {
      throw new HeddleError("integrity", "the answer is not the one that the relay has signed for this offer");
    }
    return answer.sdp;
  }

  #receive(bytes: Bytes, { dial, lane, link }: { dial: number; lane: SessionLane; link: Link }): void {
    const decoded = decodeRelayMessage(bytes);
    if (!decoded.ok) {
      const reason = `The relay sent something unreadable: ${decoded.detail}`;
      this.#options.dispatch({ type: "garbled", dial, reason });
      return;
    }
    const message: RelayMessage = decoded.value;
    if (message.type === "ping") {
      link.send(encodeMessage({ type: "pong" }));
    } else if (message.type === "ice") {
      this.#iceServers = message.servers;
    } else if (message.type === "rtc" && message.kind === "answer") {
      this.#answer?.resolve(message);
      this.#answer = undefined;
    } else if (message.type === "refused" && message.reason === "bad-signature") {
      const sentence = "the relay got an offer that this device has not signed";
      this.#answer?.reject(new HeddleError("integrity", sentence));
      this.#answer = undefined;
    }
    this.#options.dispatch({ type: "received", dial, lane, message });
  }

  closeRtc(reason: string): void {
    const link = this.#rtc;
    this.#forgetRtc();
    link?.close(reason);
  }

  #forgetLink(): void {
    this.#pastUp += this.#link?.bytesSent ?? 0;
    this.#pastDown += this.#link?.bytesReceived ?? 0;
    this.#link = undefined;
    this.#proven = undefined;
    this.#iceServers = [];
    this.#answer?.reject(new HeddleError("unreachable", "The link ended before the answer came"));
    this.#answer = undefined;
  }

  #forgetRtc(): void {
    this.#pastUp += this.#rtc?.bytesSent ?? 0;
    this.#pastDown += this.#rtc?.bytesReceived ?? 0;
    this.#rtc = undefined;
  }
}
