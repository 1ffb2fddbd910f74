/**
 * The relay's HTTP face: the built web app, blobs by digest, the run's public record as JSON and as server-sent events, and
 * the demo page that embeds the widget from another origin. It reads; nothing here changes the run. Links (`/link`) are
 * accepted by `net/ws-server.ts` on the same server.
 */
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { extname, join, normalize } from "node:path";
import { HeddleError } from "../base/assert.ts";
import type { RunView, VersionView } from "../protocol/run-view.ts";

/** Open event streams at a time; more are told to come back. */
export const EVENT_STREAMS_MAX = 1_000;

export interface HttpOptions {
  readonly dist: string;
  readonly view: () => RunView;
  readonly blob: (request: IncomingMessage, response: ServerResponse, digest: string) => void;
}

export interface HttpFace {
  readonly server: Server;
  /** Tells everyone who listens about a new version and about the changed run. */
  announce(version: VersionView | null): void;
  close(): Promise<void>;
}

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".wasm": "application/wasm",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
  ".txt": "text/plain; charset=utf-8",
};

export function createHttpFace(options: HttpOptions): HttpFace {
  const streams = new Set<ServerResponse>();
  const server = createServer((request, response) => {
    answer(request, response, options, streams).catch((error: unknown) => {
      plain(response, 500, error instanceof HeddleError ? error.message : "The relay could not answer this request");
    });
  });
  const heartbeat = setInterval(() => broadcast(streams, ": still here\n\n"), 15_000);
  return {
    server,
    announce: (version) => {
      const run = `event: run\ndata: ${JSON.stringify(options.view())}\n\n`;
      broadcast(streams, version === null ? run : `event: version\ndata: ${JSON.stringify(version)}\n\n${run}`);
    },
    close: async () => {
      clearInterval(heartbeat);
      for (const stream of streams) {
        stream.end();
      }
      server.closeAllConnections();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: HttpOptions,
  streams: Set<ServerResponse>,
): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD" && request.method !== "OPTIONS") {
    plain(response, 405, "Only GET is understood here");
    return;
  }
  const path = pathOf(request);
  if (path === null) {
    plain(response, 400, "This address cannot be read");
  } else if (path.startsWith("/blob/")) {
    options.blob(request, response, path.slice("/blob/".length));
  } else if (path === "/api/run") {
    response.writeHead(200, {
      "content-type": "application/json",
      "cache-control": "no-store",
      "access-control-allow-origin": "*",
    });
    response.end(JSON.stringify(options.view()));
  } else if (path === "/api/events") {
    stream(response, options, streams);
  } else if (path === "/api/health") {
    plain(response, 200, "ok");
  } else {
    await file(response, options.dist, path);
  }
}

/** The decoded path, or null when it is not well-formed. */
function pathOf(request: IncomingMessage): string | null {
  try {
    return decodeURIComponent(new URL(request.url ?? "/", "http://relay").pathname);
  } catch {
    return null;
  }
}

function stream(response: ServerResponse, options: HttpOptions, streams: Set<ServerResponse>): void {
  if (streams.size >= EVENT_STREAMS_MAX) {
    response.writeHead(503, { "retry-after": "30" });
    response.end();
    return;
  }
  response.writeHead(200, {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "access-control-allow-origin": "*",
  });
  response.write(`retry: 2000\nevent: run\ndata: ${JSON.stringify(options.view())}\n\n`);
  streams.add(response);
  response.on("close", () => streams.delete(response));
}

/** A slow reader whose buffer fills up is dropped; its browser connects again and gets the whole view. */
function broadcast(streams: Set<ServerResponse>, text: string): void {
  for (const response of streams) {
    if (response.writableLength > 4 * 1_048_576) {
      response.destroy();
    } else {
      response.write(text);
    }
  }
}

async function file(response: ServerResponse, dist: string, path: string): Promise<void> {
  const inside = normalize(path.endsWith("/") ? `${path}index.html` : path);
  const full = join(dist, inside);
  const found =
    inside.includes("\0") || inside.split("/").some((part) => part.startsWith("."))
      ? undefined
      : await stat(full).catch(() => undefined);
  if (found === undefined || !found.isFile()) {
    plain(response, 404, "There is nothing at this address");
    return;
  }
  response.writeHead(200, { ...headersOf(inside), "content-length": found.size });
  createReadStream(full).pipe(response);
}

/**
 * The contributor page is cross-origin isolated, which gives the WASM engine its threads; the widget's frame is not, so that
 * any site can embed it. Hashed assets never change under their name.
 */
function headersOf(path: string): Record<string, string> {
  const headers: Record<string, string> = {
    "content-type": TYPES[extname(path)] ?? "application/octet-stream",
    "cache-control": path.startsWith("/assets/") ? "public, max-age=31536000, immutable" : "no-cache",
    "cross-origin-resource-policy": "cross-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
  };
  if (!path.endsWith("/widget.html")) {
    headers["cross-origin-embedder-policy"] = "require-corp";
  }
  if (path.endsWith("/index.html")) {
    headers["cross-origin-opener-policy"] = "same-origin";
    headers["content-security-policy"] = "frame-ancestors 'none'";
  }
  return headers;
}

function plain(response: ServerResponse, status: number, sentence: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" });
  response.end(`${sentence}\n`);
}

/** A page on another origin that embeds the widget, as a partner site would. */
export async function createDemoHost(page: string, relayOrigin: string): Promise<Server> {
  const html = (await readFile(page, "utf8")).replaceAll("%RELAY%", relayOrigin);
  return createServer((_request, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
    response.end(html);
  });
}

/** Listens, or throws HeddleError "bad-input" with a sentence when the port cannot be had. Returns the port. */
export function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const why =
        error.code === "EADDRINUSE"
          ? "something else on this machine uses it; choose another with --port"
          : error.message;
      reject(new HeddleError("bad-input", `Cannot listen on ${host}:${port}: ${why}`, { cause: error }));
    });
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}
