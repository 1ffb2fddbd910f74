/**
 * Links over the bus between relays: an *edge*, a relay that does not lead, takes contributors' links and carries their messages
 * to the leader, to whose host they are links like any other. Each is a framed link (`framed-link.ts`), with its windows, its
 * limits and its last word, over the bus as its lane; many share two subjects, `lead.<epoch>` and `edge.<edge>.<epoch>`. The
 * epoch is that of the leader's lease: nothing that a deposed leader still says is heard by an edge of the next one.
 *
 * A bus may lose messages. Frames are numbered, and a link with a gap ends; a frame for a link that is unknown is answered with
 * its end; an interrupted bus ends all. A dead edge is noticed as a dead contributor is: by the silence of its sessions.
 *
 * In front of every message on the bus, little-endian: u8 version 1, u8 kind (below), u16 0, u32 link (counted by the edge),
 * u32 sequence (counts the frames of this link and direction), 12 bytes that name the edge. Relays trust each other: who reaches
 * the bus reaches the relay's key in the store beside it. Malformed messages are dropped.
 */
import { HeddleError } from "../base/assert.ts";
import { concatBytes, toHex, type Bytes } from "../base/bytes.ts";
import { createCounts } from "../base/counts.ts";
import { FRAME_BYTES_MAX, SDP_CHARS_MAX } from "../protocol/limits.ts";
import { publishIfThere, type Bus } from "../store/bus.ts";
import { createFramedLink, type FramedEnd } from "./framed-link.ts";
import { REASON_BYTES_MAX } from "./frames.ts";
import type { Attach, Lane, Link, LinkHandlers } from "./link.ts";

const VERSION = 1;
const HEADER_BYTES = 24;
const EDGE_BYTES = 12;
/**
 * A link begins; the body is its lane (u8), 3 zeros, the offer of a second link that it answers (u32, 0: none), and the prefix of the
 * network that it came from, in UTF-8; none where it is this machine's own.
 */
const KIND_OPEN = 1;
/** One frame. */
const KIND_FRAME = 2;
/** There is no such link here (any more); the body says why. */
const KIND_END = 3;
/** From an edge: it has served blobs; the body is how many bytes (f64). */
const KIND_SERVED = 4;
const OPEN_BYTES = 8;
const PREFIX_BYTES_MAX = 64;

const LANES: readonly Lane[] = ["memory", "ws", "rtc"];
/** An edge's answer to an offer. */
const ANSWER_MS = 10_000;

/** Answers an offer of a second link and attaches it when it opens. */
export type AnswerRtc = (sdp: string, attach: Attach) => Promise<string>;

/** Attaches a first link from a network with this prefix; null for a machine of the relays' own. */
export type AttachFrom = (link: Link, from: { readonly prefix: string | null }) => LinkHandlers;

interface Header {
  readonly kind: number;
  readonly link: number;
  readonly sequence: number;
  readonly edge: Bytes;
}

/** One end of one link on the bus. */
class BusLine {
  readonly end: FramedEnd;
  #sent = 0;
  #taken = 0;

