/** `npm run admin`, readiness and metrics of two relays that share a run on NATS: the one that leads, and another. */
import { get } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, expect, test, vi } from "vitest";
import { LEADER_KEY } from "../../src/relay/place.ts";
import { lookAtLease } from "../../src/store/lease.ts";
import { openNatsStore } from "../../src/store/nats.ts";
import { startNats, type Nats } from "../../src/store/nats-server.fixture.ts";
import {
  adminOf,
  isVersion,
  launchRelay,
  QUICK_CHARTER,
  startContributor,
  temporaryFolder,
  type Running,
} from "./processes.ts";

const running = new Set<Running>();
afterEach(async () => {
  await Promise.all([...running].map((relay) => relay.stop("SIGKILL")));
  running.clear();
});

/** Asks the relay that is kept in `dir` over its socket. */
function ask(dir: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ socketPath: join(dir, "relay/operator.sock"), path, agent: false }, (response) => {
      text(response).then((body) => resolve(`${response.statusCode} ${body.trim()}`), reject);
    }).once("error", reject);
  });
}

interface Launched {
  readonly dir: string;
  readonly relay: Running;
}

/** Starts a relay, and resolves when it says `event`. */
async function launchOn(nats: Nats, folder: string, { name, event, args }: Launch): Promise<Launched> {
  const dir = join(folder, name);
  const relay = launchRelay({ dir, args: ["--nats", nats.url(), ...args], charter: QUICK_CHARTER });
  running.add(relay);
  await relay.waitFor((said) => said.event === event);
  return { dir, relay };
}

interface Launch {
  readonly name: string;
  readonly event: string;
  readonly args: readonly string[];
}

