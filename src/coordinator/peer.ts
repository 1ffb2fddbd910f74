/**
 * The relay's end of one session: the handshake (hello → challenge → prove), the heartbeat, the limits on what one
 * participant may send, and the links that carry it: the first, and a second one that may be opened over WebRTC. What a
 * message means is for the host.
 */
import { assert } from "../base/assert.ts";
import { fullBucket, refill, type Bucket, type Rate } from "../base/bucket.ts";
import type { Bytes, ContributorId } from "../base/bytes.ts";
import type { Attach, Lane, Link, LinkHandlers } from "../net/link.ts";
import { contributorIdOf, decodeContributorMessage, encodeMessage, rtcProof, sessionProof } from "../protocol/codec.ts";
import type { IceServer } from "../protocol/ice.ts";
import { BEAT_MS, DEAD_MS, OFFER_PAUSE_MS, PIECES_AHEAD, PING_MS } from "../protocol/limits.ts";
import type { ContributorMessage, RelayMessage } from "../protocol/messages.ts";
import type { Reason } from "../protocol/verdict.ts";
import type { Introducing } from "./introductions.ts";
import { BUSY_RETRY_MS, type SessionId } from "./live.ts";

/** Time from the first byte to a proven key. */
export const HANDSHAKE_MS = 10_000;
/** Unreadable or forged messages after which a session is closed. */
export const STRIKES_MAX = 8;
/** Messages of one session that wait to be handled, and those of a kind that takes memory or time. */
const WAITING_MAX = 64;
const WAITING_MAX_OF: Partial<Record<Work["type"], number>> = { contribute: 2, offer: 2, piece: 2 * PIECES_AHEAD };
/** Beats without a byte after which a link is silent; the one in which it was last heard is none of them. */
const SILENT_BEATS = DEAD_MS / BEAT_MS - 1;

/** Messages of one session, but for updates, whose number has limits of its own: real contributors send one a second at the most. */
export const MESSAGE_RATE: Rate = { perS: 10, burst: 100 };
/** A session that sends more is not read from for this long, and after so many times in a row it is refused. */
export const HOLD_MS = 1_000;
export const HOLDS_MAX = 10;
/** A session is told of STUN and TURN servers anew after this long: what lets it into them may end. */
export const ICE_RENEW_MS = 3_600_000;

/** What is known of an open link. */
interface Carriage {
  /** Bytes that have been counted. */
  up: number;
  down: number;
  /** Bytes that had arrived by the last beat, and beats since any did. */
  heard: number;
  silentBeats: number;
}

type Hello = Extract<ContributorMessage, { readonly type: "hello" }>;
export type Work = Extract<
  ContributorMessage,
  { readonly type: "ready" | "contribute" | "offer" | "piece" | "report" | "release" }
>;

/** Where a first link comes from. */
export interface Arrival {
  /** Of its network address; null for this machine's own. */
  readonly prefix: string | null;
  /** Reads nothing from the link for so long; absent where a lane cannot wait. */
  readonly hold?: (ms: number) => void;
}

export interface PeerHost {
  nowMs(): number;
  /** A hello was said: null lets it in, else it is to come back after so many milliseconds. */
  admit(contributor: ContributorId, prefix: string | null): number | null;
  /** 32 unpredictable bytes. */
  nonce(): Promise<Bytes>;
  /** The relay's public key, and what signs for it. */
  readonly relay: Bytes;
  sign(purpose: string, message: Bytes): Promise<Bytes>;
  /** Whether a signature holds. */
  verify(publicKey: Bytes, purpose: string, message: Bytes, signature: Bytes): Promise<boolean>;
  /** Runs asynchronous work that `settled` waits for. */
  track(work: () => Promise<void>): void;
  /** The handshake is done. */
  joined(peer: Peer, hello: Hello): void;
  /** A message of an open session; `done` is called when it has been handled. */
  work(peer: Peer, message: Work, wireBytes: number, done: () => void): void;
  /** Servers for this participant's WebRTC links; there may be none. */
  iceServers(contributor: ContributorId): readonly IceServer[];
  /** The answer to an offer of a second link, which is attached with `attach` when it opens; undefined where there is none. */
  answer(peer: Peer, offer: string, attach: Attach): Promise<string | undefined>;
  /** A message about meeting another contributor; passed over before the session has joined. */
  introduce(peer: Peer, message: Introducing): void;
  /** The session is over; `leave`: the participant said so. Called once, also for a session that never opened. */
  gone(peer: Peer, leave: boolean): void;
  /** A message of this session was refused. */
  refused(reason: Reason): void;
  /** Bytes that a link has carried since it was last asked. */
  traffic(lane: Lane, up: number, down: number): void;
  log(sentence: string): void;
}

