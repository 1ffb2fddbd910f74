/**
 * WebRTC links on one relay process, from one process that dials them: each has a session over WebSocket, offers its second link there
 * and sends over it what a contributor sends. All that are to stay must still carry messages after the last of all dials, some of
 * which are closed again. The library's objects are lost to the garbage collector where nothing holds them (`net/rtc-node.ts`), so
 * both processes collect all of theirs every DIALS_A_COLLECTION dials.
 */
import { readdir, readFile, readlink } from "node:fs/promises";
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { setTimeout as sleep } from "node:timers/promises";
import { assert } from "../../src/base/assert.ts";
import { encodeMessage } from "../../src/protocol/codec.ts";
import type { Link } from "../../src/net/link.ts";
import { rounded, spreadOf, type Outcome } from "./outcome.ts";
import type { MetricsRead } from "../../test/e2e/metrics.ts";
import { startMeasured } from "./relay-process.ts";
import { openSession, type Session } from "./session.ts";

export interface PeersOptions {
  /** Links that stay open. */
  readonly peers: number;
  /** Dials in all. */
  readonly dials: number;
}

const CHARTER = {
  model: { channels: 32, layers: 1, heads: 2, kvHeads: 1, hidden: 64, time: 32 },
  inner: { batch: 4 },
};
const DIALS_AT_ONCE = 4;
const DIALS_A_COLLECTION = 50;
const EXCHANGES = 5;
const EXCHANGE_MS = 10_000;
const SETTLE_MS = 5_000;

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

interface Dialled {
  readonly session: Session;
  readonly link: Link;
  /** The next answer that comes over the second link. */
  answered: () => void;
}

export async function measurePeers({ peers, dials }: PeersOptions, say: (sentence: string) => void): Promise<Outcome> {
  await using relay = await startMeasured(CHARTER);
  const url = relay.origin.replace("http", "ws");
  const lost: string[] = [];
  const open: Dialled[] = [];
  const dialsMs: number[] = [];
  const sessions: Session[] = [];
  say(`Opening ${peers} sessions …`);
  for (let from = 0; from < peers; from += 20) {
    const rush = Array.from({ length: Math.min(20, peers - from) }, () =>
      openSession({ url, onLost: (reason) => lost.push(reason) }),
    );
    sessions.push(...(await Promise.all(rush)));
  }
  const resident = async (): Promise<number> => (await relay.metrics())("process_resident_memory_bytes");
  const collectBoth = (): void => {
    collect();
    relay.collect();
  };
  collectBoth();
  await sleep(SETTLE_MS);
  const before = await relay.metrics();
  const ownBefore = process.cpuUsage();
  const beginMs = performance.now();
  const dial = async (session: Session): Promise<Dialled> => {
    const dialMs = performance.now();
    const dialled: Dialled = {
      session,
      link: await session.openRtc(() => dialled.answered()),
      answered: () => undefined,
    };
    dialsMs.push(performance.now() - dialMs);
    if (dialsMs.length % DIALS_A_COLLECTION === 0) {
      collectBoth();
    }
    return dialled;
  };
  say(`Dialling ${dials} times, ${peers} links stay …`);
  const waiting = [...sessions];
  const dialOnes = async (): Promise<void> => {
    for (let session = waiting.shift(); session !== undefined; session = waiting.shift()) {
      open.push(await dial(session));
    }
  };
  await Promise.all(Array.from({ length: DIALS_AT_ONCE }, dialOnes));
  const full = await resident();
  const exchangedMs = await exchangeAll(open);
  // The rest of the dials come from sessions that come and go, beside those that stay.
  let rest = dials - peers;
  const passBy = async (): Promise<void> => {
    while (rest > 0) {
      rest -= 1;
      const session = await openSession({ url, onLost: (reason) => lost.push(reason) });
      await dial(session);
      session.close();
    }
  };
  await Promise.all(Array.from({ length: DIALS_AT_ONCE }, passBy));
  const seconds = (performance.now() - beginMs) / 1_000;
  collectBoth();
  await sleep(SETTLE_MS);
  exchangedMs.push(...(await exchangeAll(open)));
  const after = await relay.metrics();
  const ports = await udpPortsOf(relay.pid);
  assert(ports.length === 1, `The relay has ${ports.length} UDP ports`);
  const { user, system } = process.cpuUsage(ownBefore);
  assert(lost.length === 0, `${lost.length} links or sessions were lost, the first: ${String(lost[0])}`);
  assert(dialsMs.length === dials, "Not every dial has opened a link");
  assert(after("heddle_sessions", 'lane="rtc"') === peers, "The relay has not as many links as were left open");
  const relayCollections = collections(after) - collections(before);
  assert(
    relayCollections >= Math.floor(dials / DIALS_A_COLLECTION),
    "The relay did not collect its garbage when told to",
  );
  open.forEach(({ session }) => session.close());
  return {
    peers,
    dials,
    lost: lost.length,
    seconds: rounded(seconds, 1),
    dialMs: spreadOf(dialsMs),
    exchangeMs: spreadOf(exchangedMs),
    residentMBBefore: rounded(before("process_resident_memory_bytes") / 1e6, 1),
    residentMBDialled: rounded(full / 1e6, 1),
    residentMBAfter: rounded(after("process_resident_memory_bytes") / 1e6, 1),
    residentKBPerPeer: rounded((full - before("process_resident_memory_bytes")) / 1e3 / peers, 1),
    relayProcessorS: rounded(after("process_cpu_seconds_total") - before("process_cpu_seconds_total"), 2),
    dialerProcessorS: rounded((user + system) / 1e6, 2),
    eventLoopP99Ms: rounded(1_000 * after("nodejs_eventloop_lag_p99_seconds"), 1),
    relayCollections,
    udpPorts: ports.length,
  };
}

/** Each sends a ping over its WebRTC link and waits for the answer there, some times, a few at once. */
async function exchangeAll(open: readonly Dialled[]): Promise<number[]> {
  const spent: number[] = [];
  const ping = encodeMessage({ type: "ping" });
  for (let time = 0; time < EXCHANGES; time += 1) {
    const waiting = [...open];
    const exchange = async (): Promise<void> => {
      for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) {
        const beginMs = performance.now();
        const answer = Promise.withResolvers<void>();
        one.answered = answer.resolve;
        one.link.send(ping);
        const late = setTimeout(() => answer.reject(new Error("A link does not carry messages any more")), EXCHANGE_MS);
        await answer.promise;
        clearTimeout(late);
        spent.push(performance.now() - beginMs);
      }
    };
    await Promise.all(Array.from({ length: DIALS_AT_ONCE }, exchange));
  }
  return spent;
}

/** Of the whole heap. */
function collections(metrics: MetricsRead): number {
  return metrics("nodejs_gc_duration_seconds_count", 'kind="major"');
}

/** UDP ports that a process of this Linux has open. */
async function udpPortsOf(pid: number): Promise<readonly string[]> {
  const descriptors = await readdir(`/proc/${pid}/fd`);
  const links = await Promise.all(descriptors.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => "")));
  const tables = await Promise.all(["udp", "udp6"].map((name) => readFile(`/proc/${pid}/net/${name}`, "utf8")));
  const rows = tables.flatMap((table) => table.trim().split("\n").slice(1)).map((row) => row.trim().split(/\s+/));
  const own = rows.filter((row) => links.includes(`socket:[${row[9] ?? ""}]`));
  return [...new Set(own.map((row) => row[1]?.split(":")[1] ?? ""))];
}
