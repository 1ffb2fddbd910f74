import { expect, test } from "vitest";
import { contributor, entries, EVENTS, started, streamOf } from "../coordinator/ledger.fixture.ts";
import { exampleEvents } from "../protocol/examples.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { tallyContributors } from "./tally.ts";

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
