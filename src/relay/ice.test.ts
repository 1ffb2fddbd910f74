import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { ContributorId } from "../base/bytes.ts";
import { openIce, readIce } from "./ice.ts";

const dir = mkdtempSync(join(tmpdir(), "heddle-"));
afterAll(() => rmSync(dir, { recursive: true }));
const secretFile = join(dir, "secret");
const clock = { nowMs: () => 1_800_000_000_000, after: () => () => undefined };
const me = "ab".repeat(32) as ContributorId;

test("openIce() makes the username and credential that coturn expects of a shared secret", async () => {
  writeFileSync(secretFile, "north\n");
  const iceServers = await openIce(readIce(["stun:192.0.2.1", "turn:192.0.2.1?transport=tcp"], secretFile), clock);
  expect(iceServers(me)).toEqual([
    { url: "stun:192.0.2.1", username: null, credential: null },
    // printf 1800007200:abababababababab | openssl dgst -sha1 -hmac north -binary | base64
    {
      url: "turn:192.0.2.1?transport=tcp",
      username: "1800007200:abababababababab",
      credential: "Ethy3t8kQNXOsFMmmV7jaosBqq8=",
    },
  ]);
});

test("readIce() takes a name and a password for all, in which anything may be encoded", async () => {
  const { servers } = readIce(["turns:ada:p%40ss%3A@turn.example.org:443"], null);
  expect(servers).toEqual([{ url: "turns:turn.example.org:443", username: "ada", credential: "p@ss:" }]);
  expect((await openIce({ servers, secretFile: null }, clock))(me)).toEqual(servers);
});

test.each<[readonly string[], string | null, RegExp]>([
  [["https://example.org"], null, /it must be stun:host:port/],
  [["turn:example.org"], null, /--turn-secret/],
  [["stun:example.org"], secretFile, /no --ice names a TURN server without a password/],
  [["stun:ada:secret@example.org"], null, /it must be/],
  [["turn:ada:secret@example.org/x"], null, /^Cannot use --ice "turn:ada:…@example.org\/x"/],
  [["a", "b", "c", "d", "e"], null, /at most 4/],
])("readIce() refuses %s with the secret in %s", (urls, secret, sentence) => {
  expect(() => readIce(urls, secret)).toThrow(sentence);
});

test("openIce() says which file has no secret", async () => {
  writeFileSync(join(dir, "empty"), "\n");
  const servers = ["turn:example.org"];
  await expect(openIce(readIce(servers, join(dir, "empty")), clock)).rejects.toThrow(/the file is empty/);
  await expect(openIce(readIce(servers, join(dir, "none")), clock)).rejects.toThrow(/Cannot read --turn-secret/);
});
