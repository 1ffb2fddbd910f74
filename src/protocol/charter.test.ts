import { expect, test } from "vitest";
import { isInTurn } from "./charter.ts";

test("isInTurn() lets each chunk go once in each block of rounds, and lets whoever comes every so-many-th round send all", () => {
  for (const turns of [1, 2, 3, 5, 64]) {
    for (let chunk = 0; chunk < 2 * turns; chunk += 1) {
      for (const block of [0, 1, 7]) {
        const rounds = Array.from({ length: turns }, (_, i) => block * turns + i);
        expect(rounds.filter((round) => isInTurn(chunk, { round, turns }))).toHaveLength(1);
      }
      for (let period = 1; period <= turns; period += 1) {
        const rounds = Array.from({ length: turns * turns }, (_, i) => 5 + i * period);
        expect(rounds.some((round) => isInTurn(chunk, { round, turns }))).toBe(true);
      }
    }
  }
});
