/**
 * SHA-256 off the main path: WebCrypto where the page or process has it (an insecure page has none), the pure
 * implementation otherwise. WebCrypto copies the bytes and wakes a thread; where Node's own is at hand, what is short is hashed by
 * that at once. The digests are those of `base/bytes.ts`.
 */
import { digestOf, toHex, type Bytes, type Digest } from "../base/bytes.ts";

/** Takes Node a millisecond. */
const AT_ONCE_BYTES = 1_048_576;
const node = globalThis.process?.getBuiltinModule?.("node:crypto");

export async function hashBytes(bytes: Bytes): Promise<Digest> {
  if (node !== undefined && bytes.length <= AT_ONCE_BYTES) {
    return node.hash("sha256", bytes, "hex") as Digest;
  }
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  return subtle === undefined
    ? digestOf(bytes)
    : (toHex(new Uint8Array(await subtle.digest("SHA-256", bytes))) as Digest);
}
