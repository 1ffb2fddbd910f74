import { expect, test } from "vitest";
import { NOTHING_RECENT, recall, remember, type Recent } from "./recent.ts";

test("remember() keeps the latest values and bounded memory", () => {
  let recent: Recent<number, string> = NOTHING_RECENT;
  for (let i = 0; i < 100; i += 1) {
    const before = recent;
    recent = remember(recent, i % 50, `value ${i}`, 10);
    expect(recent.young.size + recent.old.size).toBeLessThanOrEqual(20);
    expect(recall(before, i % 50)).not.toBe(`value ${i}`); // what was returned before is unchanged
    for (let back = 0; back < Math.min(i + 1, 10); back += 1) {
      expect(recall(recent, (i - back) % 50)).toBe(`value ${i - back}`);
    }
  }
  expect(recall(recent, 60 % 50)).toBeUndefined();
});
