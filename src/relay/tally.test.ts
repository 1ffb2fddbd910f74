import { expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import { createPair, deviceKeyOf } from "../net/device-key.ts";
import { appendEntry, EMPTY_CHAIN } from "../protocol/chain.ts";
import { contributorIdOf } from "../protocol/codec.ts";
import { countingBytes, exampleEvents } from "../protocol/examples.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { tallyContributors } from "./tally.ts";

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

async function* streamOf(all: readonly Bytes[]): AsyncGenerator<Bytes> {
  yield* all;
}

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
