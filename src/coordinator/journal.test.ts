import { expect, test } from "vitest";
import { digestOf, type ContributionId } from "../base/bytes.ts";
import { countingBytes } from "../protocol/examples.ts";
import { createMemoryStore } from "../store/memory.ts";
import { openJournal } from "./journal.ts";
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
