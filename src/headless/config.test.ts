import { expect, test } from "vitest";
import { parseContributeConfig, type ContributeConfig } from "./config.ts";

const parse = (...args: string[]): ContributeConfig => parseContributeConfig(args, 4) as ContributeConfig;

test("parseContributeConfig() takes a relay by its origin, and refuses a path that nobody would heed", () => {
  expect(parse("--relay", "https://relay.example.org/").relay).toBe("https://relay.example.org");
  for (const text of [
    "https://relay.example.org/heddle",
    "https://me@relay.example.org",
    "https://relay.example.org?a",
  ]) {
    expect(() => parse("--relay", text)).toThrow("is it https://relay.example.org?");
  }
});

test("parseContributeConfig() takes private data for plain http on this machine alone, unless it is told to", () => {
  const own = ["--private-data", "texts"];
  for (const relay of ["https://r.example.org", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"]) {
    expect(parse("--relay", relay, ...own).privateData).toBe("texts");
  }
  for (const relay of ["http://r.example.org", "http://10.0.0.1:8787", "http://127.0.0.1.example.org"]) {
    expect(() => parse("--relay", relay, ...own)).toThrow("--plain-http");
    expect(parse("--relay", relay, ...own, "--plain-http").privateData).toBe("texts");
    expect(parse("--relay", relay).privateData).toBeNull();
  }
});

test("parseContributeConfig() takes digests for --run and --relay-key, and nothing else, and finishes unless told not to", () => {
  const relay = ["--relay", "http://r"];
  expect(parse(...relay)).toMatchObject({ run: null, relayKey: null, finish: true });
  expect(parse(...relay, "--no-finish").finish).toBe(false);
  expect(parse(...relay, "--run", "a".repeat(64), "--relay-key", "b".repeat(64))).toMatchObject({
    run: "a".repeat(64),
    relayKey: "b".repeat(64),
  });
  expect(() => parse(...relay, "--run", "latest")).toThrow('Cannot use --run "latest"');
});
