/**
 * The SHA-256 of each piece (`protocol/pieces.ts`) of the large blobs that a relay serves, so that whoever gets a wrong byte asks for one
 * piece again. A blob is read for it when somebody asks first, one blob at a time; what came of it is kept in memory while there is room.
 */
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

/** A class because it holds memory. */
export class BlobPieces {
  readonly #blobs: Pick<Blobs, "slice">;
  readonly #keptBytesMax: number;
  readonly #inTurn = createTurn();
  readonly #reading = new Map<Digest, Promise<Bytes | undefined>>();
  /** Least recently asked for first. */
  readonly #kept = new Map<Digest, Bytes>();
  #keptBytes = 0;

  constructor(blobs: Pick<Blobs, "slice">, keptBytesMax = KEPT_BYTES_MAX) {
    this.#blobs = blobs;
    this.#keptBytesMax = keptBytesMax;
  }

  /**
   * The digests of the pieces of the blob `digest` of `bytes` bytes, one after the other; undefined when it is gone. Rejects with HeddleError
   * "limit" when too many wait, and as the store does.
   */
  async of(digest: Digest, bytes: number): Promise<Bytes | undefined> {
    const kept = this.#kept.get(digest);
    if (kept !== undefined) {
      this.#kept.delete(digest);
      this.#kept.set(digest, kept);
      return kept;
    }
    let reading = this.#reading.get(digest);
    if (reading === undefined) {
      if (this.#reading.size >= READING_MAX) {
        throw new HeddleError("limit", `Cannot read the pieces of a blob: ${READING_MAX} others are being read`);
      }
      reading = this.#inTurn(() => this.#read(digest, bytes)).finally(() => this.#reading.delete(digest));
      this.#reading.set(digest, reading);
    }
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
    this.#keep(digest, digests);
    return digests;
  }

  #keep(digest: Digest, digests: Bytes): void {
    this.#kept.set(digest, digests);
    this.#keptBytes += digests.length;
    for (const [oldest, { length }] of this.#kept) {
      if (this.#keptBytes <= this.#keptBytesMax) {
        return;
      }
      this.#kept.delete(oldest);
      this.#keptBytes -= length;
    }
  }
}
