/**
 * SHA-256 off the main path: WebCrypto where the page or process has it (an insecure page has none), the pure
 * implementation otherwise. The digests are those of `base/bytes.ts`.
 */
import { digestOf, toHex, type Bytes, type Digest } from "../base/bytes.ts";

export async function hashBytes(bytes: Bytes): Promise<Digest> {
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  return subtle === undefined
    ? digestOf(bytes)
    : (toHex(new Uint8Array(await subtle.digest("SHA-256", bytes))) as Digest);
}
