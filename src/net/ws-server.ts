/**
 * The WebSocket lane, accepting end, on the HTTP server of a relay (Node `ws`). Frames above the limit, text and anything
 * malformed end that connection and no other; more sessions than the limit are turned away with 503.
 */
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer, type RawData, type WebSocket } from "ws";
import { FRAME_BYTES_MAX, LINKS_MAX } from "../protocol/limits.ts";
import { createFramedLink } from "./framed-link.ts";
import type { Link, LinkHandlers } from "./link.ts";

export interface AcceptWebSocketsOptions {
  readonly server: Server;
  readonly path?: string;
  /** Attaches a new link. */
  readonly attach: (link: Link, arrival: WebSocketArrival) => LinkHandlers;
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
  readonly sessionsMax?: number;
}

export interface WebSocketArrival {
  /** Tells the peer's address and headers. */
  readonly request: IncomingMessage;
  /** Reads nothing for so long: the peer's own system makes it wait. */
  readonly hold: (ms: number) => void;
}

export interface WebSocketAcceptor {
  sessions(): number;
  /** Closes every link with `reason`, takes no more, and resolves when all sockets are gone. The HTTP server stays. */
  close(reason: string): Promise<void>;
}

/** A peer that does not answer a close in this time is cut off. */
const CLOSE_MS = 1_000;

export function acceptWebSockets({
  server,
  path = "/link",
  attach,
  messageBytesMax,
  sessionsMax = LINKS_MAX,
}: AcceptWebSocketsOptions): WebSocketAcceptor {
  const acceptor = new WebSocketServer({ noServer: true, maxPayload: FRAME_BYTES_MAX, perMessageDeflate: false });
  const links = new Set<Link>();
  let open = true;

  const begin = (socket: WebSocket, request: IncomingMessage): void => {
    const end = createFramedLink({
      channel: { lane: "ws", send: (frame) => sendOpen(socket, frame), close: () => closeSoon(socket) },
      attach: (link) => {
        links.add(link);
        return attach(link, { request, hold: (ms) => pause(socket, ms) });
      },
      ...(messageBytesMax === undefined ? {} : { messageBytesMax }),
    });
    socket.on("message", (data: RawData, isBinary: boolean) => {
      if (isBinary) {
        end.receive(data as Buffer); // binaryType "nodebuffer", the default
      } else {
        end.link.close("Cannot read a frame: got text, need bytes");
      }
    });
    socket.on("error", (error) => end.ended(`The connection broke: ${error.message}`));
    socket.on("close", () => {
      links.delete(end.link);
      end.ended("The connection was lost");
    });
  };

  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    if (request.url?.split("?", 1)[0] !== path) {
      if (server.listenerCount("upgrade") === 1) {
        turnAway(socket, "404 Not Found");
      }
    } else if (!open || acceptor.clients.size >= sessionsMax) {
      turnAway(socket, "503 Service Unavailable");
    } else {
      acceptor.handleUpgrade(request, socket, head, begin);
    }
  };
  server.on("upgrade", upgrade);

  return {
    sessions: () => acceptor.clients.size,
    close: async (reason) => {
      open = false;
      for (const link of links) {
        link.close(reason);
      }
      const gone = [...acceptor.clients].map((socket) => new Promise((resolve) => socket.once("close", resolve)));
      await Promise.all(gone);
      server.off("upgrade", upgrade);
      acceptor.close();
    },
  };
}

function turnAway(socket: Duplex, status: string): void {
  socket.on("error", () => socket.destroy()); // the peer may be gone already
  socket.once("finish", () => socket.destroy()); // nor does it have to close its half: nobody waits for that
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

function sendOpen(socket: WebSocket, frame: Uint8Array): void {
  if (socket.readyState !== socket.OPEN) {
    throw new Error("the WebSocket is closed");
  }
  socket.send(frame);
}

function pause(socket: WebSocket, ms: number): void {
  socket.pause();
  const timer = setTimeout(() => socket.resume(), ms);
  socket.once("close", () => clearTimeout(timer));
}

function closeSoon(socket: WebSocket): void {
  socket.close(1000);
  const timer = setTimeout(() => socket.terminate(), CLOSE_MS);
  socket.once("close", () => clearTimeout(timer));
}
