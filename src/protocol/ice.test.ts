import { expect, test } from "vitest";
import { checked } from "./fields.ts";
import { iceServersReader, parseIceUrl } from "./ice.ts";
import { ICE_CHARS_MAX, ICE_SERVERS_MAX } from "./limits.ts";

test.each([
  ["stun:example.org", { scheme: "stun", host: "example.org", port: 3_478, transport: "udp" }],
  ["turn:192.0.2.1:5000?transport=tcp", { scheme: "turn", host: "192.0.2.1", port: 5_000, transport: "tcp" }],
  ["turns:[2001:db8::1]", { scheme: "turns", host: "2001:db8::1", port: 5_349, transport: "tcp" }],
])("parseIceUrl() reads %s", (url, address) => {
  expect(parseIceUrl(url)).toEqual(address);
});

test.each([
  "http://example.org",
  "stun:",
  "stun:example.org:0",
  "turn:example.org:70000",
  "stun:example.org?transport=udp",
  "turn:user@example.org",
  "turn:example.org?transport=udp&x=1",
  "turn:exa mple.org",
  "turn:[::1",
])("parseIceUrl() refuses %s", (url) => {
  expect(parseIceUrl(url)).toBeNull();
});

test("iceServersReader() takes a few servers, TURN with what lets one in, STUN without", () => {
  const stun = { url: "stun:example.org", username: null, credential: null };
  const turn = { url: "turn:example.org", username: "ada", credential: "secret" };
  const ok = (servers: unknown): boolean => checked(() => iceServersReader(servers, "servers")).ok;
  expect(ok([stun, turn])).toBe(true);
  expect(ok(Array.from({ length: ICE_SERVERS_MAX }, () => stun))).toBe(true);
  expect(ok(Array.from({ length: ICE_SERVERS_MAX + 1 }, () => stun))).toBe(false);
  for (const wrong of [
    { ...turn, credential: null },
    { ...stun, username: "ada", credential: "secret" },
    { ...turn, credential: "x".repeat(ICE_CHARS_MAX + 1) },
    { ...turn, url: `turn:${"x".repeat(ICE_CHARS_MAX)}` },
    { ...turn, url: "https://example.org" },
  ]) {
    expect(ok([wrong])).toBe(false);
  }
});
