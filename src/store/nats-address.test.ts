import { expect, test } from "vitest";
import { parseNatsAddress } from "./nats-address.ts";

test("parseNatsAddress() reads servers, login, name and replicas, and shows no login", () => {
  expect(parseNatsAddress("nats://127.0.0.1")).toEqual({
    servers: ["127.0.0.1:4222"],
    tls: false,
    login: null,
    name: "heddle",
    replicas: null,
    shown: "nats://127.0.0.1:4222/heddle",
  });
  expect(parseNatsAddress("tls://me:p%40ss@a.example:1,[::1]:2,c/run-2?replicas=3")).toEqual({
    servers: ["a.example:1", "[::1]:2", "c:4222"],
    tls: true,
    login: { user: "me", pass: "p@ss" },
    name: "run-2",
    replicas: 3,
    shown: "tls://a.example:1,[::1]:2,c:4222/run-2",
  });
  expect(parseNatsAddress("nats://token@a/").login).toEqual({ token: "token" });
});

test.each([
  ["localhost:4222", /must have the form nats:/],
  ["http://localhost", /must have the form/],
  ["nats://", /must have the form/],
  [`nats://${"a".repeat(2_000)}`, /must have the form/],
  ["nats://a?replica=3", /must have the form/],
  ["nats://a:0", /got the server "a:0", need host or host:port/],
  ["nats://a:65536", /got the server/],
  ["nats://a,,b", /got the server ""/],
  [`nats://${"a,".repeat(16)}a`, /got 17 servers, need at most 16/],
  ["nats://a/my.run", /got the store's name "my.run"/],
  ["nats://a/run?replicas=6", /got replicas=6, need 1 to 5/],
  ["nats://a/run?replicas=", /got replicas=, need/],
  ["nats://me:secret%ff@a", /^Cannot use the NATS address: the login's percent signs do not encode characters$/],
])("parseNatsAddress() refuses %s", (text, reason) => {
  expect(() => parseNatsAddress(text)).toThrow(reason);
});
