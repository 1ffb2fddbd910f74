/**
 * The relay's door: takes new links, lets in whom the gate lets in, tells the others when to come back, and keeps the ends of all sessions:
 * their heartbeat, their traffic.
 */
import type { Bytes, ContributorId } from "../base/bytes.ts";
import type { Lane, Link, LinkHandlers } from "../net/link.ts";
import { encodeMessage } from "../protocol/codec.ts";
import type { RelayMessage } from "../protocol/messages.ts";
import type { Gate } from "./gate.ts";
import { BUSY_RETRY_MS, type SessionId } from "./live.ts";
import { Peer, type Arrival, type PeerHost } from "./peer.ts";

/** News of a version that are sent one after the other; then whoever has heard them is answered before the next hear them. */
export const NEWS_AT_A_TIME = 64;

/** Attaches a first link, of which `arrival` says where it comes from. */
export type AttachArrival = (link: Link, arrival?: Arrival) => LinkHandlers;

/** What a door needs of a host; the rest of a `PeerHost` is its own. */
export interface DoorHost extends Omit<PeerHost, "admit"> {
  /** Whether a contributor has work here that is not answered, or a session. */
  isMember(contributor: ContributorId): boolean;
  /** Calls `wake` once after `delayMs`. */
  after(delayMs: number, wake: () => void): void;
}

type News = Extract<RelayMessage, { readonly type: "version" }>;

/** A class because its links must be closed. */
export class Door {
  readonly #gate: Gate;
  readonly #host: PeerHost;
  readonly #peers = new Map<SessionId, Peer>();
  /** The last message that was sent: a new version is one message to all. */
  #sent: { readonly message: RelayMessage; readonly bytes: Bytes } | null = null;
  /** News that wait, and how many more may be sent before the others' turn: of one version or of several. */
  readonly #news = new Map<SessionId, News>();
  #newsLeft = NEWS_AT_A_TIME;
  readonly #after: DoorHost["after"];
  #sessions = 0;
  #closed: string | null = null;

  constructor(gate: Gate, host: DoorHost) {
    this.#gate = gate;
    this.#after = (delayMs, wake) => host.after(delayMs, wake);
    this.#host = {
      ...host,
      admit: (contributor, prefix) =>
        gate.hello({ contributor, prefix, isMember: host.isMember(contributor) }, host.nowMs()),
      joined: (peer, hello) => {
        gate.proven(peer.contributor);
        host.joined(peer, hello);
      },
      gone: (peer, leave) => {
        this.#peers.delete(peer.id);
        if (peer.isAdmitted) {
          gate.left(peer.prefix, host.nowMs());
        }
        host.gone(peer, leave);
      },
    };
  }

  readonly attach: AttachArrival = (link, arrival = { prefix: null }) => {
    const { prefix } = arrival;
    const retryMs =
      this.#closed === null ? this.#gate.link(prefix, this.#peers.size, this.#host.nowMs()) : BUSY_RETRY_MS;
    if (retryMs !== null) {
      this.#host.refused("busy");
      link.send(encodeMessage({ type: "refused", reason: "busy", retryMs }));
      link.close(this.#closed ?? "The relay has no room for another session now");
      return { message: () => undefined, closed: () => undefined };
    }
    this.#sessions += 1;
    const peer = new Peer(this.#sessions, this.#host, { link, arrival });
    this.#peers.set(peer.id, peer);
    return peer.handlers();
  };

  peer(session: SessionId): Peer | undefined {
    return this.#peers.get(session);
  }

  /** Sends at once, but for news of a version: those are for all, who would wait for each other. What is sent here to one session keeps its order. */
  send(session: SessionId, message: RelayMessage): void {
    const waiting = this.#news.get(session);
    if (waiting !== undefined) {
      this.#news.delete(session);
      this.#send(session, waiting);
    }
    if (message.type === "version") {
      this.#news.set(session, message);
      this.#tellNews();
    } else {
      this.#send(session, message);
    }
  }

  #tellNews(): void {
    for (const [session, message] of this.#news) {
      if (this.#newsLeft === 0) {
        return; // the next are told when these have been
      }
      this.#news.delete(session);
      this.#send(session, message);
      this.#newsLeft -= 1;
      if (this.#newsLeft === 0) {
        this.#after(0, () => {
          this.#newsLeft = NEWS_AT_A_TIME;
          this.#tellNews();
        });
      }
    }
  }

  #send(session: SessionId, message: RelayMessage): void {
    if (this.#sent?.message !== message) {
      this.#sent = { message, bytes: encodeMessage(message) };
    }
    this.#peers.get(session)?.sendEncoded(this.#sent.bytes);
  }

  /** Open sessions by the lane that carries their updates. */
  lanes(): Readonly<Record<Lane, number>> {
    const lanes = { memory: 0, ws: 0, rtc: 0 };
    for (const peer of this.#peers.values()) {
      lanes[peer.lane] += peer.isOpen ? 1 : 0;
    }
    return lanes;
  }

  countTraffic(): void {
    this.#peers.forEach((peer) => peer.countTraffic());
  }

  /** Once in BEAT_MS. */
  beat(): void {
    this.#peers.forEach((peer) => peer.beat());
  }

  /** Closes all links with `reason` and takes no more. */
  close(reason: string): void {
    this.#closed = reason;
    this.#peers.forEach((peer) => peer.close(reason));
  }
}
