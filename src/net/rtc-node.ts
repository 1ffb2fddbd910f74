/**
 * The rtc lane on Node and Deno: `node-datachannel`'s native API, dialling and answering. Signalling is an argument: one offer, one
 * answer, no trickling (`sdp.ts` says why). The answering end serves all its connections from one UDP port.
 *
 * The library's objects are collected as garbage unless something holds them, and the process crashes afterwards: `held` keeps
 * them until they are closed. Its `send` throws, which ends the link. Nothing here calls its global `cleanup`.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import {
  PeerConnection,
  setSctpSettings,
  type DataChannel,
  type IceServer as LibrarysIceServer,
} from "node-datachannel";
import { HeddleError, messageIn } from "../base/assert.ts";
import { parseIceUrl, type IceServer } from "../protocol/ice.ts";
import { FRAME_BYTES_MAX, SESSIONS_MAX } from "../protocol/limits.ts";
import { machineAddresses } from "./addresses.ts";
import { createFramedLink, type FramedEnd } from "./framed-link.ts";
import type { Attach, Link } from "./link.ts";
import { checkSdp, withFewCandidates, withHostCandidates, withoutCandidates } from "./sdp.ts";

export interface DialRtcNodeOptions {
  /** Takes the offer to the other end and brings back its answer. */
  readonly exchange: (offerSdp: string) => Promise<string>;
  readonly attach: Attach;
  readonly timeoutMs?: number;
  /** None are needed for an answering end with an address of its own. Those reached by TCP or TLS are not used here. */
  readonly iceServers?: readonly IceServer[];
  /** Sends this end's addresses with the offer: an answering end without one of its own needs them. */
  readonly gathers?: boolean;
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
}

/** For one link between two ends neither of which has an address of its own. */
export interface AnswerRtcNodeOptions extends Pick<DialRtcNodeOptions, "attach" | "iceServers" | "messageBytesMax"> {
  /** From an end that gathers. */
  readonly offerSdp: string;
  /** A connection that has not opened by then is given up. */
  readonly timeoutMs?: number;
}

export interface RtcAnswererOptions {
  /** The UDP port; where absent a free one, and another where somebody else takes that while nobody is connected. */
  readonly port?: number;
  /** Addresses under which the port can be reached; default: those of this machine's interfaces and loopback. */
  readonly addresses?: readonly string[];
  readonly messageBytesMax?: number;
  readonly connectionsMax?: number;
  /** A connection that has not opened by then is given up. */
  readonly openMs?: number;
}

export interface RtcAnswerer {
  /** Of now. */
  readonly port: number;
  /**
   * Answers an offer; `attach` is called when the channel opens, if it ever does. Rejects with HeddleError "bad-input" for an
   * offer that cannot be used, "limit" when there are too many connections.
   */
  answer(offerSdp: string, attach: Attach): Promise<string>;
  connections(): number;
  /** Closes every link with `reason` and resolves when all connections are gone. */
  close(reason: string): Promise<void>;
}

/**
 * Of every SCTP connection of this process: where acknowledgements wait up to 20 ms, as is the library's default, senders at the end of a
 * long line with data both ways halve their speed more often though no packet was lost (`docs/benchmarks.md`, Transfers).
 */
setSctpSettings({ delayedSackTime: 1 });

export const CHANNEL_LABEL = "heddle";
/** How long a closing end waits for the other to have read its last word. */
const CLOSE_MS = 1_000;
/** How long this end's addresses are gathered; those found by then are sent. */
const GATHER_MS = 1_500;
const ENDED_STATES = ["disconnected", "failed", "closed"];

/** A peer connection and its one channel; closing happens once. */
class Connection {
  readonly pc: PeerConnection;
  readonly gone: Promise<void>;
  end: FramedEnd | undefined;
  channel: DataChannel | undefined;
  #closing = false;
  #timer: NodeJS.Timeout | undefined;
  #gone: () => void;

  constructor(config: ConstructorParameters<typeof PeerConnection>[1]) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.gone = promise;
    this.#gone = resolve;
    this.pc = new PeerConnection("heddle", { maxMessageSize: FRAME_BYTES_MAX, ...config });
    held.add(this);
    this.pc.onStateChange((state) => this.#changed(state));
  }

