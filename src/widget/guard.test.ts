import { describe, expect, test } from "vitest";
import { judgeClick, lookAgain } from "./guard.ts";

describe("guard", () => {
  test("lookAgain() keeps the first moment and starts over when covered or out of view", () => {
    const hidden = { visible: false, sinceMs: 0 };
    const visible = lookAgain(hidden, { ratio: 1, uncovered: true }, 10);
    expect(visible).toEqual({ visible: true, sinceMs: 10 });
    expect(lookAgain(visible, { ratio: 1, uncovered: null }, 20)).toBe(visible);
    expect(lookAgain(visible, { ratio: 1, uncovered: false }, 20)).toEqual({ visible: false, sinceMs: 20 });
    expect(lookAgain(visible, { ratio: 0.5, uncovered: true }, 20)).toEqual({ visible: false, sinceMs: 20 });
    expect(lookAgain(hidden, { ratio: 0.5, uncovered: null }, 20)).toBe(hidden);
  });

  const good = {
    trusted: true,
    seen: { visible: true, sinceMs: 0 },
    shownMs: 0,
    nowMs: 500,
    width: 300,
    height: 200,
  };

  test("judgeClick() wants a person's click on a button seen for half a second in a frame of a minimum size", () => {
    expect(judgeClick(good)).toBe("counts");
    for (const change of [{ trusted: false }, { nowMs: 499 }, { shownMs: 1 }]) {
      expect(judgeClick({ ...good, ...change })).toBe("ignored");
    }
    for (const change of [{ width: 219 }, { height: 99 }]) {
      expect(judgeClick({ ...good, ...change })).toBe("elsewhere");
    }
  });

  test("judgeClick() goes elsewhere only when the button has stayed hidden, not before the browser has looked", () => {
    const covered = { ...good, seen: { visible: false, sinceMs: 0 }, shownMs: 10_000 };
    expect(judgeClick({ ...covered, nowMs: 10_200 })).toBe("ignored");
    expect(judgeClick({ ...covered, nowMs: 11_500 })).toBe("elsewhere");
    expect(judgeClick({ ...covered, trusted: false, nowMs: 11_500 })).toBe("ignored");
  });
});
