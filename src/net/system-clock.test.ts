import { expect, test } from "vitest";
import { createSystemClock } from "./system-clock.ts";

test("createSystemClock() goes on from where it was when the machine's clock is set back", () => {
  const wall = { ms: 10_000 };
  const clock = createSystemClock(() => wall.ms);
  expect(clock.nowMs()).toBe(10_000);
  wall.ms = 4_000;
  expect(clock.nowMs()).toBe(10_000);
  wall.ms = 4_500;
  expect(clock.nowMs()).toBe(10_500);
  wall.ms = 20_000; // and leaps ahead with it, as after a suspend
  expect(clock.nowMs()).toBe(26_000);
});