  /** Makes the link once the channel is open. */
  carry(channel: DataChannel, attach: Attach, messageBytesMax: number | undefined, opened: (link: Link) => void): void {
    this.channel = channel; // held, see above
    const begin = (): void => {
      if (this.end !== undefined || this.#closing) {
        return;
      }
      this.end = createFramedLink({
        channel: {
          lane: "rtc",
          copies: true,
          send: (frame) => channel.sendMessageBinary(frame),
          close: (after) => this.close(after),
        },
        attach,
        ...(messageBytesMax === undefined ? {} : { messageBytesMax }),
      });
      opened(this.end.link);
    };
    channel.onOpen(begin);
    if (channel.isOpen()) {
      begin();
    }
    channel.onError((error) => this.end?.ended(`The connection broke: ${error}`));
    channel.onClosed(() => this.#lost("The other end closed the link"));
    channel.onMessage((data) => {
      if (typeof data === "string") {
        this.end?.link.close("Cannot read a frame: got text, need bytes");
      } else {
        this.end?.receive(data instanceof ArrayBuffer ? new Uint8Array(data) : data);
      }
    });
  }

  /** Neither `close` of the library waits for what was sent: the end that reads the last word closes the connection. */
  close(after: "sent" | "now"): void {
    this.#closing = true;
    clearTimeout(this.#timer);
    if (after === "sent") {
      this.#timer = setTimeout(() => this.pc.close(), CLOSE_MS);
    } else {
      this.pc.close();
    }
  }

  #changed(state: string): void {
    if (ENDED_STATES.includes(state)) {
      this.#lost(state === "failed" ? "The connection was lost" : "The other end closed the link");
      this.close("now");
    }
    if (state === "closed") {
      clearTimeout(this.#timer);
      held.delete(this);
      this.#gone();
    }
  }

  /**
   * The library reports messages and the end through queues of their own, so the end can overtake the last words: those are
   * there within two turns of the event loop.
   */
  #lost(sentence: string): void {
    setImmediate(() => setImmediate(() => this.end?.ended(sentence)));
  }
}

/** Every connection that is not closed yet: the strong references the library needs. */
const held = new Set<Connection>();

/** Resolves when the link is open and attached; rejects with HeddleError "unreachable" when it cannot be opened in time. */
export async function dialRtcNode({
  exchange,
  attach,
  timeoutMs = 10_000,
  iceServers = [],
  gathers = false,
  messageBytesMax,
}: DialRtcNodeOptions): Promise<Link> {
  const connection = new Connection({ iceServers: iceServers.flatMap(librarysIceServer) });
  const { promise: opened, resolve, reject } = Promise.withResolvers<Link>();
  const fail = (sentence: string, cause?: unknown): void =>
    reject(new HeddleError("unreachable", `Cannot dial over WebRTC: ${sentence}`, { cause }));
  const timer = setTimeout(() => fail(`no channel opened within ${timeoutMs} ms`), timeoutMs);
  const described = gathers ? gathered(connection.pc) : localDescription(connection.pc).then(withoutCandidates);
  void described.then((sdp) => {
    exchange(sdp).then(
      (answer) => {
        try {
          checkSdp(answer, "answer");
          connection.pc.setRemoteDescription(withFewCandidates(answer), "answer");
        } catch (error) {
          fail(`the answer cannot be used: ${messageIn(error)}`, error);
        }
      },
      (error: unknown) => fail(`there was no answer: ${messageIn(error)}`, error),
    );
  });
  void connection.gone.then(() => fail("the connection was lost"));
  connection.carry(connection.pc.createDataChannel(CHANNEL_LABEL), attach, messageBytesMax, resolve);
  try {
    return await opened;
  } catch (error) {
    connection.close("now");
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Answers an offer; `attach` is called when the channel opens, if it ever does. Rejects with HeddleError "bad-input". */
export function answerRtcNode({
  offerSdp,
  attach,
  timeoutMs = 10_000,
  iceServers = [],
  messageBytesMax,
}: AnswerRtcNodeOptions): Promise<string> {
  const connection = new Connection({ iceServers: iceServers.flatMap(librarysIceServer) });
  return answerOn(connection, { offerSdp: withFewCandidates(offerSdp), attach, timeoutMs, messageBytesMax }, gathered);
}

/** Answers on a new connection with what `describe` makes of it; it is given up when no channel opens in time. */
async function answerOn(
  connection: Connection,
  options: Pick<AnswerRtcNodeOptions, "offerSdp" | "attach"> & {
    readonly timeoutMs: number;
    readonly messageBytesMax: number | undefined;
  },
  describe: (pc: PeerConnection) => Promise<string>,
): Promise<string> {
  const { offerSdp, attach, timeoutMs, messageBytesMax } = options;
  const timer = setTimeout(() => connection.close("now"), timeoutMs);
  void connection.gone.then(() => clearTimeout(timer));
  connection.pc.onDataChannel((channel) => {
    if (connection.channel === undefined) {
      connection.carry(channel, attach, messageBytesMax, () => clearTimeout(timer));
    } else {
      connection.close("now"); // a connection carries one channel; another could not be held
    }
  });
  const described = describe(connection.pc);
  try {
    checkSdp(offerSdp, "offer");
    connection.pc.setRemoteDescription(offerSdp, "offer");
  } catch (error) {
    connection.close("now");
    await connection.gone;
    throw new HeddleError("bad-input", "Cannot answer an offer: its description cannot be used", { cause: error });
  }
  const ended = connection.gone.then(() => {
    throw new HeddleError("bad-input", "Cannot answer an offer: the connection ended at once");
  });
  return Promise.race([described, ended]);
}

function localDescription(pc: PeerConnection): Promise<string> {
  return new Promise((resolve) => {
    pc.onLocalDescription(resolve);
  });
}

/** The description with this end's addresses, as many as are known in time. */
function gathered(pc: PeerConnection): Promise<string> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      const sdp = pc.state() === "closed" ? undefined : pc.localDescription()?.sdp;
      if (sdp !== undefined) {
        resolve(sdp);
      }
    };
    const timer = setTimeout(done, GATHER_MS);
    pc.onGatheringStateChange((state) => {
      if (state === "complete") {
        done();
      }
    });
  });
}

