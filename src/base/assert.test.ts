import { expect, test } from "vitest";
import { AssertionError, endingOf, exitCodeOf, HeddleError } from "./assert.ts";

test("exitCodeOf() is 2 for what another start would not change, and endingOf() rethrows a bug", () => {
  const banned = new HeddleError("refused", "The operator has excluded this device");
  expect(endingOf(banned)).toEqual({ sentence: banned.message, exitCode: 2 });
  expect(exitCodeOf(new HeddleError("taken", "Cannot listen on port 80"))).toBe(1);
  expect(exitCodeOf(new HeddleError("changed", "The relay serves another run"))).toBe(1);
  expect(endingOf(new HeddleError("store", "Cannot open the store")).exitCode).toBe(1);
  expect(exitCodeOf(new Error("bad-input"))).toBe(1);
  expect(() => endingOf(new AssertionError("Cannot be"))).toThrow(AssertionError);
});
