import { encode } from "@msgpack/msgpack";
import { afterEach, expect, test, vi } from "vitest";
import { digestOf, type Bytes } from "../base/bytes.ts";
import { openJournal, type Fold, type Journal, type JournalOptions } from "../coordinator/journal.ts";
import { createDeviceKey } from "../net/device-key.ts";
import { recorder } from "../net/contract.ts";
import { createMemoryPair } from "../net/memory.ts";
import { systemClock } from "../net/system-clock.ts";
import { appendEntry, decodeEntry } from "../protocol/chain.ts";
import { encodeCharter } from "../protocol/charter-codec.ts";
import { exampleCharter } from "../protocol/examples.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { VersionInfo } from "../protocol/messages.ts";
import { createMemoryHub } from "../store/bus-memory.ts";
import type { Bus } from "../store/bus.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { BEAT_SUBJECT, encodeBeat, readBeat, startBeats, type Beat } from "./beat.ts";
import { NEWS_SUBJECT, toldLog } from "./news.ts";
import { CANDIDATE_SUBJECT, follow, type FollowedRun, type Following } from "./follow.ts";

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) {
    await close();
  }
});

const BEAT: Beat = { epoch: 1, leader: "process 1 on a", version: 0, round: 7, phase: "training", connected: 3 };
const HEAD: VersionInfo = {
  version: 0,
  digest: digestOf(Uint8Array.of(1)),
  parent: null,
  update: null,
  checkpointBytes: 400,
  evalLoss: 5,
};

interface World {
  readonly store: Store;
  /** The leader's end of the bus. */
  readonly leader: Bus;
  readonly journal: Journal;
  readonly journalOptions: JournalOptions;
  /** Of the run. */
  begin(): Promise<void>;
  readonly following: Following;
  readonly runs: FollowedRun[];
  readonly failures: unknown[];
  readonly logged: string[];
  /** Says a beat, and waits until `seen` holds. */
  beat(beat: Beat, seen: () => unknown): Promise<void>;
}

async function worldOf({ begun = true, newsMs = 100 } = {}): Promise<World> {
  const hub = createMemoryHub();
  const store = createMemoryStore();
  const run = encodeCharter(exampleCharter);
  await store.keys.set("charter", run);
  const key = await createDeviceKey();
  const journalOptions = { log: store.log, key, clock: systemClock };
  const { journal } = await openJournal({ ...journalOptions, epoch: 1 });
  const begin = async (): Promise<void> => {
    const started = { type: "started", run: digestOf(run), relay: key.publicKey, head: HEAD } as const;
    await journal.append([started, { type: "led", epoch: 1 }], 1);
  };
  await (begun ? begin() : undefined);
  const [leader, bus] = [hub.connect(), hub.connect()];
  const [runs, failures, logged]: [FollowedRun[], unknown[], string[]] = [[], [], []];
  const following = await follow({
    bus,
    store,
    name: "process 2 on b",
    newsMs,
    answerRtc: async () => "no",
    onReady: async (ready) => void runs.push(ready),
    onChange: () => undefined,
    onFailure: (error) => failures.push(error),
    log: (sentence) => logged.push(sentence),
  });
  closing.push(() => following.close("The test is over"));
  const beat = async (said: Beat, seen: () => unknown): Promise<void> => {
    leader.publish(BEAT_SUBJECT, encodeBeat(said));
    await vi.waitUntil(seen);
  };
  return { store, leader, journal, journalOptions, begin, following, runs, failures, logged, beat };
}

test("follow() serves the run from the ledger once a leader is heard, and reads on when it says so", async () => {
  const world = await worldOf();
  expect(world.runs.length).toBe(0);
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  expect(run.view()).toMatchObject({ phase: "training", connected: 3, round: 7, parameters: 100 });
  expect([run.head().digest, run.leader()]).toEqual([HEAD.digest, { epoch: 1, name: "process 1 on a" }]);
  expect(run.operatorView().paused).toBe(false);
  await world.journal.append([{ type: "paused" }], 2);
  await world.beat({ ...BEAT, version: 1 }, () => run.operatorView().paused);
  expect(world.failures).toEqual([]);
});

