import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { asSentence } from "../ui/format.ts";
import { stageOf, type Facts } from "./stage.ts";

const facts: Facts = {
  online: true,
  feed: "live",
  contributors: 3,
  trainer: { type: "none" },
  view: null,
  resumable: false,
  elsewhere: false,
};

describe("stageOf()", () => {
  test("offers to contribute when idle, to continue after a reload", () => {
    expect(stageOf(facts).main).toEqual({ act: "contribute", words: "Contribute" });
    expect(stageOf({ ...facts, resumable: true }).main?.words).toBe("Continue contributing");
  });

  test("offers no start when offline, without a relay, or when another tab works", () => {
    for (const change of [{ online: false }, { feed: "lost" }, { feed: "loading" }, { elsewhere: true }] as const) {
      expect(stageOf({ ...facts, ...change }).main?.act).not.toBe("contribute");
    }
  });

  test("whatever runs can be stopped", () => {
    const statuses = [
      "connecting",
      "fetching",
      "waiting",
      "training",
      "validating",
      "uploading",
      "paused",
      "failed",
    ] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...statuses),
        fc.boolean(),
        fc.constantFrom("live", "lost", "loading"),
        (status, online, feed) => {
          const stage = stageOf({
            ...facts,
            online,
            feed,
            trainer: { type: "open" },
            view: { status, sentence: "Something." },
          });
          expect(stage.other?.act).toBe("stop");
          expect(stage.main).not.toBeNull();
          expect(stage.sentence).not.toBe("");
        },
      ),
    );
  });

  test("every failure says what to do", () => {
    for (const code of [
      "no-engine",
      "model-too-big",
      "device-lost",
      "device-wrong",
      "unreachable",
      "store",
      "limit",
      "?",
    ]) {
      const stage = stageOf({ ...facts, trainer: { type: "failed", code, message: "Cannot do it" } });
      expect(stage.sentence).toBe("Cannot do it.");
      expect(stage.hint.length).toBeGreaterThan(20);
    }
  });

  test("asSentence() ends a text with one mark", () => {
    expect(asSentence("Words ")).toBe("Words.");
    expect(asSentence("Words …")).toBe("Words …");
  });
});
