/** Nudges on a clock that only the event loop's turns and timers move, for a device that is looked at when it is nudged. */
import { expect, test } from "vitest";
import { createNudger } from "./nudge.ts";

/** What is waited for is over at `doneMs`, and heard of at the next nudge. */
function waiting(doneMs: number, turnMs = 0.1) {
  let nowMs = 0;
  const nudgesMs: number[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  let [turns, sleeps] = [0, 0];
  const pass = async (ms: number): Promise<void> => {
    nowMs += ms;
    await Promise.resolve();
  };
  const tell = createNudger({
    nowMs: () => nowMs,
    nudge: () => {
      nudgesMs.push(nowMs);
      if (nowMs >= doneMs) {
        resolve();
      }
    },
    turn: () => {
      turns += 1;
      return pass(turnMs);
    },
    sleep: (ms) => {
      sleeps += 1;
      return pass(ms);
    },
  });
  return { promise, tell, nudgesMs, counts: () => ({ nowMs, turns, sleeps }) };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("createNudger() nudges once a millisecond, and no more once nobody waits", async () => {
  const { promise, tell, nudgesMs, counts } = waiting(5);
  tell(promise);
  await promise;
  await settled();
  expect(nudgesMs.length).toBeGreaterThanOrEqual(5);
  expect(nudgesMs.length).toBeLessThanOrEqual(7);
  expect(nudgesMs.every((ms, i) => i === 0 || ms - (nudgesMs[i - 1] as number) >= 1)).toBe(true);
  expect(counts().nowMs).toBeLessThan(7);
  expect(counts().sleeps).toBe(0);
});

test("createNudger() nudges for what is begun to be waited for later, with one loop for all", async () => {
  const { promise, tell, nudgesMs } = waiting(3);
  tell(Promise.resolve());
  tell(promise);
  tell(promise.then(() => Promise.reject(new Error("lost"))));
  await settled();
  const before = nudgesMs.length;
  tell(Promise.resolve());
  await settled();
  expect(before).toBeLessThanOrEqual(5);
  expect(nudgesMs.length).toBe(before); // it was over before the first nudge
});

test("createNudger() sleeps between nudges after a while, and gives up what never ends", async () => {
  const { promise, tell, nudgesMs, counts } = waiting(Infinity);
  tell(promise);
  await settled();
  const { nowMs, turns, sleeps } = counts();
  expect(nowMs).toBeLessThan(1_010);
  expect(turns).toBeLessThan(220);
  expect([sleeps, nudgesMs.length < 230]).toEqual([196, true]);
});