/** The library's ICE speaks to servers by UDP alone. */
function librarysIceServer({ url, username, credential }: IceServer): (LibrarysIceServer | string)[] {
  const address = parseIceUrl(url);
  if (address === null || address.transport !== "udp") {
    return [];
  }
  const { scheme, host: hostname, port } = address;
  return username === null || credential === null
    ? [`${scheme}:${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`]
    : [{ hostname, port, username, password: credential, relayType: "TurnUdp" }];
}

/** Listens for nothing by itself: offers arrive over another lane and are handed to `answer`. */
export async function createRtcAnswerer({
  port,
  addresses = machineAddresses(),
  messageBytesMax,
  connectionsMax = SESSIONS_MAX,
  openMs = 15_000,
}: RtcAnswererOptions = {}): Promise<RtcAnswerer> {
  let udpPort = port ?? (await freeUdpPort());
  const connections = new Set<Connection>();
  /** Those that were answered: while there is one, the library has the port. */
  const holding = new Set<Connection>();
  /** Under way to another port, for all whose answers have met a taken one. */
  let moving: Promise<void> | null = null;
  let closed = false;

  const answer = async (offerSdp: string, attach: Attach): Promise<string> => {
    checkSdp(offerSdp, "offer");
    if (closed || connections.size >= connectionsMax) {
      throw new HeddleError("limit", `Cannot answer an offer: at most ${connectionsMax} connections are served`);
    }
    const tried = udpPort;
    try {
      return await answerFrom(offerSdp, attach);
    } catch (error) {
      const moved = udpPort !== tried;
      if (port !== undefined || (holding.size > 0 && !moved) || closed || !isPortTaken(error)) {
        throw error;
      }
      if (!moved) {
        moving ??= move();
        await moving;
      }
      return answerFrom(offerSdp, attach);
    }
  };
  const move = async (): Promise<void> => {
    udpPort = await freeUdpPort().finally(() => {
      moving = null;
    });
  };
  const answerFrom = async (offerSdp: string, attach: Attach): Promise<string> => {
    const config = { iceServers: [], enableIceUdpMux: true, portRangeBegin: udpPort, portRangeEnd: udpPort };
    const connection = new Connection(config);
    connections.add(connection);
    void connection.gone.then(() => [connections, holding].forEach((among) => among.delete(connection)));
    const offer = { offerSdp: withoutCandidates(offerSdp), attach, timeoutMs: openMs, messageBytesMax };
    const described = await answerOn(connection, offer, localDescription);
    if (connections.has(connection)) {
      holding.add(connection);
    }
    return withHostCandidates(described, addresses, config.portRangeBegin);
  };

  return {
    get port() {
      return udpPort;
    },
    answer,
    connections: () => connections.size,
    close: async (reason) => {
      closed = true;
      const all = [...connections];
      for (const connection of all) {
        if (connection.end === undefined) {
          connection.close("now");
        } else {
          connection.end.link.close(reason);
        }
      }
      await Promise.all(all.map((connection) => connection.gone));
    },
  };
}

/** All that the library says of a port that it cannot have. */
function isPortTaken(error: unknown): boolean {
  return error instanceof HeddleError && messageIn(error.cause).includes("gather local ICE candidates");
}

/** A UDP port that nobody has now. */
export async function freeUdpPort(): Promise<number> {
  const socket = createSocket("udp4");
  socket.bind(0);
  await once(socket, "listening");
  const { port } = socket.address();
  socket.close();
  await once(socket, "close");
  return port;
}
