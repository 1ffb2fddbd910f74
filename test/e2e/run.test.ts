/**
 * A real relay with its own contributor, as `npm start` runs it: versions appear and the loss falls, a clean stop resumes, a
 * kill at any moment loses nothing that was accepted and counts nothing twice, one who vanishes delays nobody.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createRng } from "../../src/base/rng.ts";
import { decodeEntry, verifyChain } from "../../src/protocol/chain.ts";
import { verifySignature } from "../../src/net/device-key.ts";
import type { LedgerEntry } from "../../src/protocol/ledger.ts";
import { openPlace, type Place } from "../../src/relay/place.ts";
import { LEASE_MS } from "../../src/store/lease.ts";
import { startNats } from "../../src/store/nats-server.fixture.ts";
import {
  isVersion,
  launchRelay,
  QUICK_CHARTER,
  startContributor,
  startRelay,
  temporaryFolder,
  type Running,
} from "./processes.ts";

const running = new Set<Running>();
afterEach(async () => {
  await Promise.all([...running].map((process) => process.stop("SIGKILL")));
  running.clear();
});

function kept<T extends Running>(process: T): T {
  running.add(process);
  return process;
}

/** For a test that waits for versions and asks nothing else of them. */
const HASTY_CHARTER = { ...QUICK_CHARTER, round: { trainMs: 400, stepsMax: 10, graceMs: 3_000, judgeMs: 5_000 } };

describe("a relay with its own contributor", () => {
  test("merges versions, the evaluation loss falls, and a clean stop resumes at the same version", async () => {
    using folder = temporaryFolder();
    const first = kept(await startRelay({ dir: folder.path }));
    const tenth = await first.waitFor(isVersion(10), 120_000);
    const start = (await runView(first.origin)).versions[0];
    expect(Number(tenth["evalLoss"])).toBeLessThan(0.9 * (start?.evalLoss ?? 0));
    for (const field of [
      "version",
      "evalLoss",
      "accepted",
      "refused",
      "bytesUp",
      "bytesDown",
      "tokensPerS",
      "digest",
    ]) {
      expect(tenth, field).toHaveProperty(field);
    }
    expect(await first.stop("SIGINT")).toBe(0);
    const head = (await ledgerOf({ dir: join(folder.path, "relay"), nats: null })).at(-1);

    const second = kept(await startRelay({ dir: folder.path }));
    const listening = second.events.find(({ event }) => event === "listening");
    const merged = (await runView(second.origin)).versions.filter(({ version }) => version === listening?.["version"]);
    expect(Number(listening?.["version"])).toBeGreaterThanOrEqual(10);
    expect(merged[0]?.digest).toBe(listening?.["digest"]);
    expect(head).toBeDefined();
    await second.waitFor(isVersion(Number(listening?.["version"]) + 1));
  });

  test("killed at three random moments, loses no accepted contribution and counts none twice", async () => {
    using folder = temporaryFolder();
    const rng = createRng("kill -9", 20261121);
    const env = { NODE_COMPILE_CACHE: join(folder.path, "compiled") };
    let highest = 0;
    for (let i = 0; i < 3; i += 1) {
      const relay = kept(await startRelay({ dir: folder.path, env }));
      expect(
        Number(relay.events.find(({ event }) => event === "listening")?.["version"]),
        `start ${i}`,
      ).toBeGreaterThanOrEqual(highest);
      // Kill after some further versions plus a part of a round, wherever that happens to be.
      const wanted = highest + 1 + rng.below(2);
      const seen = await relay.waitFor(isVersion(wanted));
      await new Promise((settle) => {
        setTimeout(settle, rng.below(2_000)); // the moment itself is what is being tested
      });
      highest = Math.max(
        Number(seen["version"]),
        ...relay.events.filter(isVersion(0)).map((event) => Number(event["version"])),
      );
      await relay.stop("SIGKILL");
    }
    const compiled = readdirSync(env.NODE_COMPILE_CACHE, { recursive: true });
    expect(compiled.length, "a relay that is killed has kept what it compiled").toBeGreaterThan(100);
    checkLedger(await ledgerOf({ dir: join(folder.path, "relay"), nats: null }), highest);
  });

  test("on NATS, others take the lead in 5 s from one that is killed, and from one that stops and wakes up deposed", async () => {
    using folder = temporaryFolder();
    await using nats = await startNats({ dir: folder.path });
    const launch = (name: string): Running => {
      const dir = join(folder.path, name);
      return kept(launchRelay({ dir, args: ["--nats", nats.url()], charter: HASTY_CHARTER }));
    };
    let highest = 0;
    let startMs = 0;
    /** Stops the one that leads and waits for the next. */
    const leaderAfter = async (stop: () => unknown, relays: readonly Running[]): Promise<Running> => {
      const begin = Date.now();
      await stop();
      const leads = relays.map((relay) => relay.waitFor(({ event }) => event === "leading").then(() => relay));
      const leader = await Promise.any(leads);
      // A slow machine is as slow at a takeover as it was at the first start, which does the same work.
      expect(Date.now() - begin).toBeLessThan(Math.max(5_000, LEASE_MS + 500 + startMs));
      return leader;
    };
    const launchedMs = Date.now();
    const first = launch("first");
    await first.waitFor(({ event }) => event === "leading");
    startMs = Date.now() - launchedMs;
    const others = [launch("second"), launch("third")];
    for (const other of others) {
      const follows = await other.waitFor(({ event }) => event === "following");
      expect(follows["leader"]).toMatch(`process ${first.pid} on `);
      await other.waitFor(({ event }) => event === "listening");
    }
    const merges = async (leader: Running): Promise<void> => {
      await leader.waitFor(isVersion(highest + 1));
      highest = Math.max(...leader.events.filter(isVersion(0)).map((event) => Number(event["version"])));
    };
    await merges(first);
    expect(others.flatMap(({ events }) => events).map(({ event }) => event)).not.toContain("leading");
    const second = await leaderAfter(() => first.stop("SIGKILL"), others);
    await merges(second);
    const rest = others.filter((other) => other !== second);
    const third = await leaderAfter(() => process.kill(second.pid, "SIGSTOP"), rest);
    process.kill(second.pid, "SIGCONT");
    expect(await second.exited).toBe(1);
    expect(second.errors()).toMatch(/^The relay cannot go on: /);
    expect(await third.stop("SIGINT")).toBe(0);
    const entries = await ledgerOf({ dir: folder.path, nats: nats.address() });
    checkLedger(entries, highest);
    expect(entries.flatMap(({ event }) => (event.type === "led" ? [event.epoch] : []))).toEqual([1, 2, 3]);
  });

  test("one that disappears in the middle of a round delays nobody beyond the deadline", async () => {
    using folder = temporaryFolder();
    const relay = kept(await startRelay({ dir: folder.path }));
    const other = kept(startContributor(relay.origin, join(folder.path, "other"), ["--threads", "1"]));
    await other.waitFor((event) => event.event === "verdict", 60_000);
    const nextVersionMs = async (): Promise<number> => {
      const at = Date.now();
      const version = Math.max(0, ...relay.events.filter(isVersion(0)).map((event) => Number(event["version"])));
      await relay.waitFor(isVersion(version + 1));
      return Date.now() - at;
    };
    await nextVersionMs(); // the rest of a round
    const wholeMs = await nextVersionMs();
    const training = other.events.filter((event) => event.event === "status" && event["status"] === "training").length;
    await other.waitFor(
      () =>
        other.events.filter((event) => event.event === "status" && event["status"] === "training").length > training,
    );
    await other.stop("SIGKILL");
    // The rest is this machine's own slowness, which a round shows in which nobody is missing.
    const { trainMs, graceMs, judgeMs } = QUICK_CHARTER.round;
    expect(await nextVersionMs()).toBeLessThan(Math.max(15_000, trainMs + graceMs + judgeMs + 2 * wholeMs));
  });
});

