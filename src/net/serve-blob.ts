/**
 * Serves blobs by digest over HTTP (RFC 9110): single ranges, HEAD, entity tags, and caching for ever, since a digest never
 * stands for other bytes. Any web page may read them. Bytes go out in pieces as the peer takes them; nothing is read ahead.
 */
import { messageIn } from "../base/assert.ts";
import type { IncomingMessage, ServerResponse } from "node:http";
import { isDigest, type Digest } from "../base/bytes.ts";
import type { Blobs } from "../store/store.ts";

export interface ServeBlobOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What the path says after `/blob/`, as it came. */
  readonly digest: string;
  readonly blobs: Blobs;
  /** Blobs that may not be read by everyone are answered as if they did not exist. */
  readonly isPublic?: (digest: Digest) => boolean | Promise<boolean>;
  /** Told once, at the end, how many bytes of the body went out. */
  readonly onSent?: (bytes: number) => void;
}

const PIECE_BYTES = 262_144;

const OPEN_TO_ALL = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "content-length, content-range, etag",
  "cross-origin-resource-policy": "cross-origin",
};

/** Answers the request and resolves when the answer is sent or the peer is gone. Never rejects. */
export async function serveBlob(options: ServeBlobOptions): Promise<void> {
  try {
    await answer(options);
  } catch (error) {
    if (options.response.headersSent) {
      options.response.destroy(); // the length that was promised cannot be kept
    } else {
      const sentence = messageIn(error);
      options.response.writeHead(500, { ...OPEN_TO_ALL, "content-type": "text/plain" }).end(sentence);
    }
  }
}

async function answer({ request, response, digest, blobs, isPublic, onSent }: ServeBlobOptions): Promise<void> {
  if (request.method === "OPTIONS") {
    const allowed = { "access-control-allow-methods": "GET, HEAD", "access-control-allow-headers": "range" };
    response.writeHead(204, { ...OPEN_TO_ALL, ...allowed, "access-control-max-age": "86400" }).end();
    return;
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(405, { ...OPEN_TO_ALL, allow: "GET, HEAD, OPTIONS" }).end();
    return;
  }
  const size = isDigest(digest) && ((await isPublic?.(digest)) ?? true) ? await blobs.size(digest) : undefined;
  if (!isDigest(digest) || size === undefined) {
    response.writeHead(404, { ...OPEN_TO_ALL, "cache-control": "no-store" }).end();
    return;
  }
  const etag = `"${digest}"`;
  const headers = {
    ...OPEN_TO_ALL,
    etag,
    "accept-ranges": "bytes",
    "cache-control": "public, max-age=31536000, immutable",
    "content-type": "application/octet-stream",
    "x-content-type-options": "nosniff",
  };
  if (request.headers["if-none-match"]?.split(/\s*,\s*/).includes(etag) === true) {
    response.writeHead(304, headers).end();
    return;
  }
  const ifRange = request.headers["if-range"];
  const ranged = request.method === "GET" && (ifRange === undefined || ifRange === etag);
  const range = ranged ? readRange(request.headers.range, size) : "whole";
  if (range === "unsatisfiable") {
    response.writeHead(416, { ...headers, "content-range": `bytes */${size}` }).end();
    return;
  }
  const [start, end] = range === "whole" ? [0, size] : range;
  response.writeHead(range === "whole" ? 200 : 206, {
    ...headers,
    "content-length": end - start,
    ...(range === "whole" ? {} : { "content-range": `bytes ${start}-${end - 1}/${size}` }),
  });
  const sent = request.method === "HEAD" ? 0 : await sendBytes({ response, blobs, digest, start, end });
  response.end();
  onSent?.(sent);
}

/** Start and end (exclusive) of one range; several ranges, other units and nonsense ask for the whole, as the RFC allows. */
function readRange(header: string | undefined, size: number): readonly [number, number] | "whole" | "unsatisfiable" {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) {
    return "whole";
  }
  const [first, last] = [match[1] as string, match[2] as string];
  if (first === "") {
    return Number(last) === 0 || size === 0 ? "unsatisfiable" : [Math.max(0, size - Number(last)), size];
  }
  if (last !== "" && Number(last) < Number(first)) {
    return "whole";
  }
  const end = last === "" ? size : Math.min(size, Number(last) + 1);
  return Number(first) >= size ? "unsatisfiable" : [Number(first), end];
}

/** Returns how many bytes went out: fewer than asked for when the peer left. */
async function sendBytes({
  response,
  blobs,
  digest,
  start,
  end,
}: {
  readonly response: ServerResponse;
  readonly blobs: Blobs;
  readonly digest: Digest;
  readonly start: number;
  readonly end: number;
}): Promise<number> {
  const gone = new Promise((resolve) => response.once("close", resolve));
  let at = start;
  while (at < end && !response.destroyed) {
    const piece = await blobs.slice(digest, at, Math.min(end, at + PIECE_BYTES));
    if (piece === undefined || piece.length === 0) {
      response.destroy(); // deleted meanwhile: the length that was promised cannot be kept
      break;
    }
    at += piece.length;
    if (!response.write(piece)) {
      await Promise.race([new Promise((resolve) => response.once("drain", resolve)), gone]);
    }
  }
  return at - start;
}
