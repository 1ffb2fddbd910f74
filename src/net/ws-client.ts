/**
 * The WebSocket lane, dialling end: the standard `WebSocket` of browsers, workers, Deno and Node. The relay's address is the
 * only thing needed, so this lane always works where a page loads; it also carries the signalling of the rtc lane.
 */
import { HeddleError } from "../base/assert.ts";
import { createFramedLink, type FramedEnd } from "./framed-link.ts";
import type { Attach, Link } from "./link.ts";

export interface DialWebSocketOptions {
  /** ws:// or wss:// */
  readonly url: string;
  readonly attach: Attach;
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
  readonly timeoutMs?: number;
}

/** Close codes of RFC 6455 that say something to people; others are told as numbers. */
const CODES: Readonly<Record<number, string>> = {
  1000: "The other end closed the link",
  1001: "The other end went away",
  1006: "The connection was lost",
  1009: "The other end was sent a frame that is too large",
};

/** Resolves when the link is open and attached; rejects with HeddleError "unreachable" when it cannot be opened in time. */
export function dialWebSocket({
  url,
  attach,
  messageBytesMax,
  timeoutMs = 10_000,
}: DialWebSocketOptions): Promise<Link> {
  return new Promise((resolve, reject) => {
    let socket: WebSocket;
    try {
      socket = new WebSocket(url);
    } catch (error) {
      reject(new HeddleError("bad-input", `Cannot dial "${url}": it is not a WebSocket address`, { cause: error }));
      return;
    }
    socket.binaryType = "arraybuffer";
    let end: FramedEnd | undefined;
    const fail = (sentence: string): void => {
      clearTimeout(timer);
      reject(new HeddleError("unreachable", `Cannot dial "${url}": ${sentence}`));
    };
    const timer = setTimeout(() => {
      fail(`there was no answer within ${timeoutMs} ms`);
      socket.close();
    }, timeoutMs);
    socket.onopen = () => {
      clearTimeout(timer);
      end = createFramedLink({
        channel: { lane: "ws", send: (frame) => sendOpen(socket, frame), close: () => socket.close(1000) },
        attach,
        ...(messageBytesMax === undefined ? {} : { messageBytesMax }),
      });
      resolve(end.link);
    };
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (data instanceof ArrayBuffer) {
        end?.receive(new Uint8Array(data));
      } else {
        end?.link.close("Cannot read a frame: got text, need bytes");
      }
    };
    socket.onclose = ({ code, reason }) => {
      const sentence = reason === "" ? (CODES[code] ?? `The connection ended with code ${code}`) : reason;
      fail(sentence); // of no effect once the link is open
      end?.ended(sentence);
    };
    socket.onerror = () => undefined; // says nothing; onclose follows
  });
}

/** A socket that is closing takes frames and drops them; a link must hear of it. */
function sendOpen(socket: WebSocket, frame: Uint8Array<ArrayBuffer>): void {
  if (socket.readyState !== WebSocket.OPEN) {
    throw new Error("the WebSocket is closed");
  }
  socket.send(frame);
}
