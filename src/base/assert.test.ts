import { expect, test } from "vitest";
import { AssertionError, endingOf, exitCodeOf, HeddleError } from "./assert.ts";

test("exitCodeOf() is 2 for bad input alone, and endingOf() rethrows a bug", () => {
  const taken = new HeddleError("bad-input", "Cannot listen on port 80");
  expect(endingOf(taken)).toEqual({ sentence: taken.message, exitCode: 2 });
  expect(endingOf(new HeddleError("store", "Cannot open the store")).exitCode).toBe(1);
  expect(exitCodeOf(new Error("bad-input"))).toBe(1);
  expect(() => endingOf(new AssertionError("Cannot be"))).toThrow(AssertionError);
});
