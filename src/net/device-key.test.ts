import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { fromHex, toHex, type Bytes } from "../base/bytes.ts";
import { loadDeviceKey as loadKeyFile, loadStoredKey } from "./device-key-node.ts";
import { createMemoryStore } from "../store/memory.ts";
import { createDeviceKey, loadDeviceKey, verifySignature } from "./device-key.ts";

afterEach(() => vi.unstubAllGlobals());

const message = Uint8Array.of(1, 2, 3);

test("verifySignature() accepts what the key signed, and nothing else", async () => {
  const [key, other] = [await createDeviceKey(), await createDeviceKey()];
  const signature = await key.sign("session", message);
  expect(key.publicKey.length).toBe(32);
  expect(await verifySignature(key.publicKey, "session", message, signature)).toBe(true);
  const changed = signature.slice();
  changed[5] = (changed[5] as number) ^ 1;
  const wrong: [Bytes, string, Bytes, Bytes][] = [
    [other.publicKey, "session", message, signature],
    [key.publicKey, "report", message, signature],
    [key.publicKey, "session", Uint8Array.of(1, 2, 4), signature],
    [key.publicKey, "session", message, changed],
    [key.publicKey, "session", message, signature.slice(1)],
    [key.publicKey.slice(1), "session", message, signature],
    [new Uint8Array(32).fill(255), "session", message, signature],
  ];
  for (const claim of wrong) {
    expect(await verifySignature(...claim)).toBe(false);
  }
});

test("verifySignature() checks Ed25519 over 'heddle/1/<purpose>' and a line feed before the message", async () => {
  // Python: cryptography's Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(b"heddle/1/ledger\n" + b"abc")
  const publicKey = fromHex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
  const signature = fromHex(
    "c39a773238e067e6fe2926f872fc3ee6392eb85356ace756b47d28f0444edf7374a10eabd6286ef8ccc16032a9b26a59e44d84df4ca4079070f88c45b93bf90a",
  );
  expect(await verifySignature(publicKey, "ledger", new TextEncoder().encode("abc"), signature)).toBe(true);
});

test("loadDeviceKey() keeps one key a file, whole and for its owner only, however many start at once", async () => {
  const dir = await mkdtemp(join(tmpdir(), "heddle-key-"));
  const path = join(dir, "state", "device.key");
  const keys = await Promise.all([1, 2, 3, 4].map(() => loadKeyFile(path)));
  const again = await loadKeyFile(path);
  expect(new Set([...keys, again].map((key) => toHex(key.publicKey))).size).toBe(1);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await readdir(join(dir, "state"))).toEqual(["device.key"]);
  const signature = await again.sign("session", message);
  expect(await verifySignature((await loadKeyFile(path)).publicKey, "session", message, signature)).toBe(true);
  await writeFile(path, "no key");
  await expect(loadKeyFile(path)).rejects.toMatchObject({ code: "store" });
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" }); // its public key has 32 bytes of x, too
  await writeFile(path, privateKey.export({ format: "der", type: "pkcs8" }));
  await expect(loadKeyFile(path)).rejects.toThrow('got a key of type "ec", need "ed25519"');
  await rm(dir, { recursive: true });
});

test("loadStoredKey() keeps one key a store, however many start at once", async () => {
  const { keys } = createMemoryStore();
  const found = await Promise.all([1, 2, 3].map(() => loadStoredKey(keys, "relay.key")));
  expect(new Set(found.map((key) => toHex(key.publicKey))).size).toBe(1);
  await keys.set("relay.key", message);
  await expect(loadStoredKey(keys, "relay.key")).rejects.toMatchObject({ code: "store" });
});

test("loadDeviceKey() says when there is no place to keep a key", async () => {
  await expect(loadDeviceKey()).rejects.toMatchObject({ code: "store" });
});

test("loadDeviceKey() tells a browser that has no Ed25519 from one that keeps nothing", async () => {
  vi.stubGlobal("crypto", { subtle: { generateKey: () => Promise.reject(new DOMException("", "NotSupportedError")) } });
  const soon = (result?: unknown): { onsuccess(): void } => {
    const request = { result, onsuccess: () => undefined };
    queueMicrotask(() => request.onsuccess());
    return request;
  };
  const empty = { transaction: () => ({ objectStore: () => ({ get: () => soon() }) }) };
  vi.stubGlobal("indexedDB", { open: () => soon(empty) });
  await expect(loadDeviceKey()).rejects.toMatchObject({ code: "no-engine" });
});
