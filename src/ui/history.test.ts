import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ContributionItem } from "./contributions.ts";
import { HISTORY_MAX, formatHistory, mergeHistory, parseHistory } from "./history.ts";

const item = (id: string, sentMs: number, state: ContributionItem["state"] = "accepted"): ContributionItem => ({
  id,
  sentMs,
  state,
  round: 1,
  wireBytes: 10,
  steps: 5,
  loss: 2,
  sentence: `${id}.`,
});

describe("history", () => {
  test("mergeHistory() prefers what the session knows, newest first, and says what never got a verdict", () => {
    const merged = mergeHistory(
      [item("b", 2, "accepted")],
      [item("b", 2, "waiting"), item("a", 1, "waiting"), item("c", 3)],
    );
    expect(merged.map(({ id, state }) => `${id} ${state}`)).toEqual(["c accepted", "b accepted", "a waiting"]);
    expect(merged[2]?.sentence).toBe("The page was closed before a verdict arrived.");
    const many = Array.from({ length: 80 }, (_, i) => item(String(i), i));
    expect(mergeHistory(many, many).length).toBe(HISTORY_MAX);
  });

  test("parseHistory() inverts formatHistory() for the same run and gives nothing for another", () => {
    const items = [item("a", 1), item("b", 0, "refused")];
    expect(parseHistory(formatHistory("r", items), "r")).toEqual(items);
    expect(parseHistory(formatHistory("r", items), "s")).toEqual([]);
  });

  test("parseHistory() gives only well-formed items for any text", () => {
    expect(parseHistory('{"run":"r","items":[{"id":"x"},null,3]}', "r")).toEqual([]);
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        expect(parseHistory(text, "r")).toEqual([]);
      }),
    );
  });
});
