import { expect, test } from "vitest";
import { digestOf, type Bytes, type ContributionId } from "../base/bytes.ts";
import { createDeviceKey } from "../net/device-key.ts";
import { verifyChain } from "../protocol/chain.ts";
import { countingBytes } from "../protocol/examples.ts";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import type { Log } from "../store/store.ts";
import { entries, EVENTS, key, started } from "./ledger.fixture.ts";
import { followJournal, openJournal, type Fold } from "./journal.ts";
import { TestClock } from "./rehearsal.fixture.ts";
import { GOOD, Stage } from "./stage.fixture.ts";
import { ROUNDS_KEPT } from "./state.ts";

test("openJournal() does not call superfluous what the last merge let go and a contribution has brought again", async () => {
  const stage = new Stage(() => undefined);
  const payload = { digest: digestOf(countingBytes(2)), bytes: 2 };
  const contribute = (again: boolean): ContributionId =>
    stage.contribute("ada", { header: stage.header("ada", again ? { payload } : {}) });
  stage.join("ada");
  for (let round = 1; round <= ROUNDS_KEPT + 1; round += 1) {
    stage.ready("ada");
    const id = contribute(round === 1);
    stage.ready("ada");
    stage.measure(id, GOOD);
    stage.merge();
  }
  const open = async () => {
    const { log } = createMemoryStore();
    const key = { publicKey: countingBytes(32), sign: async () => countingBytes(64) };
    const options = { log, key, clock: new TestClock() };
    const { journal } = await openJournal(options);
    for (const { event, timeMs } of stage.log) {
      await journal.append([event], timeMs);
    }
    return openJournal(options);
  };
  expect((await open()).superfluous).toContain(payload.digest);
  stage.ready("ada");
  contribute(true);
  const { superfluous } = await open();
  expect(superfluous).not.toContain(payload.digest);
  expect(superfluous.length).toBeGreaterThan(0);
});

/** The log, and how many entries have been read of it. */
function counting(inner: Log): { readonly log: Log; readonly count: () => number } {
  let read = 0;
  const log: Log = {
    ...inner,
    read: async (from, count) => {
      const got = await inner.read(from, count);
      read += got.length;
      return got;
    },
  };
  return { log, count: () => read };
}

/** Some rounds, and what opens a copy of their ledger and counts the entries that are read. */
async function ledger() {
  const stage = new Stage(() => undefined);
  stage.join("ada");
  for (let round = 1; round <= ROUNDS_KEPT + 2; round += 1) {
    stage.ready("ada");
    const id = stage.contribute("ada");
    stage.ready("ada");
    stage.measure(id, GOOD);
    stage.merge();
  }
  const key = { publicKey: countingBytes(32), sign: async () => countingBytes(64) };
  const disk = createMemoryDisk();
  const { log } = createMemoryStore({ disk });
  const { journal } = await openJournal({ log, key, clock: new TestClock() });
  for (const { event, timeMs } of stage.log) {
    await journal.append([event], timeMs);
  }
  /** Opens a copy of the ledger with what is known of it, for the process of this epoch. */
  const open = async (known: Fold | null, entries: readonly Bytes[] = disk.entries) => {
    const copy = createMemoryDisk();
    copy.entries.push(...entries);
    const { log: inner } = createMemoryStore({ disk: copy });
    const { log: counted, count } = counting(inner);
    const opened = await openJournal({ log: counted, key, epoch: 1, known, clock: new TestClock() });
    await opened.journal.append([{ type: "paused" }], 9);
    const { ok } = await verifyChain(copy.entries, { verify: null });
    return { read: count(), ok, written: copy.entries.slice(entries.length), opened };
  };
  /** What a follower knows that has read the first entries. */
  const foldOf = async (entries: readonly Bytes[]): Promise<Fold> => {
    const begun = createMemoryDisk();
    begun.entries.push(entries[0] as Bytes);
    const follower = await followJournal(createMemoryStore({ disk: begun }).log);
    const news = await verifyChain(entries.slice(1), { verify: null, chain: follower.fold().chain });
    expect(news.ok).toBe(true);
    follower.take((news as Extract<typeof news, { ok: true }>).value);
    return follower.fold();
  };
  return { entries: disk.entries, open, foldOf };
}

