/**
 * A blob that is being fetched: what has arrived, which of its pieces (`protocol/pieces.ts`) are not what the relay says they are, and what
 * to ask for next. What the relay says of pieces can be as wrong as they are: two copies of one that are alike count more, and in the end
 * nothing but the SHA-256 of the whole. Downloads that were given up are kept here for a while, too.
 */
import type { Bytes, Digest } from "../base/bytes.ts";
import { dropOldest } from "../base/newest.ts";
import { UNCUT_BYTES_MAX } from "../protocol/limits.ts";
import { countPieces, pieceAt, pieceDigest } from "../protocol/pieces.ts";
import { hashBytes } from "../store/hash.ts";
import type { Begun, FetchPieces } from "./link.ts";

/** How often the digests of the pieces are asked for where they do not come. */
const ASKED_MAX = 2;
/** Unfinished downloads that are kept: a checkpoint, and a text that was fetched beside it. */
const LEFT_MAX = 2;
/** And for how long; after that their memory is given back when the next blob is asked for. */
export const LEFT_MS = 600_000;

/** Bytes start … end (exclusive) of a blob, which go on with it, or are the piece `again` that arrived damaged. */
export interface Wanted {
  readonly start: number;
  readonly end: number;
  readonly again: number | null;
}

/** A class because it holds memory that is filled from outside. */
export class Download {
  readonly digest: Digest;
  readonly bytesMax: number;
  /** Undefined until its size is known. */
  bytes: Bytes | undefined;
  /** So many have arrived, from the first on. */
  filled: number;
  #digests: Bytes | null = null;
  /** While they are asked for. */
  #asking: Promise<void> | null = null;
  #asked = 0;
  /** Pieces that were looked at, in their order. */
  #seen = 0;
  /** Of those, the ones to ask for again, with the digests that they arrived with. */
  readonly #damaged = new Map<number, readonly Digest[]>();

  constructor(digest: Digest, bytesMax: number, { bytes, filled }: Partial<Begun> = {}) {
    this.digest = digest;
    this.bytesMax = bytesMax;
    this.bytes = bytes;
    this.filled = filled ?? 0;
  }

  /** What to ask for next, at most `chunkBytes` of what has not arrived; null when all of it is here and nothing is known to be damaged. */
  wanted(chunkBytes: number): Wanted | null {
    const { bytes, filled } = this;
    const [again] = this.#damaged.keys();
    if (bytes !== undefined && again !== undefined) {
      return { ...pieceAt(again, { bytes: bytes.length, count: countPieces(bytes.length) }), again };
    }
    const end = Math.min(filled + chunkBytes, bytes?.length ?? Infinity);
    return bytes === undefined || filled < end ? { start: filled, end, again: null } : null;
  }

  /** Looks at the pieces that have arrived since the last time, if the relay has said what they should be; else asks, and does not wait for it. */
  async check(fetchPieces: FetchPieces): Promise<void> {
    const { digest, bytes } = this;
    if (bytes === undefined || bytes.length <= UNCUT_BYTES_MAX) {
      return;
    }
    if (this.#digests === null && this.#asking === null && this.#asked < ASKED_MAX) {
      this.#asked += 1;
      this.#asking = fetchPieces(digest, bytes.length).then((digests) => {
        [this.#digests, this.#asking] = [digests, null];
      });
    }
    const count = countPieces(bytes.length);
    while (this.#digests !== null && this.#seen < count) {
      if (pieceAt(this.#seen, { bytes: bytes.length, count }).end > this.filled) {
        return;
      }
      await this.look(this.#seen);
      this.#seen += 1;
    }
  }

  /** Waits for what the relay was asked of the pieces; whether `check` has some to look at now, all of which are here. */
  async learn(): Promise<boolean> {
    await this.#asking;
    return this.#digests !== null && this.#seen < countPieces(this.filled);
  }

  /** Whether piece `index`, all of which is here, is as it should be, as far as that is known. */
  async look(index: number): Promise<boolean> {
    const { bytes } = this;
    if (bytes === undefined || this.#digests === null) {
      return true;
    }
    const { start, end } = pieceAt(index, { bytes: bytes.length, count: countPieces(bytes.length) });
    const digest = await hashBytes(bytes.subarray(start, end));
    const before = this.#damaged.get(index) ?? [];
    if (digest === pieceDigest(this.#digests, index)) {
      this.#damaged.delete(index);
      return true;
    }
    if (before.includes(digest)) {
      this.#digests = null;
      this.#asked = ASKED_MAX;
      this.#damaged.clear();
      return true;
    }
    this.#damaged.set(index, [...before, digest]);
    return false;
  }
}

/** Downloads that were given up and may go on; a class because it holds memory. What is under way is not among them. */
export class Left {
  readonly #nowMs: () => number;
  /** Oldest first. */
  readonly #downloads = new Map<Digest, Begun & { readonly sinceMs: number }>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** The download of `digest` as it was left, or as another source has `begun` it, whichever has more; else a new one. */
  take(digest: Digest, bytesMax: number, begun?: Begun | null): Download {
    for (const [old, { sinceMs }] of this.#downloads) {
      if (this.#nowMs() - sinceMs >= LEFT_MS) {
        this.#downloads.delete(old);
      }
    }
    const kept = this.#downloads.get(digest);
    this.#downloads.delete(digest);
    const most = (begun?.filled ?? 0) > (kept?.filled ?? 0) ? begun : kept;
    return new Download(digest, bytesMax, most && most.bytes.length <= bytesMax ? most : {});
  }

  add({ digest, bytes, filled }: Download): void {
    if (bytes === undefined || filled === 0) {
      return;
    }
    this.#downloads.delete(digest);
    this.#downloads.set(digest, { bytes, filled, sinceMs: this.#nowMs() });
    dropOldest(this.#downloads, LEFT_MAX);
  }
}
