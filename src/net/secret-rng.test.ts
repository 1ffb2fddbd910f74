import { expect, test } from "vitest";
import { createSecretRng } from "./secret-rng.ts";

test("createSecretRng() draws what no other one draws, in the ranges of every Rng", () => {
  const draws = Array.from({ length: 64 }, () => createSecretRng().uint32());
  expect(new Set(draws).size).toBeGreaterThan(60);
  const rng = createSecretRng();
  for (let i = 0; i < 100; i += 1) {
    expect(rng.float()).toBeLessThan(1);
    expect([0, 1, 2]).toContain(rng.below(3));
  }
});
