import { expect, test } from "vitest";
import { createTurn } from "./turn.ts";

test("createTurn() runs one piece after the other, also after one that fails", async () => {
  const inTurn = createTurn();
  const log: string[] = [];
  const piece =
    (name: string, fails = false) =>
    async (): Promise<string> => {
      log.push(`${name} begins`);
      await Promise.resolve();
      log.push(`${name} ends`);
      if (fails) {
        throw new Error(name);
      }
      return name;
    };
  const all = await Promise.allSettled([inTurn(piece("a")), inTurn(piece("b", true)), inTurn(piece("c"))]);
  expect(all.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  expect(log).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
});
