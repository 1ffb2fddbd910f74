/**
 * The device key: Ed25519 (RFC 8032) by WebCrypto. In a browser the private key cannot be exported, not even by this program: it
 * lies in IndexedDB as a CryptoKey. `device-key-node.ts` keeps one in a file. What is signed begins with its purpose, so that
 * a signature given for one thing proves nothing else.
 */
import { createStore, get, update } from "idb-keyval";
import { assert, HeddleError, present } from "../base/assert.ts";
import { concatBytes, type Bytes } from "../base/bytes.ts";
import type { DeviceKey, VerifySignature } from "../protocol/keys.ts";

const PUBLIC_BYTES = 32;
export const SIGNATURE_BYTES = 64;
const NAME = "Ed25519";

/** A new key that lives as long as this process or page. */
export async function createDeviceKey(): Promise<DeviceKey> {
  return deviceKeyOf(await createPair(false));
}

/**
 * This browser's key, kept under `name`; made when absent, one for all tabs. Throws HeddleError "store" where the browser
 * keeps nothing, and "no-engine" where it has no Ed25519.
 */
export async function loadDeviceKey(name = "device"): Promise<DeviceKey> {
  try {
    const store = createStore("heddle-device-key", "keys");
    if ((await get<CryptoKeyPair>(name, store)) === undefined) {
      const made = await createPair(false);
      await update<CryptoKeyPair>(name, (kept) => kept ?? made, store); // another tab may have been faster
    }
    return await deviceKeyOf(present(await get<CryptoKeyPair>(name, store), "the device key"));
  } catch (error) {
    if (error instanceof HeddleError) {
      throw error;
    }
    throw new HeddleError("store", "Cannot keep a device key: this browser does not allow it", { cause: error });
  }
}

/** `extractable` is for keys that are kept in a file. Throws HeddleError "no-engine" where there is no Ed25519, as in browsers before 2025. */
export async function createPair(extractable: boolean): Promise<CryptoKeyPair> {
  try {
    return (await crypto.subtle.generateKey(NAME, extractable, ["sign", "verify"])) as CryptoKeyPair;
  } catch (error) {
    throw new HeddleError("no-engine", "Cannot make a device key: this browser has no Ed25519", { cause: error });
  }
}

export async function deviceKeyOf({ publicKey, privateKey }: CryptoKeyPair): Promise<DeviceKey> {
  return {
    publicKey: new Uint8Array(await crypto.subtle.exportKey("raw", publicKey)),
    sign: async (purpose, message) =>
      new Uint8Array(await crypto.subtle.sign(NAME, privateKey, signedBytes(purpose, message))),
  };
}

/** Resolves to false for anything that is not a good signature; never rejects. */
export const verifySignature: VerifySignature = async (publicKey, purpose, message, signature) => {
  if (publicKey.length !== PUBLIC_BYTES || signature.length !== SIGNATURE_BYTES) {
    return false;
  }
  let key: CryptoKey;
  try {
    key = await importOnce(publicKey);
  } catch {
    return false; // 32 bytes that are no point of the curve
  }
  return crypto.subtle.verify(NAME, key, new Uint8Array(signature), signedBytes(purpose, message));
};

/** By the very bytes that were given, which nobody changes: a session's are the same for all its messages, a ledger's for all entries. */
const imported = new WeakMap<Uint8Array, Promise<CryptoKey>>();

function importOnce(publicKey: Uint8Array): Promise<CryptoKey> {
  const known = imported.get(publicKey);
  const key = known ?? crypto.subtle.importKey("raw", new Uint8Array(publicKey), NAME, true, ["verify"]);
  imported.set(publicKey, key);
  return key;
}

/** "heddle/1/<purpose>" and a line feed, then the message. */
export function signedBytes(purpose: string, message: Uint8Array): Bytes {
  assert(/^[a-z-]+$/.test(purpose), `Cannot sign: got purpose "${purpose}", need lower-case letters`);
  return concatBytes([new TextEncoder().encode(`heddle/1/${purpose}\n`), message]);
}
