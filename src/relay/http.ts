/**
 * The relay's HTTP face: the built web app, blobs by digest, the run's public record as JSON and as server-sent events, and
 * the demo page that embeds the widget from another origin. It reads; nothing here changes the run. Links (`/link`) are
 * accepted by `net/ws-server.ts` on the same server.
 */
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { extname, join, normalize } from "node:path";
import { HeddleError, present } from "../base/assert.ts";
import { serveLedger } from "../net/serve-ledger.ts";
import { LINKS_MAX } from "../protocol/limits.ts";
import type { RunChange, RunView, VersionView } from "../protocol/run-view.ts";
import type { Log } from "../store/store.ts";
import { prefixOf, prefixOfRequest } from "./prefix.ts";
import { createShares, type Shares } from "./shares.ts";

/** Open event streams at a time; more, and those beyond their network's share, are told to come back. */
export const EVENT_STREAMS_MAX = 1_000;
/** Open connections, links and event streams among them; the system's file descriptors must last for the store, too. */
const CONNECTIONS_MAX = LINKS_MAX + EVENT_STREAMS_MAX + 2_000;
/** A connection on which nothing moves for this long is cut off. Links have a heartbeat of their own. */
const STALL_MS = 60_000;
/** Requests of one connection that may wait for their answer; no browser sends a second before the first is answered. */
export const PIPELINED_MAX = 8;
/** Event streams are told of the run at most this often, however often it changes. */
export const RUN_PAUSE_MS = 250;
/** Of these one network may have its share: a page that contributes has two that last, its link and its events. */
export const CONNECTIONS_SHARED = 2 * LINKS_MAX;
/** Connections that every network may have: a page's requests need some beside its link. */
const CONNECTIONS_LEAST = 32;
/** What may wait to be read from an event stream: some minutes of changes. */
const UNREAD_BYTES_MAX = 65_536;

/** Versions that a record with the newest ones alone may have: each number of them is kept until the run changes. */
const RECENT_MAX = 100;

/** Longest time to come back that anybody is told; a flood would be told hours. */
const RETRY_S_MAX = 60;