async function runView(origin: string): Promise<import("../../src/protocol/run-view.ts").RunView> {
  return (await (await fetch(`${origin}/api/run`)).json()) as import("../../src/protocol/run-view.ts").RunView;
}

/** Reads and verifies the whole ledger of a relay that is not running. */
async function ledgerOf(place: Place): Promise<LedgerEntry[]> {
  expect(existsSync(place.dir)).toBe(true);
  const store = await openPlace(place);
  try {
    const entries = await store.log.read(0, await store.log.length());
    const chain = await verifyChain(entries, { verify: verifySignature });
    expect(chain.ok, chain.ok ? "" : chain.detail).toBe(true);
    return entries.map((bytes) => {
      const entry = decodeEntry(bytes);
      expect(entry.ok).toBe(true);
      return entry.ok ? entry.value : (undefined as never);
    });
  } finally {
    await store.close();
  }
}

/** Every accepted contribution is in exactly one version; versions follow each other; nothing else is in the base. */
function checkLedger(entries: readonly LedgerEntry[], highest: number): void {
  const events = entries.map(({ event }) => event);
  const accepted = events
    .filter((event) => event.type === "judged" && event.verdict.type === "accepted")
    .map((event) => (event.type === "judged" ? event.contribution : ""));
  const merges = events.filter((event) => event.type === "merged");
  const merged = merges.flatMap((event) => event.contributions);
  expect(new Set(merged).size, "no contribution is merged twice").toBe(merged.length);
  expect(new Set(accepted).size, "no contribution is accepted twice").toBe(accepted.length);
  const open = accepted.filter((id) => !merged.some((other) => other === id));
  const last = events.findLastIndex((event) => event.type === "merged");
  const acceptedLater = new Set(
    events.slice(last + 1).map((event) => (event.type === "judged" ? event.contribution : "")),
  );
  expect(
    open.filter((id) => !acceptedLater.has(id as never)),
    "accepted before the last merge, so merged",
  ).toEqual([]);
  expect(merges.map((event) => event.head.version)).toEqual(merges.map((_event, i) => i + 1));
  expect(merges.length).toBeGreaterThanOrEqual(highest);
  for (const [i, event] of merges.entries()) {
    if (i > 0) {
      expect(event.head.parent).toBe(merges[i - 1]?.head.digest);
    }
  }
}
