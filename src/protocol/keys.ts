/** Signing as an argument: Ed25519 by WebCrypto at the entry points (`net/device-key.ts`), a keyed hash in the simulation. */
import type { Bytes } from "../base/bytes.ts";

export interface DeviceKey {
  /** 32 bytes. */
  readonly publicKey: Bytes;
  /** Signs `message` under a purpose ("session", "contribution", "ledger" …), so that no signature serves twice. */
  sign(purpose: string, message: Uint8Array): Promise<Bytes>;
}

export type VerifySignature = (
  publicKey: Uint8Array,
  purpose: string,
  message: Uint8Array,
  signature: Uint8Array,
) => Promise<boolean>;
