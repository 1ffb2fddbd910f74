import { describe, expect, test } from "vitest";
import { concatBytes, digestOf, type Bytes } from "../base/bytes.ts";
import { createPair, deviceKeyOf } from "../net/device-key.ts";
import { appendEntry, EMPTY_CHAIN } from "../protocol/chain.ts";
import { contributorIdOf } from "../protocol/codec.ts";
import { countingBytes, exampleEvents } from "../protocol/examples.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { createMemoryStore } from "../store/memory.ts";
import { entriesOf } from "../store/store.ts";
import { checkLedger, readLedger, tallyContributors, writeLedger } from "./ledger.ts";

const key = await deviceKeyOf(await createPair(false));
const publicKey = countingBytes(32);
const contributor = contributorIdOf(publicKey);
const started = { ...exampleEvents[0], relay: key.publicKey } as Extract<LedgerEvent, { type: "started" }>;
const EVENTS: readonly LedgerEvent[] = [
  started,
  { type: "introduced", contributor, publicKey, agent: "a client" },
  { type: "opened", round: 1, baseVersion: 0, seed: 5 },
  { type: "closed", round: 1 },
  { type: "skipped", round: 1 },
  { type: "banned", contributor, why: "Sends noise" },
  { type: "paused" },
];

async function entries(events: readonly LedgerEvent[]): Promise<Bytes[]> {
  const written: Bytes[] = [];
  let chain = EMPTY_CHAIN;
  for (const [timeMs, event] of events.entries()) {
    const added = await appendEntry(chain, event, { timeMs, key });
    written.push(added.bytes);
    chain = added.chain;
  }
  return written;
}

async function* inPieces(bytes: Bytes, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) {
    yield bytes.subarray(at, at + size);
  }
}

async function* streamOf(all: readonly Bytes[]): AsyncGenerator<Bytes> {
  yield* all;
}

async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const value of values) {
    all.push(value);
  }
  return all;
}

const fileOf = async (all: readonly Bytes[]): Promise<Bytes> => concatBytes(await collect(writeLedger(streamOf(all))));

describe("readLedger()", () => {
  test("inverts writeLedger(), however the file is cut into pieces", async () => {
    const all = await entries(EVENTS);
    const file = await fileOf(all);
    for (const size of [1, 3, 100, file.length]) {
      expect(await collect(readLedger(inPieces(file, size)))).toEqual(all);
    }
  });

  test("refuses what is no ledger file, ends early, or announces more than an entry may have", async () => {
    const file = await fileOf(await entries(EVENTS));
    const read = (bytes: Bytes): Promise<unknown> => collect(readLedger(inPieces(bytes, 64)));
    await expect(read(new Uint8Array())).rejects.toThrow('does not begin with "heddle ledger 1"');
    await expect(read(countingBytes(500))).rejects.toThrow('does not begin with "heddle ledger 1"');
    await expect(read(file.slice(0, -1))).rejects.toThrow("ends in the middle of entry 6");
    const huge = file.slice();
    huge.set([255, 255, 255, 255], 16);
    await expect(read(huge)).rejects.toThrow("entry 0 is said to have 4294967295 bytes, need 1 to 262144");
    const none = file.slice();
    none.set([0, 0, 0, 0], 16);
    await expect(read(none)).rejects.toThrow("entry 0 is said to have 0 bytes");
  });
});

describe("checkLedger()", () => {
  test("gives the key, the last digest and the state of a ledger that holds together", async () => {
    const all = await entries(EVENTS);
    const store = createMemoryStore();
    await store.log.append(0, all);
    const checked = await checkLedger(entriesOf(store.log));
    expect(checked).toMatchObject({ entries: 7, digest: digestOf(all[6] as Bytes) });
    expect(checked.durable).toMatchObject({ round: 2, paused: true, banned: new Map([[contributor, "Sends noise"]]) });
  });

  test("finds a changed byte, a missing entry, another's signature and an event that makes no sense", async () => {
    const all = await entries(EVENTS);
    const changed = all.map((bytes) => bytes.slice());
    const last = changed.at(-1) as Bytes;
    last[last.length - 1] = (last.at(-1) ?? 0) ^ 1;
    await expect(checkLedger(streamOf(changed))).rejects.toMatchObject({ code: "integrity" });
    await expect(checkLedger(streamOf(all.toSpliced(3, 1)))).rejects.toThrow("does not continue the one before");
    const stranger = { ...started, relay: countingBytes(32, 9) };
    await expect(checkLedger(streamOf(await entries([stranger])))).rejects.toThrow("signature of entry 0");
    const twice = await entries([...EVENTS, { type: "paused" }]);
    await expect(checkLedger(streamOf(twice))).rejects.toThrow(
      "entry 7: Cannot apply event: the run is paused already",
    );
    await expect(checkLedger(streamOf([]))).rejects.toThrow("it has no entries");
  });
});

test("tallyContributors() sums verdicts, reports and bytes for each device, and says who is banned", async () => {
  const [, introduced] = EVENTS as [LedgerEvent, LedgerEvent];
  const sent = exampleEvents.find((event) => event.type === "contributed") as LedgerEvent;
  const judged = exampleEvents.filter((event) => event.type === "judged");
  const all = await entries([started, introduced, sent, judged[0] as LedgerEvent, ...EVENTS.slice(5)]);
  const tallies = await tallyContributors(streamOf(all));
  const author = tallies.find(({ accepted }) => accepted === 1);
  expect(author).toMatchObject({ refused: 0, bytesUp: 800, lastMs: 2 });
  expect(tallies.find(({ judged: reports }) => reports === 1)).toBeDefined();
  expect(tallies.find((tally) => tally.contributor === contributor)).toMatchObject({
    agent: "a client",
    banned: "Sends noise",
  });
});
