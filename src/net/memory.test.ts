import { describe, expect, test } from "vitest";
import { LINK_CASES, recorder } from "./contract.ts";
import { createMemoryPair } from "./memory.ts";

describe("createMemoryPair() keeps the contract", () => {
  test.each(LINK_CASES)("$name", ({ run }) => run({ connect: async (ends) => createMemoryPair(ends) }));
});

test("createMemoryPair() delivers in order however the schedule reorders its calls", async () => {
  const waiting: (() => void)[] = [];
  const b = recorder();
  const pair = createMemoryPair({
    attachA: recorder().attach,
    attachB: b.attach,
    schedule: ({ from, bytes }, arrive) => {
      expect([from, bytes]).toEqual(["a", 1]);
      waiting.unshift(arrive);
    },
  });
  for (const i of [1, 2, 3]) {
    pair.a.send(Uint8Array.of(i));
  }
  expect(b.count()).toBe(0);
  for (const arrive of waiting) {
    arrive();
  }
  expect([await b.next(), await b.next(), await b.next()].map(([i]) => i)).toEqual([1, 2, 3]);
});

test("createMemoryPair().cut() loses what is on the way and tells both ends", async () => {
  const [a, b] = [recorder(), recorder()];
  const pair = createMemoryPair({ attachA: a.attach, attachB: b.attach });
  pair.a.send(Uint8Array.of(1));
  pair.cut("The cable was pulled");
  expect([await a.closed(), await b.closed()]).toEqual(["The cable was pulled", "The cable was pulled"]);
  expect(b.count()).toBe(0);
});
