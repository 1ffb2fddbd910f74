/** A device key in a file, for Node and Deno: PKCS #8, readable by its owner only. */
import { link, mkdir, open, readFile, rm } from "node:fs/promises";
import { dirname } from "node:path";
import process from "node:process";
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import { createPair, deviceKeyOf } from "./device-key.ts";

/** The key in the file at `path`; made when absent. Throws HeddleError "store" when the file cannot be read or made. */
export async function loadDeviceKey(path: string): Promise<DeviceKey> {
  try {
    const kept = await readIfPresent(path);
    if (kept === undefined) {
      await createKeyFile(path);
    }
    return await deviceKeyOf(await importPair(kept ?? new Uint8Array(await readFile(path))));
  } catch (error) {
    throw new HeddleError("store", `Cannot use the device key in "${path}": ${String(error)}`, { cause: error });
  }
}

/** Writes a new key beside `path` and links it there: whole or not at all, and never over a key that exists. */
async function createKeyFile(path: string): Promise<void> {
  const { privateKey } = await createPair(true);
  const bytes = new Uint8Array(await crypto.subtle.exportKey("pkcs8", privateKey));
  const temporary = `${path}.${process.pid}.${crypto.randomUUID()}`;
  await mkdir(dirname(path), { recursive: true });
  const file = await open(temporary, "wx", 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
    await link(temporary, path);
  } catch (error) {
    if (!hasCode(error, "EEXIST")) {
      throw error; // otherwise another process was faster: its key is the key
    }
  } finally {
    await file.close();
    await rm(temporary);
  }
}

/** PKCS #8 holds no public key; the JWK form of a private key does. */
async function importPair(pkcs8: Bytes): Promise<CryptoKeyPair> {
  const extractable = await crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", true, ["sign"]);
  const { kty, crv, x } = await crypto.subtle.exportKey("jwk", extractable);
  const publicJwk = { kty, crv, x } as JsonWebKey;
  return {
    privateKey: await crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]),
    publicKey: await crypto.subtle.importKey("jwk", publicJwk, "Ed25519", true, ["verify"]),
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