export class Peer {
  readonly id: SessionId;
  readonly #host: PeerHost;
  readonly first: Link;
  /** Every open link. */
  readonly #links = new Map<Link, Carriage>();
  readonly #arrival: Arrival;
  readonly #bornMs: number;
  readonly #messages: Bucket;
  #holds = 0;
  #heldUntilMs = 0;
  #isAdmitted = false;
  #beats = 0;
  #stage: "new" | "greeted" | "challenged" | "proving" | "open" | "gone" = "new";
  #hello: { readonly message: Hello; readonly bytes: Bytes } | null = null;
  #nonce: Bytes | null = null;
  #offeredMs = Number.NEGATIVE_INFINITY;
  #iceMs = Number.NEGATIVE_INFINITY;
  #strikes = 0;
  #waiting = 0;
  readonly #waitingOf = new Map<Work["type"], number>();

  constructor(id: SessionId, host: PeerHost, { link: first, arrival }: { link: Link; arrival: Arrival }) {
    this.id = id;
    this.#host = host;
    this.first = first;
    this.#arrival = arrival;
    this.#bornMs = host.nowMs();
    this.#messages = fullBucket(MESSAGE_RATE, this.#bornMs);
    this.#links.set(first, { up: 0, down: 0, heard: 0, silentBeats: 0 });
  }