test("follow() reads on before it calls a blob unknown: its entry may be younger than the last beat", async () => {
  const world = await worldOf();
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  const read = vi.spyOn(world.store.log, "length");
  expect(await run.isPublic(HEAD.digest)).toBe(true);
  expect(read).not.toHaveBeenCalled();
  await world.journal.append([{ type: "paused" }], 2);
  const strange = digestOf(Uint8Array.of(9));
  expect(await Promise.all(Array.from({ length: 50 }, async () => run.isPublic(strange)))).toEqual(
    Array(50).fill(false),
  );
  expect(run.operatorView().paused).toBe(true);
  expect(read.mock.calls.length).toBeLessThan(5); // who asks for nonsense costs little
});

test("follow() takes news without reading, reads what it missed, and knows old news", async () => {
  const world = await worldOf();
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  const read = vi.spyOn(world.store.log, "read");
  const told = await openJournal({ ...world.journalOptions, log: toldLog(world.store.log, world.leader), epoch: 2 });
  await told.journal.append([{ type: "paused" }], 2);
  await vi.waitUntil(() => run.operatorView().paused);
  const calls = read.mock.calls.length;
  const untold = await openJournal({ ...world.journalOptions, epoch: 3 });
  await untold.journal.append([{ type: "resumed" }], 3);
  const [last] = await world.store.log.read(5, 1);
  const again = await openJournal({ ...world.journalOptions, log: toldLog(world.store.log, world.leader), epoch: 4 });
  await again.journal.append([{ type: "paused" }, { type: "resumed" }], 4);
  await vi.waitUntil(() => run.operatorView().paused === false);
  expect(read.mock.calls.length).toBeGreaterThan(calls);
  world.leader.publish(NEWS_SUBJECT, encode([5, [last]]));
  world.leader.publish(NEWS_SUBJECT, encode([1_000, "no entries"]));
  const readings = read.mock.calls.length;
  await new Promise((settle) => setTimeout(settle, 300)); // news are gathered
  expect([run.operatorView().paused, world.failures, world.logged, read.mock.calls.length]).toEqual([
    false,
    [],
    [],
    readings,
  ]);
});

test("follow() gathers news, and takes them with one look at a signature where a blob is asked for", async () => {
  const world = await worldOf({ newsMs: 60_000 });
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  const verify = vi.spyOn(crypto.subtle, "verify");
  closing.push(() => verify.mockRestore());
  const told = await openJournal({ ...world.journalOptions, log: toldLog(world.store.log, world.leader), epoch: 2 });
  for (const type of ["paused", "resumed", "paused"] as const) {
    await told.journal.append([{ type }], 2);
  }
  await new Promise((settle) => setTimeout(settle, 10));
  expect([verify.mock.calls.length, run.operatorView().paused]).toEqual([0, false]);
  expect(await run.isPublic(digestOf(Uint8Array.of(9)))).toBe(false);
  expect([verify.mock.calls.length, run.operatorView().paused]).toEqual([1, true]);
});

test("follow() takes what it has heard before it reads what a beat says", async () => {
  const world = await worldOf();
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  await openJournal({ ...world.journalOptions, log: toldLog(world.store.log, world.leader), epoch: 2 });
  const read = vi.spyOn(world.store.log, "read");
  await world.beat({ ...BEAT, epoch: 2 }, () => run.leader().epoch === 2);
  expect(read).not.toHaveBeenCalled();
});

test("follow() keeps no more news than it may, and asks the store for the rest", async () => {
  const world = await worldOf({ newsMs: 60_000 });
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  for (let i = 0; i < 6; i += 1) {
    world.leader.publish(NEWS_SUBJECT, encode([2, [new Uint8Array(200_000)]]));
  }
  await world.journal.append([{ type: "paused" }], 2);
  world.leader.publish(NEWS_SUBJECT, encode([2, await world.store.log.read(2, 1)])); // there is room for it
  const read = vi.spyOn(world.store.log, "read");
  await new Promise((settle) => setTimeout(settle, 10));
  await run.isPublic(digestOf(Uint8Array.of(9)));
  expect([run.operatorView().paused, world.logged.length, world.failures]).toEqual([true, 5, []]);
  expect(read.mock.calls.length, "one reading for all that was amiss, and one of who asked").toBe(2);
});

test("follow() misses none of many news, heard while others are taken", async () => {
  const world = await worldOf({ newsMs: 0 });
  await world.beat(BEAT, () => world.runs.length === 1);
  const told = await openJournal({ ...world.journalOptions, log: toldLog(world.store.log, world.leader), epoch: 2 });
  const read = vi.spyOn(world.store.log, "read");
  for (let i = 0; i < 300; i += 1) {
    await told.journal.append([{ type: i % 2 === 0 ? "paused" : "resumed" }], i);
    if (i % 3 === 0) {
      await new Promise((settle) => setImmediate(settle));
    }
  }
  await vi.waitUntil(() => world.following.fold()?.chain.length === told.journal.length());
  expect([read.mock.calls.length, world.logged, world.failures]).toEqual([0, [], []]);
});

