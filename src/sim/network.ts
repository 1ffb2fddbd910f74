/**
 * The simulated network: links between processes on the virtual clock, with every fault a link may show. A message may take
 * long, so that messages of different links overtake each other; a sender may send twice; a link may break in the middle of
 * anything; a dial may fail. Within one link order is kept, as `Link` promises. A process may have a rate each way, which
 * all that it sends and receives shares: messages that fit one frame go between the frames of larger ones and of blobs, which
 * take their turns. The relay's own rate is infinite, and so is everyone's who has none.
 */
import { assert, HeddleError } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import { digestOf } from "../base/bytes.ts";
import { sleep, type Clock } from "../base/clock.ts";
import type { Rng } from "../base/rng.ts";
import { createMemoryPair } from "../net/memory.ts";
import { SMALL_BYTES_MAX, type Attach, type Link } from "../net/link.ts";
import type { Process } from "./process.ts";

export interface NetworkFaults {
  /** Each message takes up to this long. */
  readonly delayMsMax: number;
  /** Chance that a link breaks with a message. */
  readonly breakShare: number;
  /** Chance that a message is sent twice. */
  readonly duplicateShare: number;
  /** Chance that a dial or a download fails. */
  readonly failShare: number;
}

/** How fast a process is connected, more than 0; delays are the network's. */
export interface Rates {
  readonly upBytesPerS: number;
  readonly downBytesPerS: number;
}

/** Which way bytes go, seen from the one that dialled. */
export type Way = "up" | "down";

/** What crosses the network, told when it is sent: a message, or a blob's request on its way up and answer on its way down. */
export interface Crossing {
  /** The process that dialled. */
  readonly process: Process;
  readonly way: Way;
  /** What it weighs. */
  readonly bytes: number;
  /** Null for messages. */
  readonly blob: Digest | null;
}

export interface NetworkOptions {
  /** The rate of the process that dials; none is infinite. */
  readonly ratesOf?: (process: Process) => Rates | undefined;
  /** What a message or blob weighs on the wire; by default its length. */
  readonly weigh?: (bytes: Bytes, what: "message" | "blob", way: Way) => number;
  /** What asking for a blob and being answered weighs beside it. */
  readonly request?: { readonly upBytes: number; readonly downBytes: number };
  readonly onCrossing?: (crossing: Crossing) => void;
}

/** A process that takes links and serves blobs; null while it is down. */
export interface Listener {
  readonly process: Process;
  readonly attach: Attach;
  readonly blob: (digest: Digest) => Promise<Bytes | undefined>;
}

/** What passes on one end of a link, for observers and for liars. */
export interface Tap {
  /** The messages that really go out in place of one. */
  readonly sent?: (bytes: Bytes) => readonly Bytes[];
  readonly received?: (bytes: Bytes) => void;
}

export interface Network {
  listener: Listener | null;
  /** Second links that a relay has agreed to, by their offers. */
  readonly offers: Map<string, Pick<Listener, "process" | "attach">>;
  /** While false, no message is duplicated and no link breaks: for the quiet end of a run. */
  faulty: boolean;
  dial(from: Process, attach: Attach, tap: Tap): Promise<Link>;
  /** Opens the second link that was agreed to for `offer`. */
  open(from: Process, offer: string, ends: { readonly attach: Attach; readonly tap: Tap }): Promise<Link>;
  fetchBlob(from: Process, digest: Digest, bytesMax: number): Promise<Bytes>;
}

interface Ends {
  readonly from: Process;
  readonly to: Pick<Listener, "process" | "attach">;
  readonly attach: Attach;
  readonly tap: Tap;
}

