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

test("createNudger() nudges every two milliseconds, sleeping meanwhile, and no more once nobody waits", async () => {
  const { promise, tell, nudgesMs, counts } = waiting(5);
  tell(promise);
  await promise;
  await settled();
  expect(nudgesMs.map((ms) => Math.round(ms))).toEqual([0, 2, 4, 6]);
  const { nowMs, turns, sleeps } = counts();
  expect(nowMs).toBeLessThan(9);
  expect([turns, sleeps]).toEqual([5, 4]);
});

test("createNudger() sleeps between nudges also while short waits follow each other", async () => {
  let nowMs = 0;
  let [nudges, turns, sleeps] = [0, 0, 0];
  let end: () => void = () => undefined;
  const begin = (): void => {
    end();
    const { promise, resolve } = Promise.withResolvers<void>();
    end = resolve;
    tell(promise);
  };
  const tell = createNudger({
    nowMs: () => nowMs,
    nudge: () => {
      nudges += 1;
    },
    turn: async () => {
      turns += 1;
      nowMs += 0.1;
    },
    sleep: async (ms) => {
      sleeps += 1;
      nowMs += ms;
      (nowMs < 500 ? begin : end)();
    },
  });
  begin();
  await settled();
  expect(nowMs).toBeGreaterThan(500);
  expect([nudges <= nowMs / 2, turns <= sleeps + 1]).toEqual([true, true]);
});

test("createNudger() outlives a nudge that throws: the next wait is nudged for, and nothing rejects", async () => {
  let nudges = 0;
  const tell = createNudger({
    nowMs: () => 0,
    nudge: () => {
      nudges += 1;
      throw new Error("lost");
    },
    turn: async () => {},
    sleep: async () => {},
  });
  const never = new Promise<void>(() => undefined);
  tell(never);
  await settled();
  tell(never);
  await settled();
  expect(nudges).toBe(2);
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

test("createNudger() sleeps longer after a while, and gives up what never ends", async () => {
  const { promise, tell, nudgesMs, counts } = waiting(Infinity);
  tell(promise);
  await settled();
  const { nowMs, sleeps } = counts();
  expect(nowMs).toBeLessThan(1_010);
  expect([sleeps, nudgesMs.length]).toEqual([202, 202]);
});