test("follow() takes what is new of news that begin with what it knows", async () => {
  const world = await worldOf();
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  await world.journal.append([{ type: "paused" }], 2);
  await world.beat({ ...BEAT, version: 1 }, () => run.operatorView().paused);
  await world.journal.append([{ type: "resumed" }], 3);
  const read = vi.spyOn(world.store.log, "read");
  for (const at of [2, 3]) {
    world.leader.publish(NEWS_SUBJECT, encode([at, await world.store.log.read(at, 1)]));
  }
  await vi.waitUntil(() => !run.operatorView().paused);
  expect([read.mock.calls.length, world.logged]).toEqual([2, []]); // by this test alone
});

test("follow() takes no entry that does not come next from the bus, and goes on from the store", async () => {
  const world = await worldOf();
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  const entries = await world.store.log.read(0, 2);
  await world.journal.append([{ type: "paused" }], 2);
  world.leader.publish(NEWS_SUBJECT, encode([2, [...entries, Uint8Array.of(1)]]));
  await vi.waitUntil(() => run.operatorView().paused);
  world.leader.publish(NEWS_SUBJECT, encode([3, [Uint8Array.of(1)]]));
  await world.journal.append([{ type: "resumed" }], 3);
  await world.beat({ ...BEAT, version: 1 }, () => !run.operatorView().paused);
  expect(world.failures).toEqual([]);
});

test("follow() takes no news but what the relay has signed, and goes on with the entry that is in its place", async () => {
  const world = await worldOf();
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  await world.journal.append([{ type: "paused" }], 2);
  const [damaged] = (await world.store.log.read(2, 1)).map((entry) => entry.slice()) as [Bytes];
  damaged[damaged.length - 1] = (damaged.at(-1) as number) ^ 1; // in its signature
  expect(decodeEntry(damaged).ok).toBe(true);
  world.leader.publish(NEWS_SUBJECT, encode([2, [damaged]]));
  await vi.waitUntil(() => run.operatorView().paused);
  await world.journal.append([{ type: "resumed" }], 3);
  world.leader.publish(NEWS_SUBJECT, encode([3, await world.store.log.read(3, 1)]));
  await vi.waitUntil(() => world.failures.length > 0 || !run.operatorView().paused);
  expect(world.failures).toEqual([]);
  expect(world.logged).toEqual(["News of ledger entry 2 are not taken: its signature is not that of the relay"]);
});

test("follow() asks the store about signed news that contradict the state, and reads all again where its word is another", async () => {
  const world = await worldOf();
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  const { key } = world.journalOptions;
  const told = async (event: LedgerEvent): Promise<void> => {
    const { chain } = world.following.fold() as Fold;
    const { bytes } = await appendEntry(chain, event, { timeMs: 2, key });
    world.leader.publish(NEWS_SUBJECT, encode([chain.length, [bytes]]));
  };
  await told({ type: "resumed" }); // nobody has paused
  await vi.waitUntil(() => world.logged.length + world.failures.length === 1);
  await told({ type: "paused" }); // and never stored
  await vi.waitUntil(() => run.operatorView().paused);
  await world.journal.append([{ type: "paused" }, { type: "resumed" }], 3);
  await world.beat({ ...BEAT, version: 1 }, () => world.failures.length > 0 || !run.operatorView().paused);
  expect([world.failures, world.logged]).toEqual([
    [],
    ["News of ledger entry 2 and on are not taken: Cannot apply event: the run is resumed already"],
  ]);
});

test("a new leader ends the links of the one before; a deposed one is not heard any more", async () => {
  const world = await worldOf();
  const heard: Bytes[] = [];
  for (const epoch of [1, 2]) {
    await world.leader.subscribe(`lead.${epoch}`, (bytes) => heard.push(bytes));
  }
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  const [before, after] = [recorder(), recorder()];
  createMemoryPair({ attachA: before.attach, attachB: run.attach });
  await vi.waitUntil(() => heard.length === 1);
  await openJournal({ ...world.journalOptions, epoch: 2 });
  await world.beat({ ...BEAT, epoch: 2, leader: "process 3 on c" }, () => before.reasons().length === 1);
  expect(await before.closed()).toBe("Another relay leads this run now; come back");
  createMemoryPair({ attachA: after.attach, attachB: run.attach });
  await vi.waitUntil(() => heard.length >= 3); // the end of the first link, and the second
  await world.beat({ ...BEAT, connected: 99 }, () => true);
  await world.beat({ ...BEAT, epoch: 2, leader: "process 3 on c", connected: 4 }, () => run.view().connected === 4);
  expect([run.leader(), after.reasons()]).toEqual([{ epoch: 2, name: "process 3 on c" }, []]);
});