test("openJournal() reads what is not known alone, and comes to the same as from the whole ledger", async () => {
  const { entries, open, foldOf } = await ledger();
  const whole = await open(null);
  expect([whole.read, whole.ok, entries.length > 20]).toEqual([entries.length, true, true]);
  expect(whole.opened.superfluous.length).toBeGreaterThan(0);
  for (let length = 1; length <= entries.length; length += 1) {
    const known = await foldOf(entries.slice(0, length));
    const { read, ok, written, opened } = await open(known);
    expect({ read, ok, written }).toEqual({ read: entries.length - length + 1, ok: true, written: whole.written });
    expect([opened.durable, opened.superfluous]).toEqual([whole.opened.durable, whole.opened.superfluous]);
    expect(known, "what is handed on stays what it was").toEqual(await foldOf(entries.slice(0, length)));
  }
});

test("openJournal() reads all where the log does not hold what is known: never stored, lost, or another's", async () => {
  const { entries, open, foldOf } = await ledger();
  const known = await foldOf(entries);
  const short = await open(known, entries.slice(0, -1));
  expect([short.read, short.ok]).toEqual([entries.length - 1, true]);
  const { written } = await open(null, entries.slice(0, -1)); // another entry in the place of the last one
  const other = [...entries.slice(0, -1), written[1] as Bytes];
  await expect(open(known, other)).rejects.toMatchObject({ code: "integrity" }); // as whoever reads all says
  const forged = await foldOf([...entries, ...(await open(null)).written]);
  const { read, ok } = await open(forged);
  expect([read, ok]).toEqual([entries.length, true]);
});

test("openJournal() reads what a leader of before still writes once, and not the rest again", async () => {
  const { entries, foldOf } = await ledger();
  const disk = createMemoryDisk();
  disk.entries.push(...entries);
  const { log } = createMemoryStore({ disk });
  const key = { publicKey: countingBytes(32), sign: async () => countingBytes(64) };
  const before = await openJournal({ log, key, epoch: 1, clock: new TestClock() });
  const known = await foldOf(entries);
  const { log: counted, count } = counting(log);
  let late = 3;
  const racing: Log = {
    ...counted,
    append: async (after, written) => {
      if (late > 0) {
        late -= 1;
        await before.journal.append([{ type: late % 2 === 0 ? "paused" : "resumed" }], 9);
      }
      return log.append(after, written);
    },
  };
  const { journal, durable } = await openJournal({ log: racing, key, epoch: 2, known, clock: new TestClock() });
  expect([count(), durable?.epoch, durable?.paused, journal.length()]).toEqual([5, 2, true, entries.length + 5]);
  await expect(before.journal.append([{ type: "resumed" }], 9)).rejects.toMatchObject({ code: "store" });
});

test("followJournal() does not go on with another run or another relay's that came in the place of its own", async () => {
  const disk = createMemoryDisk();
  disk.entries.push(...(await entries(EVENTS)));
  const follower = await followJournal(createMemoryStore({ disk }).log);
  const durable = follower.durable();
  const other = await createDeviceKey();
  for (const [event, relay] of [
    [{ ...started, run: digestOf(countingBytes(3)) }, key],
    [{ ...started, relay: other.publicKey }, other],
  ] as const) {
    disk.entries.splice(0, disk.entries.length, ...(await entries([event], relay)));
    await expect(follower.catchUp()).rejects.toMatchObject({ code: "integrity" });
    expect(follower.durable()).toBe(durable);
  }
  const shorter = await entries(EVENTS.slice(0, -1)); // of the same run: what was told and never stored
  disk.entries.splice(0, disk.entries.length, ...shorter);
  await follower.catchUp();
  expect([durable.paused, follower.durable().paused]).toEqual([true, false]);
});
