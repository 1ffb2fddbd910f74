/** A device key in a file (readable by its owner only) or in a store, for Node and Deno: PKCS #8. */
import { Buffer } from "node:buffer";
import { createPrivateKey, createPublicKey, sign } from "node:crypto";
import { link, mkdir, open, readFile, rm } from "node:fs/promises";
import { dirname } from "node:path";
import process from "node:process";
import { assert, HeddleError, present } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import type { Keys } from "../store/store.ts";
import { createPair, signedBytes } from "./device-key.ts";

/** The key in the file at `path`; made when absent. Throws HeddleError "store" when the file cannot be read or made. */
export function loadDeviceKey(path: string): Promise<DeviceKey> {
  return loadFrom({
    shown: `"${path}"`,
    read: () => readIfPresent(path),
    create: (pkcs8) => createKeyFile(path, pkcs8),
  });
}

/**
 * The key under `name` in a store that several processes share; made when absent. Whoever can read the store can sign with
 * it. Throws HeddleError "store" when the store cannot be read or what is there is no key.
 */
export function loadStoredKey(keys: Keys, name: string): Promise<DeviceKey> {
  return loadFrom({
    shown: `the store's "${name}"`,
    read: () => keys.get(name),
    create: (pkcs8) => keys.compareAndSet(name, undefined, pkcs8),
  });
}

interface KeyPlace {
  readonly shown: string;
  read(): Promise<Bytes | undefined>;
  /** Never over a key that exists. */
  create(pkcs8: Bytes): Promise<unknown>;
}

async function loadFrom({ shown, read, create }: KeyPlace): Promise<DeviceKey> {
  try {
    let pkcs8 = await read();
    if (pkcs8 === undefined) {
      const { privateKey } = await createPair(true);
      await create(new Uint8Array(await crypto.subtle.exportKey("pkcs8", privateKey)));
      pkcs8 = await read(); // another process may have been faster: its key is the key
    }
    return keyOf(present(pkcs8, "the key that was just kept"));
  } catch (error) {
    throw new HeddleError("store", `Cannot use the device key in ${shown}: ${String(error)}`, { cause: error });
  }
}

/** Writes a key beside `path` and links it there: whole or not at all. */
async function createKeyFile(path: string, pkcs8: Bytes): Promise<void> {
  const temporary = `${path}.${process.pid}.${crypto.randomUUID()}`;
  await mkdir(dirname(path), { recursive: true });
  const file = await open(temporary, "wx", 0o600);
  try {
    await file.writeFile(pkcs8);
    await file.sync();
    await link(temporary, path);
  } catch (error) {
    if (!hasCode(error, "EEXIST")) {
      throw error;
    }
  } finally {
    await file.close();
    await rm(temporary);
  }
}

/**
 * Signs at once, by Node's own: WebCrypto takes twice as long, half of it to wake a thread and be woken, and each entry of a ledger
 * waits for the signature of the one before.
 */
function keyOf(pkcs8: Bytes): DeviceKey {
  const privateKey = createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" });
  assert(
    privateKey.asymmetricKeyType === "ed25519",
    `got a key of type "${privateKey.asymmetricKeyType}", need "ed25519"`,
  );
  const { x } = createPublicKey(privateKey).export({ format: "jwk" });
  return {
    publicKey: new Uint8Array(Buffer.from(present(x, "the point of a public key"), "base64url")),
    sign: async (purpose, message) => new Uint8Array(sign(null, signedBytes(purpose, message), privateKey)),
  };
}

async function readIfPresent(path: string): Promise<Bytes | undefined> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (error) {
    if (hasCode(error, "ENOENT")) {
      return undefined;
    }
    throw error;
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
