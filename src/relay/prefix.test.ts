import type { IncomingMessage } from "node:http";
import { expect, test } from "vitest";
import { prefixOf, prefixOfRequest } from "./prefix.ts";

test.each([
  ["192.0.2.77", "192.0.2.0/24"],
  ["::ffff:192.0.2.77", "192.0.2.0/24"],
  ["::ffff:c000:24d", "192.0.2.0/24"],
  ["2001:db8:1234:56ab:1:2:3:4", "2001:db8:1234:5600::/56"],
  ["2001:db8:1234:56cd::9", "2001:db8:1234:5600::/56"],
  ["2001:db8::1", "2001:db8:0:0::/56"],
  ["fe80::1%eth0", "fe80:0:0:0::/56"],
  ["64:ff9b::192.0.2.1", "64:ff9b:0:0::/56"],
  ["127.0.0.1", null],
  ["::ffff:127.0.0.1", null],
  ["::1", null],
  ["", null],
  ["example.org", null],
])("prefixOf() of %s is %s", (address, prefix) => {
  expect(prefixOf(address)).toBe(prefix);
});

test("prefixOfRequest() believes the header of a trusted proxy, its last address, and no other header", () => {
  const from = (header: string | null, headers: Record<string, string | string[]>): string | null =>
    prefixOfRequest({ headers, socket: { remoteAddress: "198.51.100.1" } } as unknown as IncomingMessage, header);
  const forged = { "x-forwarded-for": "203.0.113.9, 192.0.2.1" };
  expect(from(null, forged)).toBe("198.51.100.0/24");
  expect(from("X-Forwarded-For", forged)).toBe("192.0.2.0/24");
  expect(from("X-Forwarded-For", { "x-forwarded-for": ["203.0.113.9", "192.0.2.1"] })).toBe("192.0.2.0/24");
  expect(from("X-Real-IP", forged)).toBe("198.51.100.0/24");
  expect(from("X-Real-IP", { "x-real-ip": "unknown" })).toBe("198.51.100.0/24");
  expect(from("X-Real-IP", { "x-real-ip": "x".repeat(1e5) })).toBe("198.51.100.0/24");
});
