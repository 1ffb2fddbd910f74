import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { parseRelayConfig, type RelayConfig } from "./config.ts";

const root = resolve(import.meta.dirname, "../..");

function parsed(args: readonly string[], terminal = true): RelayConfig {
  return parseRelayConfig(args, {}, terminal) as RelayConfig;
}

test("parseRelayConfig() logs sentences on a terminal and JSON elsewhere, unless told otherwise", () => {
  expect(parsed([]).log).toBe("text");
  expect(parsed([], false).log).toBe("json");
  expect(parsed(["--log", "json"]).log).toBe("json");
  expect(() => parsed(["--log", "xml"])).toThrow('Cannot use --log "xml": it must be json or text');
});

test("parseRelayConfig() serves metrics only where it is told to, and on loopback by itself", () => {
  expect(parsed([])).toMatchObject({ metricsPort: 0, metricsHost: "127.0.0.1" });
  expect(parsed(["--metrics-port", "9464", "--metrics-host", "[::1]"])).toMatchObject({
    metricsPort: 9464,
    metricsHost: "::1",
  });
  expect(() => parsed(["--metrics-port", "70000"])).toThrow("must be a whole number from 0 to 65535");
});

test("parseRelayConfig() trusts no proxy's header unless told to, and reads a share of the sessions", () => {
  expect(parsed([])).toMatchObject({ proxyHeader: null, prefixShare: 0.2 });
  const given = ["--proxy-header", "X-Forwarded-For", "--prefix-share", "5"];
  expect(parsed(given)).toMatchObject({ proxyHeader: "X-Forwarded-For", prefixShare: 0.05 });
  expect(() => parsed(["--proxy-header", "a b"])).toThrow("it must be a header's name");
  expect(() => parsed(["--prefix-share", "101"])).toThrow("must be a whole number from 0 to 100");
  expect(parsed(["--merge-workers", "3"])).toMatchObject({ mergeWorkers: 3 });
  expect(() => parsed(["--merge-workers", "0"])).toThrow("somebody has to merge");
  expect(() => parsed(["--merge-workers", "17"])).toThrow("must be a whole number from 0 to 16");
});

test("the systemd unit starts the relay's entry point with flags that it knows", () => {
  const unit = readFileSync(join(root, "deploy/heddle-relay.service"), "utf8").replaceAll("\\\n", " ");
  const words = (/^ExecStart=(.*)$/m.exec(unit)?.[1] ?? "").split(/\s+/);
  const entry = words.indexOf("src/relay/main.ts");
  expect(words.slice(1, entry)).toEqual(["--experimental-import-text", "--disable-warning=ExperimentalWarning"]);
  expect(readFileSync(join(root, "tools/run.mjs"), "utf8")).toContain(
    `const nodeFlags = ["${words.slice(1, entry).join('", "')}"];`,
  );
  expect(parsed(words.slice(entry + 1), false)).toMatchObject({
    host: "127.0.0.1",
    contributor: false,
    log: "json",
    dir: "/var/lib/heddle/relay",
  });
  const backups = /^ReadWritePaths=-(.*)$/m.exec(unit)?.[1];
  const backup = /npm run admin -- backup (\S+)\/\S+ /.exec(readFileSync(join(root, "docs/operating.md"), "utf8"))?.[1];
  expect(backup).toBe(backups); // all else is read-only for the relay
});
