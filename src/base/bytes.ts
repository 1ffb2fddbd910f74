/**
 * Byte strings, digests and their hexadecimal form. Hashing is synchronous and pure (`@noble/hashes`), so that state
 * machines and simulations can use it; callers that hash many megabytes off the main path may use WebCrypto instead, the
 * digests are the same.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, hexToBytes, utf8ToBytes } from "@noble/hashes/utils.js";
import { assert } from "./assert.ts";

/** Bytes in memory of their own kind: never shared memory, so that they can be hashed, stored and transferred. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** SHA-256 of some bytes: 64 lower-case hexadecimal digits. */
export type Digest = string & { readonly brand: "Digest" };

/** A contributor's name: the SHA-256 of its Ed25519 public key. */
export type ContributorId = string & { readonly brand: "ContributorId" };

/** A contribution's name: the SHA-256 of its signed header. */
export type ContributionId = string & { readonly brand: "ContributionId" };

export function digestOf(bytes: Uint8Array): Digest {
  return bytesToHex(sha256(bytes)) as Digest;
}

export function isDigest(value: unknown): value is Digest {
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
}

export function toHex(bytes: Uint8Array): string {
  return bytesToHex(bytes);
}

/** Throws on an odd length or a character that is not hexadecimal. */
export function fromHex(hex: string): Bytes {
  return hexToBytes(hex) as Bytes;
}

/** A text in UTF-8. */
export function textBytes(text: string): Bytes {
  return utf8ToBytes(text) as Bytes;
}

export function concatBytes(parts: readonly Uint8Array[]): Bytes {
  let length = 0;
  for (const part of parts) {
    length += part.length;
  }
  const all = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) {
    return false;
  }
  for (let i = 0; i < a.length; i += 1) {
    if (a[i] !== b[i]) {
      return false;
    }
  }
  return true;
}

/** The little-endian bytes of a float array, without a copy. Every platform that Heddle runs on is little-endian. */
export function floatBytes<B extends ArrayBufferLike>(values: Float32Array<B> | Float64Array<B>): Uint8Array<B> {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Copies little-endian bytes into floats (the copy gives the alignment that a view would need). */
export function bytesToFloats(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  assert(bytes.length % 4 === 0, `Cannot read floats: got ${bytes.length} bytes, need a multiple of 4`);
  return new Float32Array(new Uint8Array(bytes).buffer); // not slice(): a Node Buffer's slice is a view
}
