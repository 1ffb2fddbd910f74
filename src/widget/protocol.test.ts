import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  HEIGHT_MAX,
  WIDGET_STATES,
  checkAnswer,
  checkFrameMessage,
  checkHostMessage,
  createThrottle,
  makeNonce,
} from "./protocol.ts";

/** Anything, and things that are nearly messages. */
const nearly = fc.oneof(
  fc.anything(),
  fc.record(
    {
      type: fc.oneof(
        fc.constantFrom("theme", "lang", "size", "pause", "start", "duty", "consent", "height", "state"),
        fc.string(),
      ),
      theme: fc.anything(),
      lang: fc.anything(),
      size: fc.anything(),
      duty: fc.anything(),
      px: fc.oneof(fc.double(), fc.anything()),
      state: fc.oneof(fc.constantFrom(...WIDGET_STATES), fc.anything()),
      tokensPerS: fc.oneof(fc.double(), fc.anything()),
      tokensTotal: fc.double(),
      accepted: fc.double(),
    },
    { requiredKeys: [] },
  ),
);

describe("widget protocol", () => {
  test("checkHostMessage() takes the four messages and nothing else", () => {
    expect(checkHostMessage({ type: "theme", theme: "dark" })).toEqual({ type: "theme", theme: "dark" });
    expect(checkHostMessage({ type: "lang", lang: "pt-BR" })).toEqual({ type: "lang", lang: "pt-BR" });
    expect(checkHostMessage({ type: "size", size: "compact" })).toEqual({ type: "size", size: "compact" });
    expect(checkHostMessage({ type: "pause" })).toEqual({ type: "pause" });
    for (const bad of [
      { type: "start" },
      { type: "resume" },
      { type: "consent" },
      { type: "duty", duty: 1 },
      { type: "pause", duty: 1 },
      { type: "theme", theme: "url(https://x)" },
      { type: "lang", lang: "e".repeat(40) },
      { type: "lang", lang: "<b>" },
      { type: "lang", lang: "en-12" },
      [],
      null,
      "pause",
    ]) {
      expect(checkHostMessage(bad)).toBeNull();
    }
  });

  test("checkHostMessage() and checkFrameMessage() never throw and give only what they list, for any data", () => {
    fc.assert(
      fc.property(nearly, (data) => {
        const host = checkHostMessage(data);
        if (host !== null) {
          expect(["theme", "lang", "size", "pause"]).toContain(host.type);
          expect(JSON.stringify(host).length).toBeLessThan(80);
        }
        const frame = checkFrameMessage(data);
        if (frame?.type === "height") {
          expect(frame.px).toBeLessThanOrEqual(HEIGHT_MAX);
        } else if (frame !== null) {
          expect(WIDGET_STATES).toContain(frame.state);
          expect(frame.tokensPerS).toBeGreaterThanOrEqual(0);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("checkAnswer() takes only the answer to this hello", () => {
    const nonce = makeNonce();
    expect(checkAnswer({ type: "heddle-port", nonce }, nonce)).toEqual({ type: "heddle-port", nonce });
    expect(checkAnswer({ type: "heddle-port", nonce: makeNonce() }, nonce)).toBeNull();
    expect(checkAnswer({ type: "heddle-port", nonce, extra: 1 }, nonce)).toBeNull();
    expect(checkAnswer({ type: "heddle-port", nonce: "" }, "")).toBeNull();
  });

  test("createThrottle() drops what exceeds the limit and recovers after the window", () => {
    const allow = createThrottle(3, 1_000);
    expect([0, 1, 2, 3].map((ms) => allow(ms))).toEqual([true, true, true, false]);
    expect(allow(1_000)).toBe(true);
    expect(allow(1_000)).toBe(false);
  });
});
