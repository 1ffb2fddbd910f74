import { expect, test } from "vitest";
import { createShares } from "./shares.ts";

test("createShares() gives each network its share, and again what it has given back", () => {
  const shares = createShares({ max: 10, share: 0.2 });
  const [a, b] = ["192.0.2.0/24", "198.51.100.0/24"];
  expect([shares.take(a), shares.take(a), shares.take(a), shares.take(b)]).toEqual([true, true, false, true]);
  shares.leave(a);
  expect([shares.take(a), shares.take(a)]).toEqual([true, false]);
  shares.leave(a);
  shares.leave(a);
  expect([shares.take(a), shares.take(a), shares.take(a)]).toEqual([true, true, false]);
});

test("createShares() counts nothing of this machine, and leaves every network one", () => {
  const shares = createShares({ max: 10, share: 0 });
  expect(Array.from({ length: 20 }, () => shares.take(null))).not.toContain(false);
  shares.leave(null);
  expect([shares.take("192.0.2.0/24"), shares.take("192.0.2.0/24")]).toEqual([true, false]);
});