  /** Known from the hello on. */
  get publicKey(): Bytes {
    assert(this.#hello !== null, "Cannot name a peer: it has not said hello");
    return this.#hello.message.publicKey;
  }

  get contributor(): ContributorId {
    return contributorIdOf(this.publicKey);
  }

  /** Of the newest link, which is the one that carries updates. */
  get lane(): Lane {
    return ([...this.#links.keys()].at(-1) ?? this.first).lane;
  }

  get prefix(): string | null {
    return this.#arrival.prefix;
  }

  /** It was let in when it said hello. */
  get isAdmitted(): boolean {
    return this.#isAdmitted;
  }

  get isOpen(): boolean {
    return this.#stage === "open";
  }

  /** Handlers of the first link. */
  handlers(): LinkHandlers {
    return {
      message: (bytes) => this.#receive(this.first, bytes),
      closed: () => this.#end(false),
    };
  }

  send(message: RelayMessage): void {
    this.sendEncoded(encodeMessage(message));
  }

  /** Sends a message that was encoded once for many. */
  sendEncoded(bytes: Bytes): void {
    if (this.#stage !== "gone") {
      this.first.send(bytes);
    }
  }

  /** Refuses the last message; the session goes on. */
  refuse(reason: Reason, detail: string, retryMs: number | null = null): void {
    this.#host.log(`Session ${this.id}: refused as "${reason}": ${detail}`);
    this.#host.refused(reason);
    this.send({ type: "refused", reason, retryMs });
  }

  /** Counts something that only a broken or hostile client sends; closes the session when it has sent too much of it. */
  strike(): void {
    this.#strikes += 1;
    if (this.#strikes >= STRIKES_MAX) {
      this.close(`The session sent ${STRIKES_MAX} messages that cannot be right`);
    }
  }

  /** A sound contribution or report makes up for what went wrong before. */
  forgive(): void {
    this.#strikes = 0;
  }

  close(reason: string): void {
    this.#end(false, reason);
  }

  /**
   * Once in BEAT_MS: ends a session that is silent or does not finish its handshake, greets the others. Silence is counted in
   * beats, not by the clock: a relay that was held up itself has heard nobody, and all of them are still there.
   */
  beat(): void {
    this.#beats += 1;
    if (this.#stage !== "open" && this.#host.nowMs() - this.#bornMs >= HANDSHAKE_MS) {
      this.close("The handshake took too long");
      return;
    }
    for (const link of [...this.#links.keys()].filter((one) => this.#isSilent(one))) {
      if (link === this.first) {
        this.close("The other side has gone silent");
        return;
      }
      link.close("The other side has gone silent on this lane");
    }
    if (this.#stage === "open" && this.#beats % (PING_MS / BEAT_MS) === 0) {
      const ping = encodeMessage({ type: "ping" });
      this.#links.forEach((_, link) => link.send(ping));
      if (this.#host.nowMs() - this.#iceMs >= ICE_RENEW_MS) {
        this.#tellIce();
      }
    }
  }

  /** Any byte is a sign of life: a message may take long on a slow line. */
  #isSilent(link: Link): boolean {
    const carriage = this.#links.get(link);
    if (carriage === undefined) {
      return false;
    }
    carriage.silentBeats = link.bytesReceived === carriage.heard ? carriage.silentBeats + 1 : 0;
    carriage.heard = link.bytesReceived;
    return carriage.silentBeats >= SILENT_BEATS;
  }

  /** Hands the bytes carried since the last time to the host. */
  countTraffic(): void {
    for (const link of this.#links.keys()) {
      this.#count(link);
    }
  }

  #receive(link: Link, bytes: Bytes): void {
    if (this.#stage === "gone") {
      return;
    }
    const decoded = decodeContributorMessage(bytes);
    if (!decoded.ok) {
      this.refuse(decoded.reason, decoded.detail);
      if (this.#stage === "open") {
        this.strike();
      } else {
        this.close("The handshake could not be read");
      }
      return;
    }
    const message = decoded.value;
    if (!isUpdate(message) && this.waste()) {
      return;
    }
    if (message.type === "ping") {
      link.send(encodeMessage({ type: "pong" }));
    } else if (message.type !== "pong") {
      if (this.#stage === "open") {
        this.#dispatch(link, message, bytes.length);
      } else {
        this.#shakeHands(message, bytes);
      }
    }
  }

  /** Counts a message that is no update, or is one that nobody waits for; true when it was one too many, and the session is over. */
  waste(): boolean {
    const floods = this.#stage !== "gone" && this.#isFlooding();
    if (floods) {
      this.refuse("busy", `more than ${MESSAGE_RATE.perS} messages a second`, BUSY_RETRY_MS);
      this.close("The session sends more messages than can be read");
    }
    return floods;
  }

  /** Counts a message. Whoever sends too many is slowed down first; what a lane that cannot wait still brings is a debt. */
  #isFlooding(): boolean {
    const [bucket, nowMs] = [this.#messages, this.#host.nowMs()];
    refill(bucket, MESSAGE_RATE, nowMs);
    if (bucket.tokens >= MESSAGE_RATE.burst - 1) {
      this.#holds = 0;
    }
    bucket.tokens -= 1;
    if (bucket.tokens < 0 && nowMs >= this.#heldUntilMs) {
      this.#holds += 1;
      this.#heldUntilMs = nowMs + HOLD_MS;
      this.#arrival.hold?.(HOLD_MS);
    }
    return this.#holds > HOLDS_MAX || bucket.tokens < -MESSAGE_RATE.burst;
  }

  #shakeHands(message: ContributorMessage, bytes: Bytes): void {
    if (this.#stage === "new" && message.type === "hello") {
      const retryMs = this.#host.admit(contributorIdOf(message.publicKey), this.prefix);
      if (retryMs !== null) {
        this.refuse("busy", "no room for another session now", retryMs);
        this.close("The relay has no room for another session now");
        return;
      }
      this.#isAdmitted = true;
      this.#stage = "greeted";
      this.#hello = { message, bytes: bytes.slice() };
      this.#host.track(() => this.#challenge(bytes.slice()));
    } else if (this.#stage === "challenged" && message.type === "prove") {
      this.#stage = "proving";
      this.#host.track(() => this.#checkProof(message.signature));
    } else {
      this.refuse("unknown-contributor", `got "${message.type}" during the handshake`);
      this.close("The handshake was not followed");
    }
  }

  async #challenge(hello: Bytes): Promise<void> {
    const nonce = await this.#host.nonce();
    const signature = await this.#host.sign("relay", sessionProof({ nonce, hello }));
    if (this.#stage === "greeted") {
      this.#nonce = nonce;
      this.#stage = "challenged";
      this.send({ type: "challenge", nonce, relay: this.#host.relay, signature });
    }
  }

  async #checkProof(signature: Bytes): Promise<void> {
    const { message, bytes } = this.#hello as { readonly message: Hello; readonly bytes: Bytes };
    const proof = sessionProof({ nonce: this.#nonce as Bytes, hello: bytes });
    const valid = await this.#host.verify(message.publicKey, "session", proof, signature);
    if (this.#stage !== "proving") {
      return;
    }
    if (!valid) {
      this.refuse("bad-signature", "the session's proof does not match its key");
      this.close("The device key could not be proven");
      return;
    }
    this.#stage = "open";
    this.#tellIce();
    this.#host.joined(this, message);
  }

  #tellIce(): void {
    this.#iceMs = this.#host.nowMs();
    const servers = this.#host.iceServers(this.contributor);
    if (servers.length > 0) {
      this.send({ type: "ice", servers });
    }
  }

  #dispatch(link: Link, message: ContributorMessage, wireBytes: number): void {
    switch (message.type) {
      case "ready":
      case "contribute":
      case "offer":
      case "piece":
      case "report":
      case "release":
        this.#pass(message, wireBytes);
        return;
      case "leave":
        this.#end(true, "The participant left");
        return;
      case "rtc":
        this.#offer(link, message);
        return;
      case "serve":
      case "seek":
      case "signal":
      case "met":
        this.#host.introduce(this, message);
        return;
      case "hello":
      case "prove":
        this.refuse("malformed", `got "${message.type}" after the handshake`);
        this.strike();
        return;
      case "ping":
      case "pong":
        return;
      default:
        message satisfies never;
    }
  }

  #offer(link: Link, { kind, sdp, signature }: Extract<ContributorMessage, { readonly type: "rtc" }>): void {
    const waitMs = this.#offeredMs + OFFER_PAUSE_MS - this.#host.nowMs();
    if (link !== this.first || kind !== "offer") {
      this.refuse("malformed", "signalling that is not an offer on the first link");
      this.strike();
    } else if (waitMs > 0) {
      this.refuse("busy", "an offer was made a moment ago", waitMs);
      this.strike();
    } else {
      this.#offeredMs = this.#host.nowMs();
      this.#host.track(() => this.#answer(sdp, signature));
    }
  }

