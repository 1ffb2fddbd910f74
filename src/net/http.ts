/**
 * Fetches blobs by digest over HTTP: `GET <origin>/blob/<digest>` in ranges, so that a broken connection costs the rest of a
 * piece and not the blob. A fetch that is given up while the relay is away leaves what has arrived to the next one of the same
 * blob. The announced size is checked before memory is taken, the SHA-256 at the end. `serve-blob.ts` is the other side.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import { BLOB_BYTES_MAX } from "../protocol/limits.ts";
import { hashBytes } from "../store/hash.ts";
import { laterMs, pause, saysLater } from "./later.ts";
import type { FetchBlob } from "./link.ts";
import { systemClock } from "./system-clock.ts";

export interface BlobFetcherOptions {
  /** Scheme, host and port of the relay. */
  readonly origin: string;
  readonly fetch?: typeof globalThis.fetch;
  /** Bytes asked for at a time. */
  readonly chunkBytes?: number;
  /** Failures in a row, without one byte of progress between them, before the fetch is given up. */
  readonly triesMax?: number;
  /** Silence after which a piece counts as failed. */
  readonly stallMs?: number;
  /** Waits before another try; tests pass their own. */
  readonly wait?: (ms: number) => Promise<void>;
  readonly nowMs?: () => number;
  /** From 0 up to 1, for the waits. */
  readonly random?: () => number;
}

/** Before another try a random share of this, then of twice as much and so on: whoever lost the relay at the same moment does not come back so. */
const FIRST_WAIT_MS = 500;
/** Who is told when to come back comes later than that by a random share of the wait, at most of this much of it. */
const LATER_SPREAD = 0.5;
/** Unfinished downloads that are kept: a checkpoint, and a text that was fetched beside it. */
const LEFT_MAX = 2;
/** And for how long; after that their memory is given back when the next blob is asked for. */
export const LEFT_MS = 600_000;
/** The longest time that a relay may have us wait: a download cannot be stopped meanwhile, and whoever gives it up comes back to it. */
const RETRY_MS_MAX = 5_000;

/** The relay wants to be asked later. */
class Later extends Error {
  readonly retryMs: number;
  constructor(response: Response) {
    super(`the relay answered with status ${response.status}`);
    this.retryMs = Math.min(RETRY_MS_MAX, laterMs(response));
  }
}

/** A blob on its way. */
interface Download {
  readonly digest: Digest;
  readonly bytesMax: number;
  bytes: Bytes | undefined;
  filled: number;
}

/**
 * The fetch rejects with HeddleError: "limit" when the blob is larger than `bytesMax`, "integrity" when it has another
 * SHA-256, "absent" when the relay does not have it, "unreachable" when it cannot be reached or has no room to answer; then
 * what has arrived is kept for the next fetch of that blob.
 */
export function createBlobFetcher({
  origin,
  fetch = (input, init) => globalThis.fetch(input, init),
  chunkBytes = 4 * 1_048_576,
  triesMax = 4,
  stallMs = 15_000,
  wait = pause,
  nowMs = systemClock.nowMs,
  random = Math.random,
}: BlobFetcherOptions): FetchBlob {
  const left = new Left(nowMs);
  return async (digest, bytesMax) => {
    const download = left.take(digest, Math.min(bytesMax, BLOB_BYTES_MAX));
    const url = `${origin.replace(/\/$/, "")}/blob/${digest}`;
    let failures = 0;
    while (download.bytes === undefined || download.filled < download.bytes.length) {
      const before = download.filled;
      try {
        await fetchPiece({ url, fetch, chunkBytes, stallMs }, download);
        failures = 0;
      } catch (error) {
        if (error instanceof HeddleError) {
          throw error;
        }
        failures = download.filled > before ? 1 : failures + 1;
        if (failures >= triesMax) {
          left.add(download);
          const sentence = `Cannot fetch blob ${digest}: the connection failed ${triesMax} times in a row`;
          throw new HeddleError("unreachable", sentence, { cause: error });
        }
        const askedMs = error instanceof Later ? error.retryMs * (1 + LATER_SPREAD * random()) : 0;
        await wait(Math.max(askedMs, FIRST_WAIT_MS * 2 ** (failures - 1) * random()));
      }
    }
    if ((await hashBytes(download.bytes)) !== digest) {
      throw new HeddleError("integrity", `Cannot use blob ${digest}: the bytes that arrived have another digest`);
    }
    return download.bytes;
  };
}

