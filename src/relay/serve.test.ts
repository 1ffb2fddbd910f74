import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { Closers } from "./closers.ts";
import { parseRelayConfig, type RelayConfig } from "./config.ts";
import type { LeadOptions } from "./lead.ts";
import { Relay } from "./serve.ts";

const lead = vi.hoisted(() => vi.fn<(options: LeadOptions) => Promise<never>>(() => new Promise(() => undefined)));
vi.mock("./lead.ts", () => ({ lead }));

test("a relay that is asked to end does not call that a failure which its end brings with it", async () => {
  const dir = await mkdtemp(join(tmpdir(), "heddle-serve-"));
  const closers = new Closers();
  const [fail, stop] = [vi.fn(), vi.fn()];
  const log = { say: vi.fn(), warn: vi.fn(), fail, debug: vi.fn(), version: vi.fn() };
  const config = parseRelayConfig(["--dir", dir, "--port", "0"], {}, false) as RelayConfig;
  void new Relay({ config, log, closers, stop, dist: dir, onListening: async () => undefined }).serve();
  await vi.waitUntil(() => lead.mock.calls.length === 1);
  const [[{ onFailure }]] = lead.mock.calls as [[LeadOptions]];
  onFailure(new Error("the disk is full"));
  expect([fail.mock.calls.length, stop.mock.calls.length]).toEqual([1, 1]);
  await closers.close();
  onFailure(new Error("the store is closed")); // as the lease says that it is lost then
  expect([fail.mock.calls.length, stop.mock.calls.length]).toEqual([1, 1]);
  await rm(dir, { recursive: true });
});
