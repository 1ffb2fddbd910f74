import { describe, expect, test } from "vitest";
import { finding } from "../coordinator/finding.ts";
import { contributionIdOf, encodeHeader } from "../protocol/codec.ts";
import { exampleHeader } from "../protocol/examples.ts";
import { checkRows, clientWords, contributionWords, formatSpan, resultWords, SUBJECTS } from "./words.ts";

describe("checkRows()", () => {
  test("has a row for every subject, before and after, and says of each how it stands", () => {
    expect(checkRows(null).map(({ state }) => state)).toEqual(SUBJECTS.map(() => "waiting"));
    const rows = checkRows([
      finding("ledger", "agrees", "a"),
      finding("updates", "agrees", "b"),
      finding("updates", "differs", "c"),
      finding("merges", "agrees", "d"),
      finding("merges", "unchecked", "e"),
      finding("training", "unchecked", "f"),
    ]);
    const state = (title: string): string => rows.find((row) => row.title === title)?.state ?? "";
    expect(rows.length).toBe(SUBJECTS.length);
    expect(state("The chain")).toBe("agrees");
    expect(state("Updates")).toBe("differs");
    expect(state("Merges")).toBe("partly");
    expect(state("Training itself")).toBe("unchecked");
    expect(state("Checkpoints")).toBe("unchecked");
    const [chain, ...rest] = checkRows([finding("ledger", "differs", "Entry 3 …", { entry: 3 })]);
    expect(chain?.state).toBe("differs");
    expect(rest.filter(({ sentences: [words] }) => words?.startsWith("Not looked at")).length).toBe(rest.length - 1);
    expect(rows.find(({ title }) => title === "Updates")?.sentences).toEqual(["b", "c"]);
  });
});

test("resultWords() leads with what differs, and else counts what agrees", () => {
  const agrees = [finding("ledger", "agrees", "", { count: 40 }), finding("merges", "agrees", "", { count: 2 })];
  expect(resultWords(agrees, 12_000)).toMatchObject({ mood: "agrees" });
  expect(resultWords(agrees, 12_000).hint).toContain("40 entries, 0 updates, 0 versions and 2 merges, in 12\u00a0s");
  const differs = resultWords([...agrees, finding("merges", "differs", "Entry 7: …", { entry: 7 })], 1);
  expect(differs).toEqual({ mood: "differs", sentence: "One thing is not as the ledger says.", hint: "Entry 7: …" });
});

test("clientWords() and formatSpan() speak as people do", () => {
  expect(clientWords({ page: 3, widget: 0, headless: 1, other: 0 })).toBe("3 web pages and 1 headless client");
  expect(clientWords({ page: 0, widget: 0, headless: 0, other: 0 })).toBe("");
  const spans = [340, 14_000, 200_000, 7_500_000].map((ms) => formatSpan(ms).replaceAll("\u00a0", " "));
  expect(spans).toEqual(["0.3 s", "14 s", "3 min 20 s", "2 h 5 min"]);
});

test("contributionWords() tells the training loss of public texts alone", () => {
  const contribution = contributionIdOf(encodeHeader(exampleHeader));
  const record = { entry: 9, contribution, client: "headless", norm: 1, wireBytes: 500, judged: null } as const;
  const factsOf = (privateData: boolean): string =>
    contributionWords({ ...record, header: { ...exampleHeader, privateData } }).facts;
  expect(factsOf(false)).toContain("training loss");
  expect(factsOf(true)).not.toContain("loss");
});
