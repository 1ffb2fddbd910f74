/**
 * A link of the page, used from a worker: RTCPeerConnection exists in pages only, the training lives in a worker. The page's end
 * (`serveLink`, called by the `attach` of its dial) and the worker's end (`linkFromPort`) talk over a MessagePort. Messages are
 * transferred from the page, and copied once towards it, because a sender may want to send them again elsewhere. Over the same port
 * a worker has the page dial or answer (`dialRtcFromWorker`, `answerRtcFromWorker`, `serveRtc`).
 */
import { HeddleError, messageIn } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { MESSAGE_BYTES_MAX } from "../protocol/limits.ts";
import { checkMessageBytes, type Attach, type Lane, type Link, type LinkHandlers } from "./link.ts";
import type { AnswerRtcOptions, DialRtcOptions } from "./rtc-browser.ts";

interface Counters {
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

type ToWorker =
  | { readonly type: "message"; readonly bytes: Bytes; readonly counters: Counters }
  /** `upTo`: how many bytes of messages the page's link has nearly finished sending. */
  | { readonly type: "progress"; readonly upTo: number; readonly counters: Counters }
  | { readonly type: "taken" }
  | { readonly type: "closed"; readonly reason: string }
  | { readonly type: "offer"; readonly sdp: string }
  | { readonly type: "accepted"; readonly sdp: string }
  | { readonly type: "opened" }
  | { readonly type: "failed"; readonly sentence: string };

type ToPage =
  | { readonly type: "send"; readonly bytes: Bytes }
  | { readonly type: "close"; readonly reason: string }
  | ({ readonly type: "dial" } & Required<Omit<DialRtcOptions, "exchange" | "attach">>)
  | ({ readonly type: "accept" } & Required<Omit<AnswerRtcOptions, "attach">>)
  | { readonly type: "answer"; readonly sdp: string }
  | { readonly type: "noAnswer"; readonly sentence: string };

/** How often a worker hears of bytes sent while an upload is under way. */
const PROGRESS_MS = 250;

/** The page's end: the handlers of `link` that forward it to the worker at the other port, and the worker's messages to it. */
export function serveLink(link: Link, port: MessagePort): LinkHandlers {
  let taken = 0;
  let finished = 0;
  let timer: ReturnType<typeof setInterval> | undefined;
  const counters = (): Counters => ({ bytesSent: link.bytesSent, bytesReceived: link.bytesReceived });
  const report = (): void => tell(port, { type: "progress", upTo: finished, counters: counters() });
  const take = (bytes: Bytes): void => {
    taken += bytes.length;
    const upTo = taken;
    link.send(bytes);
    timer ??= setInterval(report, PROGRESS_MS);
    void link.drained().then(() => {
      finished = upTo;
      if (finished === taken) {
        clearInterval(timer);
        timer = undefined;
      }
      report();
    });
  };
  port.onmessage = ({ data }: MessageEvent<ToPage>) => {
    if (data.type === "send") {
      take(data.bytes);
    } else if (data.type === "close") {
      link.close(data.reason);
    }
  };
  return {
    message: (bytes) => tell(port, { type: "message", bytes, counters: counters() }, [bytes.buffer]),
    taken: () => tell(port, { type: "taken" }),
    closed: (reason) => {
      clearInterval(timer);
      tell(port, { type: "closed", reason });
      port.close();
    },
  };
}

export interface PortLinkOptions {
  readonly lane?: Lane;
  /** Largest message, either way; the page's link must carry as much. */
  readonly messageBytesMax?: number;
}

/** The worker's end of a link that the page serves at the other port, now or soon: what is sent before waits there. */
export function linkFromPort(
  port: MessagePort,
  attach: Attach,
  { lane = "rtc", messageBytesMax = MESSAGE_BYTES_MAX }: PortLinkOptions = {},
): Link {
  const link = new PortLink(port, lane, messageBytesMax);
  link.attach(attach);
  return link;
}

class PortLink implements Link {
  readonly lane: Lane;
  bytesSent = 0;
  bytesReceived = 0;
  readonly #port: MessagePort;
  readonly #messageBytesMax: number;
  #handlers: LinkHandlers | undefined;
  #closedReason: string | undefined;
  /** Not known to be below the page's own mark: one here, too, would come on top of that. */
  #waitingBytes = 0;
  #postedBytes = 0;
  #drainWaiters: (() => void)[] = [];

  constructor(port: MessagePort, lane: Lane, messageBytesMax: number) {
    this.#port = port;
    this.lane = lane;
    this.#messageBytesMax = messageBytesMax;
  }

  attach(attach: Attach): void {
    this.#handlers = attach(this);
    if (this.#closedReason !== undefined) {
      this.#handlers.closed(this.#closedReason);
    }
    this.#port.onmessage = ({ data }: MessageEvent<ToWorker>) => this.#receive(data);
  }