test("on NATS, an operator works with the relay that leads, and what was done outlives it", async () => {
  using folder = temporaryFolder();
  await using nats = await startNats({ dir: folder.path });
  const launch = (name: string, event: string, ...args: string[]) => launchOn(nats, folder.path, { name, event, args });
  const first = await launch("first", "leading");
  const second = await launch("second", "listening");
  await first.relay.waitFor(isVersion(2));

  expect(await ask(second.dir, "/readyz")).toBe("200 ready");
  expect(await ask(first.dir, "/readyz")).toBe("200 ready");
  expect(await ask(second.dir, "/metrics")).toContain("\nheddle_leading 0\n");
  const seen = await ask(first.dir, "/metrics");
  expect(seen).toContain("\nheddle_leading 1\n");
  expect(seen).toMatch(/\nheddle_ledger_write_seconds_count [1-9]/);
  expect(seen).toContain('\nheddle_store_errors_total{part="keys"} 0\n');

  const admin = adminOf(first.dir);
  expect((await admin("status")).text).toMatch(new RegExp(`^relay +runs as process ${first.relay.pid}\\n`));
  expect((await admin("ledger", "verify")).text).toMatch(/^The ledger holds together: \d+ entries/);
  expect((await admin("ledger", "export", join(folder.path, "ledger"))).code).toBe(0);
  expect((await admin("blobs", "prune")).text).toMatch(/^Deleted \d+ superfluous blobs .*; \d+ are needed$/);
  const [device] = (await admin("contributors", "--json")).text
    .split("\n")
    .map((line) => JSON.parse(line) as { readonly contributor: string; readonly accepted: number });
  expect(device?.accepted).toBeGreaterThanOrEqual(2);
  // The other relay has the same done: by itself, or by the one that leads.
  const other = adminOf(second.dir);
  expect((await other("status")).text).toMatch(new RegExp(`^relay +led by process ${first.relay.pid} on .*\\n`));
  expect((await other("contributors")).text).toContain(device?.contributor);
  expect((await other("ledger", "verify")).code).toBe(0);
  expect((await other("backup", join(folder.path, "backup"))).text).toMatch(/^Backed up the ledger and \d+ blobs/);
  expect((await other("blobs", "prune")).text).toMatch(/^Deleted \d+ superfluous blobs .*; \d+ are needed$/);
  expect(await other("unban", device?.contributor ?? "")).toEqual({
    code: 1,
    text: "Cannot unban: this device is not banned",
  });
  expect((await other("pause")).code).toBe(0);
  expect((await admin("status")).text).toMatch(/^relay +runs as process \d+, paused\n/);
  expect((await other("resume")).code).toBe(0);
  const edge = await launch("edge", "listening", "--no-contributor");
  const { url } = await edge.relay.waitFor(({ event }) => event === "listening");
  running.add(startContributor(String(url), join(folder.path, "guest"), ["--threads", "1", "--engine", "wasm"]));
  const connected = async (): Promise<number> => {
    const { sessions } = JSON.parse((await admin("status", "--json")).text) as {
      readonly sessions: readonly unknown[];
    };
    return sessions.length;
  };
  await vi.waitUntil(async () => (await connected()) === 3, { timeout: 60_000, interval: 100 });
  expect((await adminOf(edge.dir)("drain")).text).toMatch(/\nDrained: the relay has ended$/);
  expect(await edge.relay.exited).toBe(0);
  // The links of an edge that is drained end at the leader, too, by its word: sooner than dead ones are noticed.
  await vi.waitUntil(async () => (await connected()) === 2, { timeout: 5_000, interval: 50 });
  const third = await launch("first", "operator");
  expect(third.relay.events.at(0)?.["msg"]).toContain("another relay does; give each one its own --dir");
  expect(await third.relay.stop("SIGTERM")).toBe(0);

  const { url: taken } = await second.relay.waitFor(({ event }) => event === "listening");
  const late = await launch("late", "failing", "--no-contributor", "--port", new URL(String(taken)).port);
  expect(late.relay.errors()).toMatch(/^The relay cannot go on: Cannot listen on .* choose another with --port\n/);
  expect(await late.relay.exited, "the port may be free at another start").toBe(1);

  expect((await admin("pause")).code).toBe(0);
  expect((await admin("ban", device?.contributor ?? "", "--reason", "Sends noise")).code).toBe(0);
  expect((await admin("drain")).text).toMatch(/\nDrained: the relay has ended$/);
  expect(await first.relay.exited).toBe(0);
  await second.relay.waitFor(({ event }) => event === "leading");
  expect(await ask(second.dir, "/readyz")).toBe("200 ready");
  expect(await ask(second.dir, "/metrics")).toContain("\nheddle_leading 1\n");
  const next = adminOf(second.dir);
  expect((await next("status")).text).toMatch(/^relay +runs as process \d+, paused\n(.*\n)*banned +1\n/);
  expect((await next("resume")).code).toBe(0);
  await second.relay.waitFor(isVersion(3));
  expect((await next("ledger", "verify")).code).toBe(0);
  expect(await second.relay.stop("SIGTERM")).toBe(0);
});

test("a relay that is asked to end while it takes the lead gives the lease up", async () => {
  using folder = temporaryFolder();
  await using nats = await startNats({ dir: folder.path });
  const [event, args] = ["listening", ["--no-contributor"]] as const;
  const first = await launchOn(nats, folder.path, { name: "first", event, args });
  const second = await launchOn(nats, folder.path, { name: "second", event, args });
  const { keys, close } = await openNatsStore(nats.address());
  await first.relay.stop("SIGKILL");
  const name = `process ${second.relay.pid} on `;
  await vi.waitUntil(
    async () => {
      const lease = await lookAtLease(keys, LEADER_KEY);
      return lease.type === "held" && lease.holder.startsWith(name);
    },
    { timeout: 10_000, interval: 1 },
  );
  expect(await second.relay.stop("SIGTERM")).toBe(0);
  expect(second.relay.events.some(({ event }) => event === "leading")).toBe(false);
  expect(await lookAtLease(keys, LEADER_KEY)).toEqual({ type: "released" });
  await close();
});
