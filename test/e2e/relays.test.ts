/**
 * Several relays of one run on one NATS, all serving contributors, who reach them through a proxy that tries the next one where
 * nobody listens: an edge is killed, then the leader, then the next leader is drained. What contributors were told was accepted
 * is what the ledger holds, each once, and every replica of the shared base has the ledger's digest.
 */
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { digestOf, floatBytes } from "../../src/base/bytes.ts";
import { openNotebook } from "../../src/contributor/notebook.ts";
import { decodeEntry } from "../../src/protocol/chain.ts";
import type { RunView } from "../../src/protocol/run-view.ts";
import { openEmbeddedStore } from "../../src/store/embedded.ts";
import { openNatsStore } from "../../src/store/nats.ts";
import { startNats } from "../../src/store/nats-server.fixture.ts";
import { openLine, type Line } from "../fixtures/line.ts";
import {
  adminOf,
  launchRelay,
  QUICK_CHARTER,
  startContributor,
  temporaryFolder,
  type PrintedEvent,
  type Running,
} from "./processes.ts";

const running = new Set<Running>();
const lines = new Set<Line>();
afterEach(async () => {
  await Promise.all([...running].map((process) => process.stop("SIGKILL")));
  lines.forEach((line) => line.close());
  running.clear();
  lines.clear();
});

const CHARTER = { ...QUICK_CHARTER, round: { trainMs: 400, stepsMax: 10, graceMs: 3_000, judgeMs: 5_000 } };

const NAMES = ["ada", "bob", "cy"];

interface Relay extends Running {
  readonly dir: string;
  readonly port: number;
}

const isAccepted = ({ event, verdict }: PrintedEvent): boolean =>
  event === "verdict" && (verdict as { readonly type: string }).type === "accepted";
const acceptedOf = ({ events }: Running): string[] => events.filter(isAccepted).map(({ id }) => String(id));

test("relays that share a run carry its contributors; killed or drained, nothing accepted is lost or counted twice", async () => {
  using folder = temporaryFolder();
  await using nats = await startNats({ dir: folder.path });
  const relays: Relay[] = [];
  const launch = async (name: string): Promise<Relay> => {
    const dir = join(folder.path, name);
    const relay = launchRelay({ dir, args: ["--nats", nats.url(), "--no-contributor"], charter: CHARTER });
    running.add(relay);
    const { url } = await relay.waitFor(({ event }) => event === "listening");
    relays.push({ ...relay, dir, port: Number(new URL(String(url)).port) });
    return relays.at(-1) as Relay;
  };
  const [first, second, third] = [await launch("first"), await launch("second"), await launch("third")];
  expect(relays.map(({ events }) => events.some(({ event }) => event === "leading"))).toEqual([true, false, false]);
  const contributors: Running[] = [];
  for (const [i, name] of NAMES.entries()) {
    const line = await openLine({ ports: () => [...relays.slice(i), ...relays.slice(0, i)].map(({ port }) => port) });
    lines.add(line);
    contributors.push(startContributor(line.origin, join(folder.path, name), ["--threads", "1", "--engine", "wasm"]));
  }
  contributors.forEach((contributor) => running.add(contributor));
  const [ada, bob, cy] = contributors as [Running, Running, Running];
  /** Every contributor is told of one more accepted contribution. */
  const goesOn = async (): Promise<void> => {
    const before = contributors.map((contributor) => acceptedOf(contributor).length);
    await vi.waitUntil(() => contributors.every((one, i) => acceptedOf(one).length > (before[i] ?? 0)), {
      timeout: 60_000,
      interval: 50,
    });
  };
  await goesOn();
  for (const edge of [bob, cy]) {
    await edge.waitFor(({ event, lane }) => event === "status" && lane === "rtc");
  }

  await second.stop("SIGKILL");
  relays.splice(relays.indexOf(second), 1);
  await goesOn();

  await first.stop("SIGKILL");
  relays.splice(relays.indexOf(first), 1);
  await third.waitFor(({ event }) => event === "leading");
  await goesOn();

  const fourth = await launch("fourth");
  expect((await adminOf(third.dir)("drain")).code).toBe(0);
  expect(await third.exited).toBe(0);
  await fourth.waitFor(({ event }) => event === "leading");
  await goesOn();

  expect((await adminOf(fourth.dir)("pause")).code).toBe(0);
  const runOf = async ({ port }: Relay): Promise<RunView> =>
    (await (await fetch(`http://127.0.0.1:${port}/api/run`)).json()) as RunView;
  await vi.waitUntil(async () => (await runOf(fourth)).phase === "paused", { timeout: 30_000 });
  const store = await openNatsStore(nats.address());
  const entries = (await store.log.read(0, await store.log.length())).map((bytes) => {
    const entry = decodeEntry(bytes);
    return entry.ok ? entry.value.event : expect.fail(entry.detail);
  });
  await store.close();
  const accepted = entries.flatMap((event) =>
    event.type === "judged" && event.verdict.type === "accepted" ? [event.contribution as string] : [],
  );
  const merges = entries.filter((event) => event.type === "merged");
  await vi.waitUntil(() => contributors.flatMap(acceptedOf).length >= accepted.length, { timeout: 30_000 });
  expect(contributors.flatMap(acceptedOf).sort(), "told = accepted").toEqual([...accepted].sort());
  expect(merges.flatMap(({ contributions }) => contributions as readonly string[]).sort(), "merged once").toEqual(
    [...accepted].sort(),
  );
  expect(entries.flatMap((event) => (event.type === "led" ? [event.epoch] : []))).toEqual([1, 2, 3]);
  const head = merges.at(-1)?.head.digest;
  const { run, versions } = await runOf(fourth);
  expect(versions.at(-1)?.digest).toBe(head);
  const checkpoint = await fetch(`http://127.0.0.1:${fourth.port}/blob/${head}`);
  expect(digestOf(new Uint8Array(await checkpoint.arrayBuffer()))).toBe(head);
  const { version } = versions.at(-1) ?? {};
  for (const [i, contributor] of contributors.entries()) {
    await contributor.waitFor((said) => said.event === "status" && said["version"] === version); // written down before it ends
    expect(await contributor.stop("SIGINT")).toBe(0);
    const kept = await openEmbeddedStore(join(folder.path, NAMES[i] as string));
    const { base } = await openNotebook(kept, run).read();
    await kept.close();
    expect(base === null ? null : digestOf(floatBytes(base.params)), NAMES[i]).toBe(head);
  }
  expect(await fourth.stop("SIGTERM")).toBe(0);
  expect(ada.errors() + bob.errors() + cy.errors()).toBe("");
});