  send(bytes: Bytes): void {
    checkMessageBytes(bytes.length, this.#messageBytesMax);
    if (this.#closedReason !== undefined) {
      return;
    }
    this.#postedBytes += bytes.length;
    this.#waitingBytes += bytes.length;
    const copy = new Uint8Array(bytes);
    ask(this.#port, { type: "send", bytes: copy }, [copy.buffer]);
  }

  drained(): Promise<void> {
    if (this.#waitingBytes === 0 || this.#closedReason !== undefined) {
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#drainWaiters.push(resolve);
    });
  }

  close(reason: string): void {
    if (this.#closedReason === undefined) {
      ask(this.#port, { type: "close", reason });
      this.#end(reason);
    }
  }

  #end(reason: string): void {
    this.#closedReason = reason;
    this.#waitingBytes = 0;
    this.#wakeDrained();
    this.#handlers?.closed(reason);
  }

  #receive(told: ToWorker): void {
    if (told.type === "closed") {
      this.#port.close();
    }
    if (this.#closedReason !== undefined) {
      return;
    }
    if (told.type === "closed") {
      this.#end(told.reason);
    } else if (told.type === "message") {
      this.#count(told.counters);
      this.#handlers?.message(told.bytes);
    } else if (told.type === "taken") {
      this.#handlers?.taken?.();
    } else if (told.type === "progress") {
      this.#count(told.counters);
      this.#waitingBytes = this.#postedBytes - told.upTo;
      if (this.#waitingBytes === 0) {
        this.#wakeDrained();
      }
    }
  }

  #count({ bytesSent, bytesReceived }: Counters): void {
    this.bytesSent = bytesSent;
    this.bytesReceived = bytesReceived;
  }

  #wakeDrained(): void {
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const wake of waiters) {
      wake();
    }
  }
}

/** What a page can do for a worker: `dialRtc` and `answerRtc`. */
export interface PageRtc {
  readonly dial: (options: DialRtcOptions) => Promise<Link>;
  readonly answer: (options: AnswerRtcOptions) => Promise<string>;
}

/** In the page: dials or answers when the worker at the other port asks for it, and serves the link to it. */
export function serveRtc(port: MessagePort, rtc: PageRtc): void {
  const answer = Promise.withResolvers<string>();
  answer.promise.catch(() => undefined); // the dial reports it, if it still waits
  const exchange = (sdp: string): Promise<string> => {
    tell(port, { type: "offer", sdp });
    return answer.promise;
  };
  const fail = (error: unknown): void => {
    tell(port, { type: "failed", sentence: messageIn(error) });
    port.close();
  };
  const attach: Attach = (link) => {
    tell(port, { type: "opened" });
    return serveLink(link, port);
  };
  port.onmessage = ({ data }: MessageEvent<ToPage>) => {
    if (data.type === "dial") {
      const { type: _, ...options } = data;
      rtc.dial({ ...options, exchange, attach }).catch(fail);
    } else if (data.type === "accept") {
      const { type: _, ...options } = data;
      rtc.answer({ ...options, attach }).then((sdp) => tell(port, { type: "accepted", sdp }), fail);
    } else if (data.type === "answer") {
      answer.resolve(data.sdp);
    } else if (data.type === "noAnswer") {
      answer.reject(new Error(data.sentence));
    }
  };
}

/** In the worker: what `dialRtc` is in the page, through a page that calls `serveRtc` with the other port. */
export function dialRtcFromWorker(port: MessagePort, options: DialRtcOptions): Promise<Link> {
  const { exchange, attach, timeoutMs = 10_000, iceServers = [], gathers = false } = options;
  const { messageBytesMax = MESSAGE_BYTES_MAX } = options;
  return new Promise((resolve, reject) => {
    const fail = (sentence: string): void => {
      clearTimeout(timer);
      port.close();
      reject(new HeddleError("unreachable", sentence));
    };
    // The page gives up by itself; this is for a page that does not answer at all.
    const timer = setTimeout(() => fail("Cannot dial over WebRTC: the page does not answer"), 2 * timeoutMs);
    port.onmessage = ({ data }: MessageEvent<ToWorker>) => {
      if (data.type === "offer") {
        exchange(data.sdp).then(
          (sdp) => ask(port, { type: "answer", sdp }),
          (error: unknown) => ask(port, { type: "noAnswer", sentence: messageIn(error) }),
        );
      } else if (data.type === "opened") {
        clearTimeout(timer);
        resolve(linkFromPort(port, attach, { messageBytesMax }));
      } else if (data.type === "failed") {
        fail(data.sentence);
      }
    };
    ask(port, { type: "dial", timeoutMs, iceServers, gathers, messageBytesMax });
  });
}

/** In the worker: what `answerRtc` is in the page, through a page that calls `serveRtc` with the other port. */
export function answerRtcFromWorker(
  port: MessagePort,
  { offerSdp, attach, timeoutMs = 10_000, iceServers = [], messageBytesMax = MESSAGE_BYTES_MAX }: AnswerRtcOptions,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const fail = (sentence: string): void => {
      clearTimeout(timer);
      port.close();
      reject(new HeddleError("bad-input", sentence));
    };
    const timer = setTimeout(() => fail("Cannot answer an offer: the page does not answer"), 2 * timeoutMs);
    port.onmessage = ({ data }: MessageEvent<ToWorker>) => {
      if (data.type === "accepted") {
        resolve(data.sdp);
      } else if (data.type === "opened") {
        clearTimeout(timer);
        linkFromPort(port, attach, { messageBytesMax });
      } else if (data.type === "failed") {
        fail(data.sentence);
      }
    };
    ask(port, { type: "accept", offerSdp, timeoutMs, iceServers, messageBytesMax });
  });
}

function tell(port: MessagePort, message: ToWorker, transfer: Transferable[] = []): void {
  port.postMessage(message, transfer);
}

function ask(port: MessagePort, message: ToPage, transfer: Transferable[] = []): void {
  port.postMessage(message, transfer);
}
