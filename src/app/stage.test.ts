import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { asSentence } from "../ui/format.ts";
import { spoken, stageOf, type Facts } from "./stage.ts";

const facts: Facts = {
  online: true,
  secure: true,
  agreed: false,
  feed: "live",
  contributors: 3,
  trainer: { type: "none" },
  view: null,
  resumable: false,
  ended: false,
  elsewhere: false,
};

describe("stageOf()", () => {
  test("offers to contribute when idle, to continue after a reload", () => {
    expect(stageOf(facts).main).toEqual({ act: "contribute", words: "Contribute" });
    expect(stageOf({ ...facts, resumable: true }).main?.words).toBe("Continue contributing");
  });

  test("offers no start when offline, without a relay, or when another tab works", () => {
    for (const change of [
      { online: false, feed: "lost" },
      { secure: false },
      { feed: "lost" },
      { feed: "loading" },
      { elsewhere: true },
    ] as const) {
      expect(stageOf({ ...facts, ...change }).main?.act).not.toBe("contribute");
    }
  });

  test("says offline rather than that the relay does not answer, and secure pages first of all", () => {
    expect(stageOf({ ...facts, online: false, feed: "lost" }).sentence).toContain("offline");
    expect(stageOf({ ...facts, secure: false, online: false }).hint).toContain("https");
  });

  test("goes on without a network where the relay answers all the same, as one on this machine does", () => {
    expect(stageOf({ ...facts, online: false }).main?.act).toBe("contribute");
    const view = { status: "training", sentence: "Training.", tokensTotal: 0 } as const;
    const sentence = (feed: Facts["feed"]): string =>
      stageOf({ ...facts, online: false, feed, trainer: { type: "open" }, view }).sentence;
    expect(sentence("live")).toBe("Training.");
    expect(sentence("lost")).toContain("offline");
  });

  test("an agreement can be taken back wherever it would start at once", () => {
    expect(stageOf(facts).other).toBeNull();
    for (const change of [{ agreed: true }, { agreed: true, resumable: true }]) {
      expect(stageOf({ ...facts, ...change }).other?.act).toBe("withdraw");
    }
  });

  test("between rounds one sentence stands for the contributor's quick changes, but not for trouble", () => {
    const sentenceIn = (sentence: string, tokensTotal: number): string =>
      stageOf({ ...facts, trainer: { type: "open" }, view: { status: "waiting", sentence, tokensTotal } }).sentence;
    expect(sentenceIn("Ready; waiting for work.", 10)).toBe(sentenceIn("Fetching the shared base.", 10));
    expect(sentenceIn("Ready; waiting for work.", 0)).toBe("Ready; waiting for work.");
    expect(sentenceIn("The relay is busy.", 10)).toBe("The relay is busy.");
    for (const begin of ["Connecting again in 3 s", "Connecting again"]) {
      expect(sentenceIn(`${begin}: Cannot dial "ws://relay/link": lost`, 10)).not.toContain("ws://");
    }
  });

  test("a screen reader is told the same through all of a round, and when it pauses, ends or the relay is lost", () => {
    type View = NonNullable<Facts["view"]>;
    const said = (status: View["status"], sentence = `It is ${status}.`, tokensTotal = 9): string =>
      spoken(stageOf({ ...facts, trainer: { type: "open" }, view: { status, sentence, tokensTotal } }));
    const round = [
      said("waiting", "Ready; waiting for work."),
      said("fetching", "Fetching the shared base."),
      said("waiting", "The update is sent; waiting for its verdict."),
      ...(["training", "uploading", "validating"] as const).map((status) => said(status)),
    ];
    expect([...new Set(round)]).toEqual(["This device is contributing."]);
    expect(said("waiting", "Ready; waiting for work.", 0)).toBe("Ready; waiting for work.");
    for (const status of ["waiting", "fetching"] as const) {
      expect(said(status, "The graphics processor was lost.")).toBe("The graphics processor was lost.");
    }
    expect(said("connecting", "Connecting again in 3 s: Refused")).toBe(
      said("connecting", "Connecting again: Refused"),
    );
    expect(said("paused")).toMatch(/^Paused/);
    expect(said("connecting")).toBe("It is connecting.");
    for (const change of [{ ended: true }, { resumable: true }]) {
      const stage = stageOf({ ...facts, ...change });
      expect(spoken(stage)).toBe(stage.sentence);
    }
    expect(new Set([0, 1, 9].map((contributors) => spoken(stageOf({ ...facts, contributors })))).size).toBe(1);
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
            view: { status, sentence: "Something.", tokensTotal: 0 },
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