export function createNetwork(clock: Clock, rng: Rng, faults: NetworkFaults, options: NetworkOptions = {}): Network {
  const { weigh = (bytes) => bytes.length, request = { upBytes: 0, downBytes: 0 }, onCrossing } = options;
  const pipes = createPipes(clock, options.ratesOf ?? (() => undefined));
  const chance = (share: number): boolean => network.faulty && rng.float() < share;
  const delayMs = (): number => rng.below(faults.delayMsMax + 1);
  const network: Network = {
    listener: null,
    offers: new Map(),
    faulty: true,
    dial: async (from, attach, tap) => {
      await sleep(from.clock, delayMs());
      const to = network.listener;
      if (to === null || chance(faults.failShare)) {
        throw new HeddleError("unreachable", "The relay cannot be reached");
      }
      return connect({ from, to, attach, tap });
    },
    open: async (from, offer, ends) => {
      await sleep(from.clock, delayMs());
      const to = network.offers.get(offer);
      if (to?.process.alive !== true || chance(faults.failShare)) {
        throw new HeddleError("unreachable", "The second link cannot be opened");
      }
      return connect({ from, to, ...ends });
    },
    fetchBlob: async (from, digest, bytesMax) => {
      onCrossing?.({ process: from, way: "up", bytes: request.upBytes, blob: digest });
      await sleep(from.clock, pipes.take(from, "up", { bytes: request.upBytes, urgent: true }) + delayMs());
      const listener = chance(faults.failShare) ? null : network.listener;
      const bytes = await listener?.blob(digest);
      const weight = request.downBytes + (bytes === undefined ? 0 : weigh(bytes, "blob", "down"));
      onCrossing?.({ process: from, way: "down", bytes: weight, blob: digest });
      await sleep(from.clock, pipes.take(from, "down", { bytes: weight, urgent: false }) + delayMs());
      if (bytes === undefined || bytes.length > bytesMax) {
        const code = listener === null ? "unreachable" : "absent";
        throw new HeddleError(code, `Cannot fetch ${digest}: the relay does not serve it now`);
      }
      if (digestOf(bytes) !== digest) {
        throw new HeddleError("integrity", `Cannot fetch ${digest}: the bytes have another digest`);
      }
      return bytes;
    },
  };
  const doubled = (bytes: Bytes): readonly Bytes[] => (chance(faults.duplicateShare) ? [bytes, bytes] : [bytes]);

  const connect = ({ from, to, attach, tap }: Ends): Link => {
    let mine: Link | undefined;
    const client: Tap = { ...tap, sent: (bytes) => (tap.sent?.(bytes) ?? [bytes]).flatMap(doubled) };
    const arrivals = { a: 0, b: 0 };
    /** Of what goes between others' frames. */
    const quickArrivals = { a: 0, b: 0 };
    const pair = createMemoryPair({
      attachA: (link) => {
        mine = tapped(link, client, from);
        return handlersOf(attach(mine), client, from);
      },
      attachB: (link) => handlersOf(to.attach(tapped(link, { sent: doubled }, to.process)), {}, to.process),
      schedule: (passage, arrive) => {
        const way = passage.from === "a" ? "up" : "down";
        const weight = passage.message === null ? 0 : weigh(passage.message, "message", way);
        if (passage.message !== null) {
          onCrossing?.({ process: from, way, bytes: weight, blob: null });
        }
        const urgent = passage.bytes <= SMALL_BYTES_MAX;
        const onWayMs = pipes.take(from, way, { bytes: weight, urgent });
        // Later messages of a direction arrive no earlier than earlier ones.
        const order = urgent && pipes.has(from) ? quickArrivals : arrivals;
        const atMs = Math.max(order[passage.from], clock.nowMs() + onWayMs + delayMs());
        order[passage.from] = atMs;
        clock.after(atMs - clock.nowMs(), arrive);
        if (chance(faults.breakShare)) {
          clock.after(delayMs(), () => pair.cut("The link broke"));
        }
      },
    });
    // A machine that dies says nothing; its peer notices when the connection is reset.
    from.onKill(() => clock.after(delayMs(), () => pair.cut("The connection was reset")));
    to.process.onKill(() => clock.after(delayMs(), () => pair.cut("The connection was reset")));
    return mine as Link;
  };
  return network;
}

interface Pipes {
  /** Milliseconds until `bytes` that are handed over now are through; `urgent` ones wait only for others of their kind. */
  take(process: Process, way: Way, load: { readonly bytes: number; readonly urgent: boolean }): number;
  /** Whether the process has a rate. */
  has(process: Process): boolean;
}

/** When a line is free again: for what is urgent, and for all else. */
interface Line {
  urgentMs: number;
  restMs: number;
}

/** Each process's line, both ways. */
function createPipes(clock: Clock, ratesOf: (process: Process) => Rates | undefined): Pipes {
  const lines = new WeakMap<Process, Record<Way, Line>>();
  const linesOf = (process: Process): Record<Way, Line> => {
    const made = lines.get(process) ?? { up: { urgentMs: 0, restMs: 0 }, down: { urgentMs: 0, restMs: 0 } };
    lines.set(process, made);
    return made;
  };
  return {
    has: (process) => ratesOf(process) !== undefined,
    take: (process, way, { bytes, urgent }) => {
      const rates = ratesOf(process);
      if (rates === undefined) {
        return 0;
      }
      const rate = way === "up" ? rates.upBytesPerS : rates.downBytesPerS;
      assert(rate > 0, `Cannot send at ${rate} bytes a second: need more than 0`);
      const takesMs = (1_000 * bytes) / rate;
      const line = linesOf(process)[way];
      const nowMs = clock.nowMs();
      const rest = Math.max(nowMs, line.restMs) + takesMs; // what is urgent pushes the others back
      line.restMs = rest;
      if (!urgent) {
        return rest - nowMs;
      }
      line.urgentMs = Math.max(nowMs, line.urgentMs) + takesMs;
      return line.urgentMs - nowMs;
    },
  };
}

/** What a process holds of a link; a dead process sends nothing. */
function tapped(link: Link, { sent }: Tap, process: Process): Link {
  return {
    lane: link.lane,
    send: (bytes) => {
      for (const each of process.alive ? (sent?.(bytes) ?? [bytes]) : []) {
        link.send(each);
      }
    },
    drained: () => link.drained(),
    get bytesSent() {
      return link.bytesSent;
    },
    get bytesReceived() {
      return link.bytesReceived;
    },
    close: (reason) => {
      if (process.alive) {
        link.close(reason);
      }
    },
  };
}

/** A dead process hears nothing. */
function handlersOf(handlers: ReturnType<Attach>, { received }: Tap, process: Process): ReturnType<Attach> {
  return {
    message: (bytes) => {
      if (process.alive) {
        received?.(bytes);
        handlers.message(bytes);
      }
    },
    closed: (reason) => {
      if (process.alive) {
        handlers.closed(reason);
      }
    },
  };
}
