/**
 * Fetches blobs by digest over HTTP: `GET <origin>/blob/<digest>` in ranges, so that a broken connection costs the rest of a
 * piece and not the blob, and a wrong byte the piece that it is in. A fetch that is given up while the relay is away leaves what has
 * arrived to the next one of the same blob. The announced size is checked before memory is taken, the SHA-256 of each piece of a large
 * blob as it arrives, that of the whole at the end. `serve-blob.ts` is the other side.
 */
import { HeddleError, messageIn, type ErrorCode } from "../base/assert.ts";
import type { Digest } from "../base/bytes.ts";
import { sleep } from "../base/clock.ts";
import type { StopSignal } from "../base/stop.ts";
import { BLOB_BYTES_MAX } from "../protocol/limits.ts";
import { countPieces, DIGEST_BYTES } from "../protocol/pieces.ts";
import { hashBytes } from "../store/hash.ts";
import { Left, type Download, type Wanted } from "./download.ts";
import { laterMs, saysLater } from "./later.ts";
import type { FetchBlob, FetchPieces } from "./link.ts";
import { systemClock } from "./system-clock.ts";

/** Where blobs are asked for. */
export interface BlobSource {
  /** Scheme, host and port of the relay. */
  readonly origin: string;
  readonly fetch?: typeof globalThis.fetch;
  /** Silence after which an answer counts as failed. */
  readonly stallMs?: number;
}

export interface BlobFetcherOptions extends BlobSource {
  /** Bytes asked for at a time. */
  readonly chunkBytes?: number;
  /** Failures in a row, without one byte of progress between them, before the fetch is given up. */
  readonly triesMax?: number;
  /** Waits before another try, as `sleep` does; tests pass their own. */
  readonly wait?: (ms: number, signal?: StopSignal) => Promise<void>;
  readonly nowMs?: () => number;
  /** From 0 up to 1, for the waits. */
  readonly random?: () => number;
}

const STALL_MS = 15_000;
/** Before another try a random share of this, then of twice as much and so on: whoever lost the relay at the same moment does not come back so. */
const FIRST_WAIT_MS = 500;
/** Who is told when to come back comes later than that by a random share of the wait, at most of this much of it. */
const LATER_SPREAD = 0.5;
/** The longest time that a relay may have us wait: whoever gives a download up comes back to it. */
const RETRY_MS_MAX = 5_000;

/** Another try may do; `code` is what the fetch rejects with when all in a row failed so, else with "unreachable". */
class Failure extends Error {
  readonly code: ErrorCode;
  readonly retryMs: number;
  constructor(message: string, { code = "unreachable", retryMs = 0 }: Partial<Pick<Failure, "code" | "retryMs">> = {}) {
    super(message);
    this.code = code;
    this.retryMs = retryMs;
  }
}

/**
 * The fetch rejects with HeddleError: "limit" when the blob is larger than `bytesMax`, "integrity" when it has another
 * SHA-256, or a piece of it arrives damaged again and again, "absent" when the relay does not have it, or cannot read it, "unreachable" when it cannot be
 * reached or has no room to answer. After a number of failures what has arrived is kept for the next fetch of that blob.
 */
export function createBlobFetcher({
  chunkBytes = 4 * 1_048_576,
  triesMax = 4,
  wait = (ms, signal) => sleep(systemClock, ms, signal),
  nowMs = systemClock.nowMs,
  random = Math.random,
  ...source
}: BlobFetcherOptions): FetchBlob {
  const left = new Left(nowMs);
  const fetchPieces = createPiecesFetcher(source);
  return async (digest, bytesMax, { begun, signal } = {}) => {
    const download = left.take(digest, Math.min(bytesMax, BLOB_BYTES_MAX), begun);
    let code: ErrorCode = "unreachable";
    for (let failures = 0; ;) {
      await download.check((blob, bytes) => fetchPieces(blob, bytes, signal));
      const wanted = download.wanted(chunkBytes);
      if (wanted === null) {
        const { bytes } = download;
        if (bytes !== undefined && (await hashBytes(bytes)) === digest) {
          return bytes;
        }
        if (!(await download.learn())) {
          insistWanted(signal);
          throw new HeddleError("integrity", `Cannot use blob ${digest}: the bytes that arrived have another digest`);
        }
        continue; // which piece is damaged is known only now
      }
      const before = download.filled;
      try {
        await fetchRange({ ...source, signal }, download, wanted);
        failures = 0;
      } catch (error) {
        insistWanted(signal);
        if (error instanceof HeddleError) {
          throw error;
        }
        const failure = error instanceof Failure ? error : new Failure(messageIn(error));
        failures = download.filled > before ? 1 : failures + 1;
        // What an answer says counts only where no other try in the row failed otherwise.
        code = failures === 1 || failure.code === code ? failure.code : "unreachable";
        if (failures >= triesMax) {
          left.add(download);
          const sentence = `Cannot fetch blob ${digest}: it failed ${triesMax} times in a row, the last time because ${failure.message}`;
          throw new HeddleError(code, sentence, { cause: error });
        }
        const askedMs = failure.retryMs * (1 + LATER_SPREAD * random());
        await wait(Math.max(askedMs, FIRST_WAIT_MS * 2 ** (failures - 1) * random()), signal);
      }
    }
  };
}