  /** Who relays the first link's bytes must not end the second one itself: both descriptions are signed. */
  async #answer(offer: string, signature: Bytes): Promise<void> {
    const nonce = this.#nonce as Bytes;
    if (!(await this.#host.verify(this.publicKey, "rtc", rtcProof({ nonce, offer }), signature))) {
      this.refuse("bad-signature", "the offer of a second link is not the one that the device has signed");
      this.strike();
      return;
    }
    const answer = await this.#host.answer(this, offer, (second) => this.#attachSecond(second));
    if (answer !== undefined) {
      const signed = await this.#host.sign("rtc", rtcProof({ nonce, offer, answer }));
      this.send({ type: "rtc", kind: "answer", sdp: answer, signature: signed });
    }
  }

  #pass(message: Work, wireBytes: number): void {
    const { type } = message;
    const alike = this.#waitingOf.get(type) ?? 0;
    if (this.#waiting >= WAITING_MAX) {
      this.refuse("busy", `${this.#waiting} messages are waiting`, BUSY_RETRY_MS);
      this.close("The session sent more than can be handled");
      return;
    }
    if (alike >= (WAITING_MAX_OF[type] ?? WAITING_MAX)) {
      if (!isUpdate(message) || !this.waste()) {
        this.refuse("busy", `${alike} messages "${type}" are waiting`, BUSY_RETRY_MS);
      }
      return;
    }
    this.#waiting += 1;
    this.#waitingOf.set(type, alike + 1);
    this.#host.work(this, message, wireBytes, () => {
      this.#waiting -= 1;
      this.#waitingOf.set(type, (this.#waitingOf.get(type) ?? 1) - 1);
    });
  }

  /** The second link carries the same messages; answers go by the first. A newer one replaces it. */
  #attachSecond(link: Link): LinkHandlers {
    if (this.#stage !== "open") {
      link.close("The session is over");
      return { message: () => undefined, closed: () => undefined };
    }
    for (const other of [...this.#links.keys()].filter((one) => one !== this.first)) {
      other.close("A newer link replaces this one");
    }
    this.#links.set(link, { up: 0, down: 0, heard: 0, silentBeats: 0 });
    return {
      message: (bytes) => this.#receive(link, bytes),
      closed: () => {
        this.#count(link);
        this.#links.delete(link);
      },
    };
  }

  #end(leave: boolean, reason = "The link ended"): void {
    if (this.#stage === "gone") {
      return;
    }
    this.#stage = "gone";
    for (const link of this.#links.keys()) {
      link.close(reason);
      this.#count(link);
    }
    this.#links.clear();
    this.#host.gone(this, leave);
  }

  #count(link: Link): void {
    const counted = this.#links.get(link);
    if (counted !== undefined) {
      this.#host.traffic(link.lane, link.bytesReceived - counted.up, link.bytesSent - counted.down);
      counted.up = link.bytesReceived;
      counted.down = link.bytesSent;
    }
  }
}

/** Updates are not counted as messages as long as they are of use. */
function isUpdate({ type }: ContributorMessage): boolean {
  return type === "contribute" || type === "piece";
}
