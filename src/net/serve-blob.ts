/**
 * Serves blobs by digest over HTTP (RFC 9110): single ranges, HEAD, entity tags, and caching for ever, since a digest never
 * stands for other bytes. Any web page may read them. Bytes go out in pieces as the peer takes them, and nothing is read ahead but
 * the first piece: what cannot be read is refused before a length is promised. Of a large blob the digests of its pieces, too.
 */
import { HeddleError, messageIn } from "../base/assert.ts";
import type { IncomingMessage, ServerResponse } from "node:http";
import { isDigest, type Bytes, type Digest } from "../base/bytes.ts";
import { UNCUT_BYTES_MAX } from "../protocol/limits.ts";
import type { Blobs } from "../store/store.ts";
import type { BlobPieces } from "./blob-pieces.ts";

export interface ServeBlobOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What the path says after `/blob/`, as it came: a digest, or a digest and PIECES. */
  readonly name: string;
  readonly blobs: Pick<Blobs, "size" | "slice">;
  readonly pieces: BlobPieces;
  /** Blobs that may not be read by everyone are answered as if they did not exist. */
  readonly isPublic?: (digest: Digest) => boolean | Promise<boolean>;
  /** Told of a whole blob that is read for the digests of its pieces: how many bytes it has. */
  readonly onRead?: (bytes: number) => void;
  /** Told once, at the end, how many bytes of the body went out. */
  readonly onSent?: (bytes: number) => void;
}

/** Behind a blob's digest: the digests of its pieces are asked for. */
const PIECES = "/pieces";
const PIECE_BYTES = 262_144;
const RETRY_S = 1;

const OPEN_TO_ALL = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "content-length, content-range, etag",
  "cross-origin-resource-policy": "cross-origin",
};

/** What is served under a name. */
interface Content {
  readonly size: number;
  readonly cacheControl: string;
  /** Undefined when it is gone. */
  slice(start: number, end: number): Promise<Bytes | undefined>;
}

/** Answers the request and resolves when the answer is sent or the peer is gone. Never rejects. */
export async function serveBlob(options: ServeBlobOptions): Promise<void> {
  const { response } = options;
  try {
    await answer(options);
  } catch (error) {
    if (response.headersSent) {
      response.destroy(); // the length that was promised cannot be kept
    } else {
      const isBusy = error instanceof HeddleError && error.code === "limit";
      if (isBusy) {
        response.setHeader("retry-after", RETRY_S);
      }
      response.writeHead(isBusy ? 503 : 500, { ...OPEN_TO_ALL, "content-type": "text/plain" }).end(messageIn(error));
    }
  }
}

async function answer(options: ServeBlobOptions): Promise<void> {
  const { request, response, name, onSent } = options;
  if (request.method === "OPTIONS") {
    const allowed = { "access-control-allow-methods": "GET, HEAD", "access-control-allow-headers": "range" };
    response.writeHead(204, { ...OPEN_TO_ALL, ...allowed, "access-control-max-age": "86400" }).end();
    return;
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(405, { ...OPEN_TO_ALL, allow: "GET, HEAD, OPTIONS" }).end();
    return;
  }
  const content = await contentOf(options);
  if (content === undefined) {
    refuseAbsent(response);
    return;
  }
  const { size } = content;
  const etag = `"${name}"`;
  const headers = {
    ...OPEN_TO_ALL,
    etag,
    "accept-ranges": "bytes",
    "cache-control": content.cacheControl,
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
  const stop = request.method === "HEAD" ? start : end;
  const first = await content.slice(start, Math.min(stop, start + PIECE_BYTES));
  if (first === undefined) {
    refuseAbsent(response);
    return;
  }
  response.writeHead(range === "whole" ? 200 : 206, {
    ...headers,
    "content-length": end - start,
    ...(range === "whole" ? {} : { "content-range": `bytes ${start}-${end - 1}/${size}` }),
  });
  const sent = await sendBytes({ response, content, first, start, end: stop });
  response.end();
  onSent?.(sent);
}

/** What is public under the name, or undefined. */
async function contentOf({ name, blobs, pieces, isPublic, onRead }: ServeBlobOptions): Promise<Content | undefined> {
  const asksForPieces = name.endsWith(PIECES);
  const digest = asksForPieces ? name.slice(0, -PIECES.length) : name;
  const size = isDigest(digest) && ((await isPublic?.(digest)) ?? true) ? await blobs.size(digest) : undefined;
  if (!isDigest(digest) || size === undefined) {
    return undefined;
  }
  if (!asksForPieces) {
    const cacheControl = "public, max-age=31536000, immutable";
    return { size, cacheControl, slice: (start, end) => blobs.slice(digest, start, end) };
  }
  const digests = size > UNCUT_BYTES_MAX ? await pieces.of(digest, size, () => onRead?.(size)) : undefined;
  return (
    digests && {
      size: digests.length,
      cacheControl: "no-store", // nothing says whether they are right
      slice: async (start, end) => digests.subarray(start, end),
    }
  );
}

function refuseAbsent(response: ServerResponse): void {
  response.writeHead(404, { ...OPEN_TO_ALL, "cache-control": "no-store" }).end();
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
  content,
  first,
  start,
  end,
}: {
  readonly response: ServerResponse;
  readonly content: Content;
  /** The bytes from `start` on, as many as are sent at a time. */
  readonly first: Bytes;
  readonly start: number;
  readonly end: number;
}): Promise<number> {
  const gone = new Promise((resolve) => response.once("close", resolve));
  let at = start;
  let piece: Bytes | undefined = first;
  while (at < end && !response.destroyed) {
    piece ??= await content.slice(at, Math.min(end, at + PIECE_BYTES));
    if (piece === undefined || piece.length === 0) {
      response.destroy(); // deleted meanwhile: the length that was promised cannot be kept
      break;
    }
    at += piece.length;
    if (!response.write(piece)) {
      await Promise.race([new Promise((resolve) => response.once("drain", resolve)), gone]);
    }
    piece = undefined;
  }
  return at - start;
}
