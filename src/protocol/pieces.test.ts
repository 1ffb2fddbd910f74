import { expect, test } from "vitest";
import { digestOf } from "../base/bytes.ts";
import { countingBytes } from "./examples.ts";
import { CONTRIBUTION_BYTES_MAX, PIECE_BYTES, PIECES_MAX } from "./limits.ts";
import { canBeCut, countPieces, digestPieces, pieceAt, pieceDigest } from "./pieces.ts";

test("pieces are all of a length but the last, lie end to end, and cover the whole", () => {
  for (const bytes of [1, 7, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 50_000_000, CONTRIBUTION_BYTES_MAX]) {
    const count = countPieces(bytes);
    expect(canBeCut(bytes, count)).toBe(true);
    let at = 0;
    for (let index = 0; index < count; index += 1) {
      const { start, end } = pieceAt(index, { bytes, count });
      expect(start).toBe(at);
      expect(end - start).toBeGreaterThan(Math.ceil(bytes / count) - count);
      expect(end - start).toBeLessThanOrEqual(PIECE_BYTES);
      at = end;
    }
    expect(at).toBe(bytes);
  }
});

test("canBeCut() refuses pieces that are too many, too large or empty", () => {
  expect(countPieces(CONTRIBUTION_BYTES_MAX)).toBe(PIECES_MAX);
  expect(canBeCut(CONTRIBUTION_BYTES_MAX, PIECES_MAX - 1)).toBe(false);
  expect(canBeCut(CONTRIBUTION_BYTES_MAX, PIECES_MAX + 1)).toBe(false);
  expect(canBeCut(10, 6)).toBe(false); // 2, 2, 2, 2, 2, 0
  expect(canBeCut(11, 6)).toBe(true);
  expect(canBeCut(10, 0)).toBe(false);
});

test("digestPieces() has each piece's SHA-256 where pieceDigest() finds it", () => {
  const payload = countingBytes(1_000);
  const digests = digestPieces(payload, 3);
  for (let index = 0; index < 3; index += 1) {
    const { start, end } = pieceAt(index, { bytes: 1_000, count: 3 });
    expect(pieceDigest(digests, index)).toBe(digestOf(payload.slice(start, end)));
  }
});
