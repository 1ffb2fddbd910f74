/**
 * The SHA-256 of each piece (`protocol/pieces.ts`) of the large blobs that a relay serves, so that whoever gets a wrong byte asks for one
 * piece again. A blob is read for it when somebody asks first, one blob at a time; what came of it is kept in memory while there is room,
 * and that it could not be read for some seconds.
 */
import { LRUCache } from "lru-cache";
import { HeddleError } from "../base/assert.ts";
import { fromHex, type Bytes, type Digest } from "../base/bytes.ts";
import { createTurn } from "../base/turn.ts";
import { countPieces, DIGEST_BYTES, pieceAt } from "../protocol/pieces.ts";
import { hashBytes } from "../store/hash.ts";
import type { Blobs } from "../store/store.ts";

/** For 64 GiB of blobs. */
const KEPT_BYTES_MAX = 8 * 1_048_576;
/** Blobs that are read, or wait for it, at a time. */
export const READING_MAX = 64;
/** A blob that could not be read is not read again for so long. */
export const FAILED_MS = 10_000;

export interface BlobPiecesOptions {
  readonly keptBytesMax?: number;
  readonly nowMs?: () => number;
}

type Reading = Promise<Bytes | undefined>;

/** A class because it holds memory. */
export class BlobPieces {
  readonly #blobs: Pick<Blobs, "slice">;
  readonly #nowMs: () => number;
  readonly #inTurn = createTurn();
  readonly #reading = new Map<Digest, Reading>();
  readonly #kept: LRUCache<Digest, Bytes>;
  /** What came of blobs that could not be read, for FAILED_MS. */
  readonly #failed = new Map<Digest, { readonly reading: Reading; readonly untilMs: number }>();

  constructor(
    blobs: Pick<Blobs, "slice">,
    { keptBytesMax = KEPT_BYTES_MAX, nowMs = () => performance.now() }: BlobPiecesOptions = {},
  ) {
    this.#blobs = blobs;
    this.#kept = new LRUCache({ maxSize: keptBytesMax, sizeCalculation: ({ length }) => length });
    this.#nowMs = nowMs;
  }

  /**
   * The digests of the pieces of the blob `digest` of `bytes` bytes, one after the other; undefined when it is gone. `onRead` is called where
   * the blob is read for this call. Rejects with HeddleError "limit" when too many wait, and as the store does.
   */
  async of(digest: Digest, bytes: number, onRead?: () => void): Promise<Bytes | undefined> {
    const kept = this.#kept.get(digest);
    if (kept !== undefined) {
      return kept;
    }
    const failed = this.#failed.get(digest);
    if (failed !== undefined && this.#nowMs() < failed.untilMs) {
      return failed.reading;
    }
    const reading = this.#reading.get(digest);
    if (reading !== undefined) {
      return reading;
    }
    if (this.#reading.size >= READING_MAX) {
      throw new HeddleError("limit", `Cannot read the pieces of a blob: ${READING_MAX} others are being read`);
    }
    onRead?.();
    return this.#begin(digest, bytes);
  }

  #begin(digest: Digest, bytes: number): Reading {
    const reading = this.#inTurn(() => this.#read(digest, bytes));
    this.#reading.set(digest, reading);
    const settle = (found?: Bytes): void => {
      this.#reading.delete(digest);
      const nowMs = this.#nowMs();
      [...this.#failed].filter(([, { untilMs }]) => untilMs <= nowMs).forEach(([old]) => this.#failed.delete(old));
      if (found === undefined) {
        this.#failed.set(digest, { reading, untilMs: nowMs + FAILED_MS });
      }
    };
    void reading.then(settle, () => settle());
    return reading;
  }

  async #read(digest: Digest, bytes: number): Promise<Bytes | undefined> {
    const count = countPieces(bytes);
    const digests = new Uint8Array(count * DIGEST_BYTES);
    for (let index = 0; index < count; index += 1) {
      const { start, end } = pieceAt(index, { bytes, count });
      const piece = await this.#blobs.slice(digest, start, end);
      if (piece?.length !== end - start) {
        return undefined;
      }
      digests.set(fromHex(await hashBytes(piece)), index * DIGEST_BYTES);
    }
    this.#kept.set(digest, digests);
    return digests;
  }
}
