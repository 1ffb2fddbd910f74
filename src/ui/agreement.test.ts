import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  AGREEMENT_TEXT_VERSION,
  APP_AGREEMENT_MS,
  WIDGET_AGREEMENT_MS,
  agree,
  covers,
  lasts,
  formatAgreement,
  parseAgreement,
} from "./agreement.ts";

const run = "a".repeat(64);

describe("agreement", () => {
  test("covers() is true until the last millisecond and false from then on", () => {
    const given = agree({ run, nowMs: 1_000 });
    expect(covers(given, { run, nowMs: 1_000 })).toBe(true);
    expect(covers(given, { run, nowMs: 1_000 + APP_AGREEMENT_MS - 1 })).toBe(true);
    expect(covers(given, { run, nowMs: 1_000 + APP_AGREEMENT_MS })).toBe(false);
  });

  test("covers() refuses another run, another text, a clock set back, and none", () => {
    const given = agree({ run, nowMs: 1_000 });
    expect(covers(given, { run: "b".repeat(64), nowMs: 2_000 })).toBe(false);
    expect(covers({ ...given, text: AGREEMENT_TEXT_VERSION + 1 }, { run, nowMs: 2_000 })).toBe(false);
    expect(covers(given, { run, nowMs: 999 })).toBe(false);
    expect(covers(null, { run, nowMs: 2_000 })).toBe(false);
  });

  test("lasts() bears a clock set back, and ends as covers() does", () => {
    const given = agree({ run, nowMs: 1_000 });
    expect(lasts(given, { run, nowMs: 999 })).toBe(true);
    expect(lasts(given, { run, nowMs: 1_000 + APP_AGREEMENT_MS })).toBe(false);
    expect(lasts(given, { run: "b".repeat(64), nowMs: 2_000 })).toBe(false);
    expect(lasts({ ...given, text: AGREEMENT_TEXT_VERSION + 1 }, { run, nowMs: 2_000 })).toBe(false);
    expect(lasts(null, { run, nowMs: 2_000 })).toBe(false);
  });

  test("covers() holds a widget to its 24 hours even with an agreement of the app", () => {
    const app = agree({ run, nowMs: 0 });
    expect(covers(app, { run, nowMs: 1, lastsMs: WIDGET_AGREEMENT_MS })).toBe(false);
    const widget = agree({ run, nowMs: 0, lastsMs: WIDGET_AGREEMENT_MS });
    expect(covers(widget, { run, nowMs: WIDGET_AGREEMENT_MS - 1, lastsMs: WIDGET_AGREEMENT_MS })).toBe(true);
    expect(covers(widget, { run, nowMs: WIDGET_AGREEMENT_MS, lastsMs: WIDGET_AGREEMENT_MS })).toBe(false);
  });

  test("parseAgreement() inverts formatAgreement()", () => {
    const given = agree({ run, nowMs: 123 });
    expect(parseAgreement(formatAgreement(given))).toEqual(given);
  });

  test("parseAgreement() returns null or a well-formed agreement for any text", () => {
    expect(parseAgreement(null)).toBeNull();
    expect(parseAgreement("{")).toBeNull();
    expect(parseAgreement('{"text":1,"run":"x","givenMs":null,"endsMs":1}')).toBeNull();
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        const parsed = parseAgreement(text);
        expect(covers(parsed, { run, nowMs: 5 })).toBe(false);
      }),
    );
  });
});