/** Downloads that were given up and may go on; a class because it holds memory. What is under way is not among them. */
class Left {
  readonly #nowMs: () => number;
  /** Oldest first. */
  readonly #downloads = new Map<Digest, { readonly download: Download; readonly sinceMs: number }>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** The download of `digest` as it was left, or a new one. */
  take(digest: Digest, bytesMax: number): Download {
    for (const [old, { sinceMs }] of this.#downloads) {
      if (this.#nowMs() - sinceMs >= LEFT_MS) {
        this.#downloads.delete(old);
      }
    }
    const kept = this.#downloads.get(digest)?.download;
    this.#downloads.delete(digest);
    const fits = kept?.bytes !== undefined && kept.bytes.length <= bytesMax;
    return fits ? { ...kept, bytesMax } : { digest, bytesMax, bytes: undefined, filled: 0 };
  }

  add(download: Download): void {
    if (download.filled === 0) {
      return;
    }
    this.#downloads.delete(download.digest);
    this.#downloads.set(download.digest, { download, sinceMs: this.#nowMs() });
    for (const oldest of [...this.#downloads.keys()].slice(0, -LEFT_MAX)) {
      this.#downloads.delete(oldest);
    }
  }
}

interface PieceOptions {
  readonly url: string;
  readonly fetch: typeof globalThis.fetch;
  readonly chunkBytes: number;
  readonly stallMs: number;
}

/** Fetches the next piece into the download; what arrived before a failure stays. */
async function fetchPiece({ url, fetch, chunkBytes, stallMs }: PieceOptions, download: Download): Promise<void> {
  const abort = new AbortController();
  const stalled = (): void => abort.abort(new Error(`nothing arrived for ${stallMs} ms`));
  let timer = setTimeout(stalled, stallMs);
  try {
    const last = download.filled + chunkBytes - 1;
    const range = `bytes=${download.filled}-${Math.min(last, (download.bytes?.length ?? Infinity) - 1)}`;
    const response = await fetch(url, { headers: { range }, signal: abort.signal });
    const start = beginPiece(response, download);
    const bytes = download.bytes as Bytes | undefined;
    if (bytes === undefined || response.body === null) {
      return;
    }
    const before = download.filled;
    const reader = response.body.getReader(); // not every browser iterates over streams
    for (let at = start; ;) {
      const { done, value } = await reader.read();
      if (done) {
        break;
      }
      clearTimeout(timer);
      timer = setTimeout(stalled, stallMs);
      if (at + value.length > bytes.length) {
        throw new HeddleError("integrity", `Cannot use blob ${download.digest}: more bytes arrived than announced`);
      }
      bytes.set(value, at);
      at += value.length;
      download.filled = Math.max(download.filled, at);
    }
    if (download.filled === before && bytes.length > 0) {
      throw new Error("the answer brought nothing new");
    }
  } finally {
    clearTimeout(timer);
    abort.abort(); // ends a body that was not read to its end
  }
}

/** Checks an answer's head, takes memory at the first one, and returns where in the blob its body begins. */
function beginPiece(response: Response, download: Download): number {
  const { digest, bytesMax } = download;
  if (response.status === 404 || response.status === 410) {
    throw new HeddleError("absent", `Cannot fetch blob ${digest}: the relay does not have it`);
  }
  if (saysLater(response)) {
    throw new Later(response);
  }
  const isEmpty = response.status === 416 && response.headers.get("content-range") === "bytes */0";
  if (response.status !== 200 && response.status !== 206 && !isEmpty) {
    throw new Error(`the relay answered with status ${response.status}`);
  }
  const [start, total] = isEmpty ? [0, 0] : placeOf(response);
  if (total > bytesMax) {
    throw new HeddleError("limit", `Cannot fetch blob ${digest}: it has ${total} bytes, expected at most ${bytesMax}`);
  }
  if ((download.bytes !== undefined && download.bytes.length !== total) || start > download.filled) {
    throw new HeddleError("integrity", `Cannot fetch blob ${digest}: the relay's answers contradict each other`);
  }
  download.bytes ??= new Uint8Array(total);
  return start;
}

/** Where the body lies in the blob, and the size of the whole. */
function placeOf(response: Response): readonly [start: number, total: number] {
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
  if (response.status === 206 && range !== null) {
    return [Number(range[1]), Number(range[2])];
  }
  const length = response.headers.get("content-length");
  if (response.status === 200 && length !== null) {
    return [0, Number(length)]; // a server that knows no ranges
  }
  throw new Error("the relay did not say how large the blob is");
}