/** The fetch never rejects: a relay that says nothing of pieces is one that does not know them. */
export function createPiecesFetcher(source: BlobSource): FetchPieces {
  return async (digest, bytes, signal) => {
    const digests = new Uint8Array(countPieces(Math.min(bytes, BLOB_BYTES_MAX)) * DIGEST_BYTES);
    const fetching = whileAlive({ ...source, signal }, async (fetch, alive) => {
      const response = await fetch(`${addressOf(source, digest)}/pieces`);
      let filled = 0;
      for await (const value of bodyOf(response)) {
        alive();
        if (response.status !== 200 || filled + value.length > digests.length) {
          return null;
        }
        digests.set(value, filled);
        filled += value.length;
      }
      return filled === digests.length ? digests : null;
    });
    return fetching.catch(() => null);
  };
}

function addressOf({ origin }: BlobSource, digest: Digest): string {
  return `${origin.replace(/\/$/, "")}/blob/${digest}`;
}

function insistWanted(signal: StopSignal | undefined): void {
  if (signal?.aborted === true) {
    throw new HeddleError("unreachable", "The fetch was ended: what it fetches is not wanted any more");
  }
}

interface Asking extends BlobSource {
  readonly signal: StopSignal | undefined;
}

/** Calls `work` with a fetch that fails when `alive` has not been called for `stallMs` or it is stopped, and that ends with `work`. */
async function whileAlive<T>(
  { fetch = (input, init) => globalThis.fetch(input, init), stallMs = STALL_MS, signal }: Asking,
  work: (fetch: (address: string, init?: RequestInit) => Promise<Response>, alive: () => void) => Promise<T>,
): Promise<T> {
  insistWanted(signal);
  const abort = new AbortController();
  const stalled = (): void => abort.abort(new Error(`nothing arrived for ${stallMs} ms`));
  let timer = setTimeout(stalled, stallMs);
  const forget = signal?.onAbort(() => abort.abort(new Error("it is not wanted any more")));
  const alive = (): void => {
    clearTimeout(timer);
    timer = setTimeout(stalled, stallMs);
  };
  try {
    return await work((address, init) => fetch(address, { ...init, signal: abort.signal }), alive);
  } finally {
    clearTimeout(timer);
    forget?.();
    abort.abort(); // ends a body that was not read to its end
  }
}

/** What arrives; not every browser iterates over streams. */
async function* bodyOf({ body }: Response): AsyncGenerator<Uint8Array> {
  const reader = body?.getReader();
  for (let read = await reader?.read(); read?.done === false; read = await reader?.read()) {
    yield read.value;
  }
}

/** Fetches what is wanted into the download; what arrived before a failure stays. */
async function fetchRange(source: Asking, download: Download, { start, end, again }: Wanted): Promise<void> {
  await whileAlive(source, async (fetch, alive) => {
    const headers = { range: `bytes=${start}-${end - 1}` };
    // A damaged piece may have been kept on its way, and would come from there again.
    const init: RequestInit = again === null ? { headers } : { headers, cache: "reload" };
    const response = await fetch(addressOf(source, download.digest), init);
    let at = beginRange(response, download, start);
    const { bytes, filled } = download;
    if (bytes === undefined) {
      return;
    }
    const until = again === null ? bytes.length : end;
    for await (const value of bodyOf(response)) {
      alive();
      if (at + value.length > bytes.length) {
        throw new HeddleError("integrity", `Cannot use blob ${download.digest}: more bytes arrived than announced`);
      }
      // A server that knows no ranges sends what is here already, too.
      bytes.set(value.subarray(Math.max(0, start - at), Math.max(0, until - at)), Math.max(start, at));
      at += value.length;
      if (again === null) {
        download.filled = Math.max(download.filled, at);
      } else if (at >= until) {
        break;
      }
    }
    if (again === null ? download.filled === filled && bytes.length > 0 : at < until) {
      throw new Failure("the answer brought nothing new");
    }
  });
  if (again !== null && !(await download.look(again))) {
    throw new Failure(`bytes ${start} to ${end} arrived damaged`, { code: "integrity" });
  }
}

/** Checks an answer's head, takes memory at the first one, and returns where in the blob its body begins. */
function beginRange(response: Response, download: Download, from: number): number {
  const { digest, bytesMax } = download;
  if (response.status === 404 || response.status === 410) {
    throw new HeddleError("absent", `Cannot fetch blob ${digest}: the relay does not have it`);
  }
  const says = `the relay answered with status ${response.status}`;
  if (saysLater(response)) {
    throw new Failure(says, { retryMs: Math.min(RETRY_MS_MAX, laterMs(response)) });
  }
  if (response.status === 500) {
    throw new Failure("the relay cannot read it", { code: "absent" }); // as if it did not have it, unless another try says otherwise
  }
  const isEmpty = response.status === 416 && response.headers.get("content-range") === "bytes */0";
  if (response.status !== 200 && response.status !== 206 && !isEmpty) {
    throw new Failure(says);
  }
  const [start, total] = isEmpty ? [0, 0] : placeOf(response);
  if (total > bytesMax) {
    throw new HeddleError("limit", `Cannot fetch blob ${digest}: it has ${total} bytes, expected at most ${bytesMax}`);
  }
  if ((download.bytes !== undefined && download.bytes.length !== total) || start > from) {
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
  throw new Failure("the relay did not say how large the blob is");
}
