/**
 * How a packed update on its way up, and a large blob on its way down, are cut into pieces: all of one length but the last, which is
 * shorter by less than their number, so that no piece overtakes another on a link. Whoever knows the length and the number of pieces
 * knows where each begins.
 */
import { digestOf, fromHex, toHex, type Bytes, type Digest } from "../base/bytes.ts";
import { PIECE_BYTES, PIECES_MAX } from "./limits.ts";

/** Bytes of a SHA-256. */
export const DIGEST_BYTES = 32;

/** Number of pieces of at most `pieceBytes` that `bytes` are cut into. */
export function countPieces(bytes: number, pieceBytes = PIECE_BYTES): number {
  return Math.max(1, Math.ceil(bytes / pieceBytes));
}

/** Number of pieces whose SHA-256 an offer lists. */
export function piecesOffered({ pieces }: { readonly pieces: Bytes }): number {
  return pieces.length / DIGEST_BYTES;
}

/** Where piece `index` of `count` begins and ends in `bytes`. */
export function pieceAt(
  index: number,
  { bytes, count }: { readonly bytes: number; readonly count: number },
): { readonly start: number; readonly end: number } {
  const each = Math.ceil(bytes / count);
  return { start: Math.min(bytes, index * each), end: Math.min(bytes, (index + 1) * each) };
}

/** Whether `bytes` can be cut into `count` pieces: none is empty, and none is larger than PIECE_BYTES. */
export function canBeCut(bytes: number, count: number): boolean {
  const last = pieceAt(count - 1, { bytes, count });
  return count >= 1 && count <= PIECES_MAX && last.end > last.start && Math.ceil(bytes / count) <= PIECE_BYTES;
}

/** The SHA-256 of each of `count` pieces, one after the other. */
export function digestPieces(payload: Bytes, count: number): Bytes {
  const digests = new Uint8Array(count * DIGEST_BYTES);
  for (let index = 0; index < count; index += 1) {
    const { start, end } = pieceAt(index, { bytes: payload.length, count });
    digests.set(fromHex(digestOf(payload.subarray(start, end))), index * DIGEST_BYTES);
  }
  return digests;
}

/** What the SHA-256 of piece `index` must be. */
export function pieceDigest(digests: Bytes, index: number): Digest {
  return toHex(digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)) as Digest;
}