export interface HttpOptions {
  /** Header of a trusted proxy that names a connection's real address; null: there is none. */
  readonly proxyHeader: string | null;
  /** Share of all connections, and of all event streams, that one network prefix may have, 0 … 1. */
  readonly prefixShare: number;
  /** Milliseconds until a prefix may ask for blobs, the ledger or the run again; 0: it is answered. */
  readonly waitMs: (prefix: string | null) => number;
  readonly dist: string;
  readonly view: () => RunView;
  readonly log: Pick<Log, "length" | "read">;
  readonly blob: (request: IncomingMessage, response: ServerResponse, name: string) => void;
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
  const streamShares = createShares({ max: EVENT_STREAMS_MAX, share: options.prefixShare });
  const waiting = new WeakMap<Socket, number>();
  /** Until the run changes everybody is sent the same bytes. */
  let [run, change]: (Buffer | null)[] = [null, null];
  const write = createRunWriter();
  const readRun = (): Buffer => (run ??= write(options.view()));
  const readChange = (): Buffer => (change ??= changeEvent(options.view()));
  const recent = new Map<number, Buffer>();
  const readRecent = (count: number): Buffer => {
    const made = recent.get(count) ?? recentRun(options.view(), count);
    recent.set(count, made);
    return made;
  };
  const server = createServer((request, response) => {
    const { socket } = request;
    const before = waiting.get(socket) ?? 0;
    if (before >= PIPELINED_MAX) {
      socket.destroy();
      return;
    }
    waiting.set(socket, before + 1);
    response.once("close", () => waiting.set(socket, (waiting.get(socket) ?? 1) - 1));
    const answering = { ...options, readRun, readRecent, readChange, streams, streamShares };
    answer(request, response, answering).catch((error: unknown) => {
      plain(response, 500, error instanceof HeddleError ? error.message : "The relay could not answer this request");
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  if (options.proxyHeader === null) {
    shareConnections(server, options.prefixShare); // else they are the proxy's, all of them
  }
  server.setTimeout(STALL_MS);
  const heartbeat = setInterval(() => broadcast(streams, Buffer.from(": still here\n\n")), 15_000);
  let due: NodeJS.Timeout | null = null;
  const tellRun = (): void => {
    due = null;
    if (streams.size > 0) {
      broadcast(streams, readChange());
    }
  };
  return {
    server,
    announce: (version) => {
      [run, change] = [null, null];
      recent.clear();
      if (version !== null) {
        broadcast(streams, Buffer.from(`event: version\ndata: ${JSON.stringify(version)}\n\n`));
      }
      due ??= setTimeout(tellRun, RUN_PAUSE_MS);
    },
    close: async () => {
      clearInterval(heartbeat);
      clearTimeout(due ?? undefined);
      for (const stream of streams) {
        stream.end();
      }
      await shut(server);
    },
  };
}

interface Answering extends HttpOptions {
  readonly readRun: () => Buffer;
  /** The run with so many of its newest versions, RECENT_MAX at most. */
  readonly readRecent: (count: number) => Buffer;
  readonly readChange: () => Buffer;
  readonly streams: Set<ServerResponse>;
  readonly streamShares: Shares;
}

/** A connection beyond its network's share is closed, as one beyond all that there may be is. */
function shareConnections(server: Server, share: number): void {
  const shares = createShares({ max: CONNECTIONS_SHARED, share, least: CONNECTIONS_LEAST });
  server.on("connection", (socket) => {
    const prefix = prefixOf(socket.remoteAddress ?? "");
    if (shares.take(prefix)) {
      socket.once("close", () => shares.leave(prefix));
    } else {
      socket.destroy();
    }
  });
}

async function answer(request: IncomingMessage, response: ServerResponse, options: Answering): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD" && request.method !== "OPTIONS") {
    plain(response, 405, "Only GET is understood here");
    return;
  }
  const path = pathOf(request);
  const prefix = prefixOfRequest(request, options.proxyHeader);
  const waitMs = path !== null && isLarge(path) ? options.waitMs(prefix) : 0;
  if (path === null) {
    plain(response, 400, "This address cannot be read");
  } else if (waitMs > 0) {
    tellLater(response, waitMs);
  } else if (path.startsWith("/blob/")) {
    options.blob(request, response, path.slice("/blob/".length));
  } else if (path === "/api/run") {
    response.writeHead(200, {
      "content-type": "application/json",
      "cache-control": "no-store",
      "access-control-allow-origin": "*",
    });
    const versions = new URL(request.url ?? "/", "http://relay").searchParams.get("versions") ?? "";
    const isFew = /^[1-9]\d{0,2}$/.test(versions) && Number(versions) <= RECENT_MAX;
    response.end(isFew ? options.readRecent(Number(versions)) : options.readRun());
  } else if (path === "/api/ledger") {
    await serveLedger(response, { log: options.log, query: new URL(request.url ?? "/", "http://relay").searchParams });
  } else if (path === "/api/events") {
    stream(response, prefix, options);
  } else {
    await file(response, options.dist, path);
  }
}

/** What may be megabytes, of which a network gets only so many. */
function isLarge(path: string): boolean {
  return path.startsWith("/blob/") || path === "/api/ledger" || path === "/api/run";
}

function tellLater(response: ServerResponse, waitMs: number): void {
  response.writeHead(429, {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "retry-after",
    "retry-after": `${Math.min(RETRY_S_MAX, Math.ceil(waitMs / 1_000))}`,
  });
  response.end("Too much is asked from this network; come back later\n");
}

/** The decoded path, or null when it is not well-formed. */
function pathOf(request: IncomingMessage): string | null {
  try {
    return decodeURIComponent(new URL(request.url ?? "/", "http://relay").pathname);
  } catch {
    return null;
  }
}

function stream(response: ServerResponse, prefix: string | null, options: Answering): void {
  const { readChange, streams, streamShares } = options;
  if (streams.size >= EVENT_STREAMS_MAX || !streamShares.take(prefix)) {
    response.writeHead(503, { "retry-after": "30" });
    response.end();
    return;
  }
  response.writeHead(200, {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "access-control-allow-origin": "*",
  });
  response.write("retry: 2000\n");
  response.write(readChange());
  streams.add(response);
  response.on("close", () => {
    streams.delete(response);
    streamShares.leave(prefix);
  });
}

/** Writes a run as JSON. Its versions, which are most of it, are written anew only when there is another. */
function createRunWriter(): (run: RunView) => Buffer {
  let written: Pick<RunView, "versions"> & { readonly json: string } = { versions: [], json: "[]" };
  return ({ versions, ...rest }) => {
    if (written.versions !== versions) {
      written = { versions, json: JSON.stringify(versions) };
    }
    return Buffer.from(`${JSON.stringify(rest).slice(0, -1)},"versions":${written.json}}`);
  };
}

/** With the newest `count` versions alone: what a widget on a page that many read asks for. */
function recentRun({ versions, ...rest }: RunView, count: number): Buffer {
  return Buffer.from(JSON.stringify({ ...rest, versions: versions.slice(-count) }));
}

function changeEvent({ run, round, phase, connected, versions }: RunView): Buffer {
  const change: RunChange = {
    run,
    round,
    phase,
    connected,
    head: present(versions.at(-1), "the run's newest version"),
  };
  return Buffer.from(`event: change\ndata: ${JSON.stringify(change)}\n\n`);
}

/** A slow reader whose buffer fills up is dropped; its browser connects again, and the page asks for what it missed. */
function broadcast(streams: Set<ServerResponse>, bytes: Buffer): void {
  for (const response of streams) {
    if (response.writableLength > UNREAD_BYTES_MAX) {
      response.destroy();
    } else {
      response.write(bytes);
    }
  }
}

/** Pages run their own scripts alone, and WASM. Workers go by headers of their own. */
const POLICY = "script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'";
const ISOLATED = ["/index.html", "/bench.html", "/observatory.html"];

/** Read whole, since files of the app are small: no descriptor stays open for a reader that is slow or gone. */
async function file(response: ServerResponse, dist: string, path: string): Promise<void> {
  const inside = normalize(path.endsWith("/") ? `${path}index.html` : path);
  const full = join(dist, inside);
  const bytes =
    inside.includes("\0") || inside.split("/").some((part) => part.startsWith("."))
      ? undefined
      : await readFile(full).catch(() => undefined);
  if (bytes === undefined) {
    plain(response, 404, "There is nothing at this address");
    return;
  }
  response.writeHead(200, { ...headersOf(inside), "content-length": bytes.length });
  response.end(bytes);
}

/**
 * The contributor page, the benchmark and the observatory are cross-origin isolated, which gives the WASM engine its threads. The widget's
 * frame may be embedded by any site, and by one that is isolated itself because it has the embedder policy, too. Hashed assets never
 * change under their name.
 */
function headersOf(path: string): Record<string, string> {
  const headers: Record<string, string> = {
    "content-type": TYPES[extname(path)] ?? "application/octet-stream",
    "cache-control": path.startsWith("/assets/") ? "public, max-age=31536000, immutable" : "no-cache",
    "cross-origin-resource-policy": "cross-origin",
    "cross-origin-embedder-policy": "require-corp",
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
  };
  if (extname(path) === ".html") {
    headers["content-security-policy"] = POLICY;
  }
  if (ISOLATED.some((page) => path.endsWith(page))) {
    headers["cross-origin-opener-policy"] = "same-origin";
    headers["content-security-policy"] = `${POLICY}; frame-ancestors 'none'`;
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

/** Listens, or throws HeddleError "bad-input" with a sentence when the port, which `flag` chose, cannot be had. Returns the port. */
export function listen(server: Server, port: number, host: string, flag = "--port"): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const why =
        error.code === "EADDRINUSE"
          ? `something else on this machine uses it; choose another with ${flag}`
          : error.message;
      reject(new HeddleError("taken", `Cannot listen on ${host}:${port}: ${why}`, { cause: error }));
    });
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}

/** Stops listening, and ends all connections: those that are being answered after `graceMs`. */
export async function shut(server: Server, graceMs = 0): Promise<void> {
  const cut = setTimeout(() => server.closeAllConnections(), graceMs);
  await new Promise<void>((resolve) => {
    server.close(() => resolve()); // at once where it has never listened
  });
  clearTimeout(cut);
}
