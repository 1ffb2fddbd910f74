import { expect, test } from "vitest";
import type { Digest } from "../base/bytes.ts";
import type { VersionView } from "../protocol/run-view.ts";
import { createLog, type Log, type LogFormat } from "./log.ts";

const view: VersionView = {
  version: 12,
  digest: "d".repeat(64) as Digest,
  timeMs: 5,
  evalLoss: 2.51234,
  contributors: 2,
  accepted: 2,
  refused: 1,
  bytesUp: 3_500,
  bytesDown: 2_200_000,
  tokensPerS: 26_667,
};

function log(format: LogFormat, debug = false): { log: Log; out: string[]; errors: string[] } {
  const [out, errors]: [string[], string[]] = [[], []];
  const write = (text: string): unknown => out.push(text);
  const writeError = (text: string): unknown => errors.push(text);
  return { log: createLog({ format, debug, write, writeError }), out, errors };
}

test("createLog() writes one JSON object a line, with level, time, event, fields and a sentence of one line", () => {
  const { log: json, out, errors } = log("json");
  json.say("listening", { url: "http://a" }, "\nHeddle: a new run.\n  Page: …");
  json.warn("contributor", { ended: 1 }, "It ended");
  json.fail("failed", { code: "store" }, 'Cannot open "x"');
  json.debug("not asked for");
  json.version(view);
  expect(out.every((line) => line.indexOf("\n") === line.length - 1)).toBe(true);
  const lines = out.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines).toMatchObject([
    { level: "info", event: "listening", url: "http://a", msg: "Heddle: a new run." },
    { level: "warn", event: "contributor", ended: 1, msg: "It ended" },
    { level: "error", event: "failed", code: "store", msg: 'Cannot open "x"' },
    { level: "info", event: "version", ...view },
  ]);
  expect(lines[0]?.["time"]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(lines[3]).not.toHaveProperty("msg");
  expect(errors).toEqual([]);
});

test("createLog() says sentences on a terminal, failures on standard error, and heads its table once in 20 rows", () => {
  const { log: text, out, errors } = log("text");
  text.say("listening", {}, "Heddle.");
  text.say("quiet", {}, "");
  text.fail("failed", {}, "Cannot go on");
  for (let i = 0; i < 21; i += 1) {
    text.version(view);
  }
  expect(out[0]).toBe("Heddle.\n");
  expect(errors).toEqual(["Cannot go on\n"]);
  expect(out.filter((line) => line.includes("eval loss"))).toHaveLength(2);
  expect(out[2]).toMatch(/^ +12 +2\.5123 +2 +2 +1 +3\.5 kB +2\.20 MB +26,667\n$/);
});

test("createLog() tells what is for debugging only when asked", () => {
  for (const format of ["json", "text"] as const) {
    const quiet = log(format);
    quiet.log.debug("a detail");
    expect([...quiet.out, ...quiet.errors]).toEqual([]);
    const loud = log(format, true);
    loud.log.debug("a detail");
    expect([...loud.out, ...loud.errors].join("")).toContain("a detail");
  }
});
