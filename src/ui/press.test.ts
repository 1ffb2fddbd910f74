import { expect, test } from "vitest";
import { onPress } from "./press.ts";

test("onPress() counts a double click once, and not at all a key that was held down before", () => {
  const button = new EventTarget() as HTMLElement;
  let pressed = 0;
  onPress(button, () => {
    pressed += 1;
  });
  const click = (detail: number): void => {
    button.dispatchEvent(Object.assign(new Event("click"), { detail }));
  };
  for (const detail of [0, 1, 2]) {
    click(detail);
  }
  expect(pressed).toBe(2); // by a key, and by the first of two clicks
  const goesOn = (key: string, repeat: boolean): boolean =>
    button.dispatchEvent(Object.assign(new Event("keydown", { cancelable: true }), { key, repeat }));
  expect([goesOn("Enter", false), goesOn("Enter", true), goesOn("Tab", true)]).toEqual([true, false, true]);
});