test("a beat of an epoch that the ledger does not know is nobody's, and leaves the leader heard", async () => {
  const world = await worldOf();
  world.leader.publish(BEAT_SUBJECT, encodeBeat({ ...BEAT, epoch: 2 ** 50, leader: "nobody" }));
  await world.beat(BEAT, () => world.runs.length === 1);
  const run = world.runs[0] as FollowedRun;
  const link = recorder();
  createMemoryPair({ attachA: link.attach, attachB: run.attach });
  const read = vi.spyOn(world.store.log, "length");
  await world.beat({ ...BEAT, epoch: 2 ** 50, leader: "nobody" }, () => read.mock.calls.length > 0);
  await world.beat({ ...BEAT, connected: 4 }, () => run.view().connected === 4);
  expect([run.leader().name, link.reasons(), world.failures]).toEqual([BEAT.leader, [], []]);
});

test("a beat before a run has begun is nobody's", async () => {
  const world = await worldOf({ begun: false });
  const read = vi.spyOn(world.store.log, "length");
  await world.beat(BEAT, () => read.mock.calls.length > 0);
  await world.begin();
  await world.beat(BEAT, () => world.runs.length + world.failures.length > 0);
  expect(world.failures).toEqual([]);
});

test("follow() hands on what it has read to whoever takes the lead, who reads the rest alone", async () => {
  const world = await worldOf();
  expect(world.following.fold()).toBeNull();
  await world.beat(BEAT, () => world.runs.length === 1);
  world.following.turnAway();
  await world.journal.append([{ type: "paused" }, { type: "resumed" }, { type: "paused" }], 2);
  const read = vi.spyOn(world.store.log, "read");
  const known = world.following.fold();
  const { durable } = await openJournal({ ...world.journalOptions, epoch: 2, known });
  expect([known?.chain.length, durable?.paused, durable?.epoch]).toEqual([2, true, 2]);
  expect(read.mock.calls).toEqual([
    [1, 1],
    [2, 3],
  ]);
});

test("follow() would take the lead, until it is closed", async () => {
  const world = await worldOf();
  const ask = (): Promise<Bytes> => world.leader.request(CANDIDATE_SUBJECT, new Uint8Array(), 200);
  expect(new TextDecoder().decode(await ask())).toBe("process 2 on b");
  await world.following.close("Over");
  await expect(ask()).rejects.toMatchObject({ code: "unreachable" });
});

test("startBeats() says changes of a rush together, and goes on while the bus is away", async () => {
  const hub = createMemoryHub();
  const [bus, other] = [hub.connect(), hub.connect()];
  const heard: (Beat | null)[] = [];
  await other.subscribe(BEAT_SUBJECT, (bytes) => heard.push(readBeat(bytes)));
  vi.useFakeTimers();
  closing.push(() => vi.useRealTimers());
  let round = 0;
  const beats = startBeats(bus, () => ({ ...BEAT, round }));
  closing.push(() => beats.stop());
  for (round = 1; round < 10; round += 1) {
    beats.tell();
  }
  await vi.advanceTimersByTimeAsync(100);
  expect(heard).toEqual([
    { ...BEAT, round: 0 },
    { ...BEAT, round: 10 },
  ]);
  await bus.close();
  beats.tell();
  await vi.advanceTimersByTimeAsync(5_000);
  expect(heard.length).toBe(2);
});

test.each([
  ["nothing", ""],
  ["no JSON", "{"],
  ["null", "null"],
  ["a phase that is none", JSON.stringify({ ...BEAT, phase: "dancing" })],
  ["a negative epoch", JSON.stringify({ ...BEAT, epoch: -1 })],
  ["too much", JSON.stringify({ ...BEAT, leader: "a".repeat(3_000) })],
])("readBeat() is null for %s", (_, text) => {
  expect(readBeat(new TextEncoder().encode(text))).toBeNull();
});
