import { describe, expect, test } from "vitest";
import { sampleRun } from "../../test/fixtures/ui/samples.ts";
import { withVersion } from "./feed.ts";

describe("withVersion()", () => {
  test("adds a version, takes a repeated one once, and keeps the order when one comes late", () => {
    const run = sampleRun(3);
    const [, first, second, third] = run.versions;
    if (first === undefined || second === undefined || third === undefined) {
      throw new Error("The sample has three versions");
    }
    const without = { ...run, versions: run.versions.filter(({ version }) => version !== 2) };
    expect(withVersion(without, second).versions.map(({ version }) => version)).toEqual([0, 1, 2, 3]);
    expect(
      withVersion(run, { ...third, evalLoss: 1 })
        .versions.map(({ evalLoss }) => evalLoss)
        .at(-1),
    ).toBe(1);
    expect(withVersion(run, first).versions).toEqual(run.versions);
  });
});
