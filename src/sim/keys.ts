/**
 * Device keys for the simulation: a signature is a keyed hash, and the registry that made the keys checks them. Nobody but
 * the holder of a key can sign in its name, which is all that the protocol needs of a signature.
 */
import { concatBytes, digestOf, equalBytes, fromHex, toHex, type Bytes } from "../base/bytes.ts";
import type { Seed } from "../base/rng.ts";
import type { DeviceKey, VerifySignature } from "../protocol/keys.ts";

export interface SimKey extends DeviceKey {
  /** `sign` at once. */
  signNow(purpose: string, message: Uint8Array): Bytes;
}

export interface KeyRegistry {
  create(...seeds: readonly Seed[]): SimKey;
  readonly verify: VerifySignature;
}

export function createKeyRegistry(): KeyRegistry {
  const secrets = new Map<string, Bytes>();
  const mac = (secret: Bytes, purpose: string, message: Uint8Array): Bytes => {
    const label = Uint8Array.from(purpose, (letter) => letter.charCodeAt(0));
    return fromHex(digestOf(concatBytes([secret, label, Uint8Array.of(0), message])));
  };
  return {
    create: (...seeds) => {
      const text = ["key", ...seeds].join("\u0000");
      const secret = fromHex(digestOf(Uint8Array.from(text, (letter) => letter.charCodeAt(0) & 255)));
      const publicKey = fromHex(digestOf(secret));
      secrets.set(toHex(publicKey), secret);
      const signNow = (purpose: string, message: Uint8Array): Bytes => mac(secret, purpose, message);
      return { publicKey, signNow, sign: async (purpose, message) => signNow(purpose, message) };
    },
    verify: async (publicKey, purpose, message, signature) => {
      const secret = secrets.get(toHex(publicKey));
      return secret !== undefined && equalBytes(mac(secret, purpose, message), signature);
    },
  };
}