  constructor(options: {
    readonly lane: Lane;
    readonly attach: Attach;
    readonly messageBytesMax?: number;
    /** Publishes the frame with this number. */
    readonly publish: (sequence: number, frame: Bytes) => void;
    readonly forget: () => void;
  }) {
    const { lane, attach, publish, forget, ...limits } = options;
    const send = (frame: Bytes): void => {
      publish(this.#sent, frame);
      this.#sent = (this.#sent + 1) >>> 0;
    };
    this.end = createFramedLink({ channel: { lane, send, close: forget }, attach, ...limits });
  }

  receive(sequence: number, frame: Uint8Array): void {
    if (sequence !== this.#taken) {
      this.end.link.close("A message between two relays was lost");
      return;
    }
    this.#taken = (this.#taken + 1) >>> 0;
    this.end.receive(frame);
  }
}

export interface BusLinkOptions {
  readonly bus: Bus;
  /** Of the leader's lease. */
  readonly epoch: number;
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
}

export interface EdgeOptions extends BusLinkOptions {
  /** Names this edge: EDGE_BYTES random bytes. */
  readonly edge: Bytes;
  readonly answerRtc: AnswerRtc;
}

export interface Edge {
  /** Carries what a contributor's link brings to the leader, and back, until either end closes. */
  readonly attach: AttachFrom;
  /** Tells the leader of bytes that were served beside the links. */
  countServed(bytes: number): void;
  /** Ends all links with `reason`, and takes no more. */
  close(reason: string): void;
}

/** Begins to carry links to the leader of `epoch`. Throws HeddleError "limit" for a bus that cannot carry a frame. */
export async function openEdge(options: EdgeOptions): Promise<Edge> {
  const { bus, epoch, edge, answerRtc } = options;
  const limits = limitsOf(options);
  checkBus(bus);
  const lines = new Map<number, BusLine>();
  const toLeader = `lead.${epoch}`;
  let made = 0;
  let open = true;

  const begin = (link: Link, offer: number, prefix: string | null): LinkHandlers => {
    made = (made + 1) >>> 0;
    const id = made;
    const publish = (kind: number, sequence: number, body: Uint8Array): void =>
      bus.publish(toLeader, encode({ kind, link: id, sequence, edge }, body));
    try {
      if (!open) {
        throw new HeddleError("unreachable", "the leader has changed");
      }
      publish(KIND_OPEN, 0, openBody({ lane: link.lane, offer, prefix }));
    } catch {
      link.close("The relay cannot reach the one that leads this run; come back");
      return { message: () => undefined, closed: () => undefined };
    }
    const line = new BusLine({
      lane: link.lane,
      attach: () => ({ message: (bytes) => link.send(bytes), closed: (reason) => link.close(reason) }),
      ...limits,
      publish: (sequence, frame) => publish(KIND_FRAME, sequence, frame),
      forget: () => lines.delete(id),
    });
    lines.set(id, line);
    return {
      message: (bytes) => line.end.link.send(bytes),
      arriving: () => line.end.stir(), // else the leader takes a slow one for dead: it hears of whole messages only
      closed: (reason) => line.end.link.close(reason),
    };
  };

  const take = (message: Bytes): void => {
    const read = decode(message);
    const line = read === null ? undefined : lines.get(read.header.link);
    if (read?.header.kind === KIND_END) {
      line?.end.ended(textOf(read.body));
    } else if (read?.header.kind === KIND_FRAME && line !== undefined) {
      line.receive(read.header.sequence, read.body);
    } else if (read?.header.kind === KIND_FRAME) {
      tell(bus, toLeader, { ...read.header, edge }, "The link has ended at the edge");
    }
  };
  const answer = async (request: Bytes): Promise<Bytes> => {
    const { offer, sdp } = readOffer(request);
    return new TextEncoder().encode(await answerRtc(sdp, (link) => begin(link, offer, null)));
  };
  const mine = `edge.${toHex(edge)}.${epoch}`;
  const unsubscribe = [await bus.subscribe(mine, take)];
  try {
    unsubscribe.push(await bus.answer(`${mine}.offer`, answer));
  } catch (error) {
    unsubscribe.forEach((end) => end()); // else it would end the links of the next one with this name
    throw error;
  }
  unsubscribe.push(bus.onInterrupt((reason) => endAll(lines, reason)));
  return {
    attach: (link, { prefix }) => begin(link, 0, prefix),
    countServed: (bytes) => {
      const body = new Uint8Array(Float64Array.of(bytes).buffer);
      bus.publish(toLeader, encode({ kind: KIND_SERVED, link: 0, sequence: 0, edge }, body));
    },
    close: (reason) => {
      open = false;
      for (const line of lines.values()) {
        line.end.link.close(reason);
      }
      unsubscribe.splice(0).forEach((end) => end());
    },
  };
}

export interface EdgeAcceptorOptions extends BusLinkOptions {
  /** Attaches a contributor's first link. */
  readonly attach: AttachFrom;
  /** Links of all edges, second ones included. */
  readonly linksMax: number;
  /** An edge has served so many bytes beside its links. */
  readonly onServed: (bytes: number) => void;
}

export interface EdgeAcceptor {
  /** What answers an offer that came over `link`: the edge that has the other end; undefined when none has. */
  answererOf(link: Link): AnswerRtc | undefined;
  links(): number;
  /** That have links here. */
  edges(): number;
  /** Closes every link with `reason`, and takes no more. */
  close(reason: string): void;
}

/** Takes the links that edges carry to this leader. Throws HeddleError "limit" for a bus that cannot carry a frame. */
export async function acceptEdges(options: EdgeAcceptorOptions): Promise<EdgeAcceptor> {
  const { bus, epoch, attach, linksMax, onServed } = options;
  const limits = limitsOf(options);
  checkBus(bus);
  const lines = new Map<string, BusLine>();
  /** Links of each edge. */
  const linksOf = createCounts();
  const edges = new WeakMap<Link, { readonly edge: Bytes; offer: number }>();
  /** By edge and number: whose second link it will be. At most one a link. */
  const offers = new Map<string, Attach>();
  let offered = 0;

  const begin = (header: Header, { lane, offer, prefix }: Opening): void => {
    const name = nameOf(header.edge, header.link);
    const toEdge = subjectOf(header.edge, epoch);
    const asked = nameOf(header.edge, offer);
    const taker: Attach | undefined = offer === 0 ? (link) => attach(link, { prefix }) : offers.get(asked);
    offers.delete(asked);
    if (taker === undefined || lines.size >= linksMax || lines.has(name)) {
      const why = taker === undefined ? "The session is over" : "The relay has no room for more sessions";
      tell(bus, toEdge, header, why);
      return;
    }
    let ended = false; // who attaches it may close it at once: then it is not kept
    const line = new BusLine({
      lane,
      attach: (link) => {
        edges.set(link, { edge: header.edge, offer: 0 });
        const handlers = taker(link);
        return {
          message: handlers.message,
          closed: (reason) => {
            offers.delete(nameOf(header.edge, edges.get(link)?.offer ?? 0));
            handlers.closed(reason);
          },
        };
      },
      ...limits,
      publish: (sequence, frame) => bus.publish(toEdge, encode({ ...header, kind: KIND_FRAME, sequence }, frame)),
      forget: () => {
        ended = true;
        if (lines.delete(name)) {
          linksOf.remove(toHex(header.edge));
        }
      },
    });
    if (!ended) {
      lines.set(name, line);
      linksOf.add(toHex(header.edge));
    }
  };

  const take = (message: Bytes): void => {
    const read = decode(message);
    if (read === null) {
      return;
    }
    const { header, body } = read;
    const line = lines.get(nameOf(header.edge, header.link));
    switch (header.kind) {
      case KIND_OPEN: {
        const opening = readOpening(body);
        return opening === null ? undefined : begin(header, opening);
      }
      case KIND_FRAME:
        return line === undefined
          ? tell(bus, subjectOf(header.edge, epoch), header, "The link has ended at the leader")
          : line.receive(header.sequence, body);
      case KIND_END:
        return line?.end.ended(textOf(body));
      case KIND_SERVED: {
        const bytes = body.length === 8 ? new DataView(body.buffer, body.byteOffset).getFloat64(0, true) : 0;
        return Number.isSafeInteger(bytes) && bytes > 0 ? onServed(bytes) : undefined;
      }
      default: // of a newer relay
    }
  };

  const unsubscribe = [await bus.subscribe(`lead.${epoch}`, take)];
  unsubscribe.push(bus.onInterrupt((reason) => endAll(lines, reason)));
  return {
    answererOf: (link) => {
      const from = edges.get(link);
      if (from === undefined) {
        return undefined;
      }
      return async (sdp, second) => {
        offers.delete(nameOf(from.edge, from.offer)); // a newer offer takes its place
        offered = (offered + 1) >>> 0 || 1;
        from.offer = offered;
        offers.set(nameOf(from.edge, offered), second);
        const request = concatBytes([new Uint8Array(Uint32Array.of(offered).buffer), new TextEncoder().encode(sdp)]);
        return new TextDecoder().decode(await bus.request(`${subjectOf(from.edge, epoch)}.offer`, request, ANSWER_MS));
      };
    },
    links: () => lines.size,
    edges: () => linksOf.size,
    close: (reason) => {
      for (const line of lines.values()) {
        line.end.link.close(reason);
      }
      unsubscribe.splice(0).forEach((end) => end());
    },
  };
}

/** A name for an edge that no other has. */
export function randomEdge(): Bytes {
  return crypto.getRandomValues(new Uint8Array(EDGE_BYTES));
}

function checkBus({ payloadBytesMax }: Bus): void {
  if (payloadBytesMax < FRAME_BYTES_MAX + HEADER_BYTES) {
    throw new HeddleError(
      "limit",
      `Cannot carry links between relays: the bus takes messages of ${payloadBytesMax} bytes, need ${FRAME_BYTES_MAX + HEADER_BYTES} (max_payload of nats-server)`,
    );
  }
}

function endAll(lines: ReadonlyMap<unknown, BusLine>, reason: string): void {
  for (const line of lines.values()) {
    line.end.ended(reason);
  }
}

/** A bus that is away has ended all links anyway. */
function tell(bus: Bus, subject: string, header: Header, reason: string): void {
  const body = new TextEncoder().encode(reason).subarray(0, REASON_BYTES_MAX);
  publishIfThere(bus, subject, encode({ ...header, kind: KIND_END }, body));
}

function subjectOf(edge: Bytes, epoch: number): string {
  return `edge.${toHex(edge)}.${epoch}`;
}

function nameOf(edge: Bytes, number: number): string {
  return `${toHex(edge)} ${number}`;
}

function encode({ kind, link, sequence, edge }: Header, body: Uint8Array): Bytes {
  const message = new Uint8Array(HEADER_BYTES + body.length);
  const view = new DataView(message.buffer);
  view.setUint8(0, VERSION);
  view.setUint8(1, kind);
  view.setUint32(4, link, true);
  view.setUint32(8, sequence, true);
  message.set(edge, 12);
  message.set(body, HEADER_BYTES);
  return message;
}

/** `body` is a view of `message`. */
function decode(message: Bytes): { readonly header: Header; readonly body: Uint8Array } | null {
  if (message.length < HEADER_BYTES || message.length > HEADER_BYTES + FRAME_BYTES_MAX || message[0] !== VERSION) {
    return null;
  }
  const view = new DataView(message.buffer, message.byteOffset);
  const [link, sequence] = [view.getUint32(4, true), view.getUint32(8, true)];
  const edge = message.slice(12, HEADER_BYTES);
  return { header: { kind: view.getUint8(1), link, sequence, edge }, body: message.subarray(HEADER_BYTES) };
}

interface Opening {
  readonly lane: Lane;
  readonly offer: number;
  readonly prefix: string | null;
}

function openBody({ lane, offer, prefix }: Opening): Bytes {
  const from = new TextEncoder().encode(prefix ?? "");
  const body = new Uint8Array(OPEN_BYTES + from.length);
  body[0] = LANES.indexOf(lane);
  new DataView(body.buffer).setUint32(4, offer, true);
  body.set(from, OPEN_BYTES);
  return body;
}

function readOpening(body: Uint8Array): Opening | null {
  const lane = LANES[body[0] ?? LANES.length];
  if (body.length < OPEN_BYTES || body.length > OPEN_BYTES + PREFIX_BYTES_MAX || lane === undefined) {
    return null;
  }
  const offer = new DataView(body.buffer, body.byteOffset).getUint32(4, true);
  return { lane, offer, prefix: new TextDecoder().decode(body.subarray(OPEN_BYTES)) || null };
}

function limitsOf({ messageBytesMax }: BusLinkOptions): { readonly messageBytesMax?: number } {
  return messageBytesMax === undefined ? {} : { messageBytesMax };
}

/** Throws HeddleError "bad-input" for what is no offer: then there is no answer either. */
function readOffer(request: Bytes): { readonly offer: number; readonly sdp: string } {
  if (request.length < 4 || request.length > 4 + SDP_CHARS_MAX * 4) {
    throw new HeddleError("bad-input", `Cannot read an offer: got ${request.length} bytes`);
  }
  const offer = new DataView(request.buffer, request.byteOffset).getUint32(0, true);
  return { offer, sdp: new TextDecoder().decode(request.subarray(4)) };
}

function textOf(body: Uint8Array): string {
  return new TextDecoder().decode(body.subarray(0, REASON_BYTES_MAX)) || "The link between two relays ended";
}
