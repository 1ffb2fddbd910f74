import { describe, expect, test } from "vitest";
import type { ContributorId } from "../base/bytes.ts";
import { BEAT_MS, DEAD_MS, OFFER_PAUSE_MS } from "../protocol/limits.ts";
import { DIAL_BACK_OFF, LASTED_MS, RETRY_SPREAD, RTC_BACK_OFF, SILENT_BEATS } from "./state.ts";
import { wakeMs } from "./tick.ts";
import { challenge, charter, digest, head, pending, train, types, Walk } from "./walk.fixture.ts";

describe("links that end, fall silent or are refused", () => {
  test("dials again after a random share of a doubling back-off, at most 30 s", () => {
    const walk = new Walk();
    walk.on({ type: "start" });
    for (let n = 0; n < 20; n += 1) {
      walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "no" });
      const waitMs = (wakeMs(walk.state, walk.nowMs) ?? 0) - walk.nowMs;
      expect(waitMs).toBeLessThanOrEqual(Math.min(DIAL_BACK_OFF.capMs, DIAL_BACK_OFF.baseMs * 2 ** n));
      expect(types(walk.on({ type: "woke" }, waitMs))).toEqual(["dial"]);
    }
  });

  test("a welcome does not end the back-off, a session that lasted does", () => {
    const walk = new Walk();
    const endAfter = (ms: number): number => {
      walk.connect();
      walk.on({ type: "woke" }, ms);
      walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "Another session of this device has begun" });
      return walk.state.attempts;
    };
    expect([1, 2, 3, 4].map(() => endAfter(10))).toEqual([1, 2, 3, 4]);
    expect(endAfter(LASTED_MS)).toBe(1);
  });

  test("a relay that falls silent is left", () => {
    const walk = new Walk();
    walk.settle();
    walk.receive({ type: "pong" }); // its last word
    const heardMs = walk.nowMs;
    for (const expected of [[], ["ping"], [], ["ping"], [], ["hangUp"]]) {
      const wake = wakeMs(walk.state, walk.nowMs) ?? 0;
      expect(types(walk.on({ type: "woke" }, wake - walk.nowMs))).toEqual(expected);
    }
    expect(walk.nowMs - heardMs).toBeLessThanOrEqual(DEAD_MS);
  });

  test("a device that was asleep does not take its own absence for the relay's", () => {
    const walk = new Walk();
    walk.settle();
    for (let hours = 0; hours < 3; hours += 1) {
      expect(types(walk.on({ type: "woke" }, 3_600_000))).toEqual(["ping"]);
      walk.receive({ type: "pong" });
    }
    expect(walk.state.link.type).toBe("open");
  });

  test("a WebRTC lane that falls silent is closed and tried again, the dialled link stays", () => {
    const walk = new Walk({ rtc: true });
    walk.settle();
    walk.on({ type: "rtcOpened" });
    for (let n = 1; n < SILENT_BEATS; n += 1) {
      walk.receive({ type: "ping" });
      expect(types(walk.on({ type: "woke" }, BEAT_MS))).not.toContain("closeRtc");
    }
    walk.receive({ type: "ping" });
    expect(types(walk.on({ type: "woke" }, BEAT_MS))).toContain("closeRtc");
    expect(walk.state).toMatchObject({
      rtc: "none",
      link: { type: "open" },
      laneReason: expect.stringMatching(/silent/),
    });
  });

  test("the WebRTC lane is tried again after the relay's pause and a random share of a doubling back-off", () => {
    const walk = new Walk({ rtc: true });
    walk.settle();
    for (let n = 0; n < 12; n += 1) {
      expect(walk.state.rtc).toBe("opening");
      const endedMs = walk.nowMs + 1;
      walk.on({ type: "rtcEnded", reason: "no" });
      const waitMs = walk.state.rtcMs - endedMs;
      expect(waitMs).toBeGreaterThan(OFFER_PAUSE_MS);
      expect(waitMs - OFFER_PAUSE_MS).toBeLessThanOrEqual(Math.min(RTC_BACK_OFF.capMs, RTC_BACK_OFF.baseMs * 2 ** n));
      while (walk.nowMs < walk.state.rtcMs) {
        expect(walk.state.rtc).toBe("none");
        walk.receive({ type: "pong" });
        walk.on({ type: "woke" }, (wakeMs(walk.state, walk.nowMs) ?? 0) - walk.nowMs);
      }
    }
  });

  test("whoever is told when to come back obeys, and comes a random share of that later", () => {
    const retryMs = 10_000;
    const waits = Array.from({ length: 200 }, (_, i) => {
      const walk = new Walk();
      Array.from({ length: i }, () => walk.rng.uint32());
      walk.on({ type: "start" });
      walk.on({ type: "linked", dial: walk.state.dial });
      walk.receive({ type: "refused", reason: "busy", retryMs });
      return (wakeMs(walk.state, walk.nowMs) ?? 0) - walk.nowMs;
    });
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(retryMs);
    expect(Math.max(...waits)).toBeLessThanOrEqual(retryMs * (1 + RETRY_SPREAD));
    const quarters = new Set(waits.map((wait) => Math.floor((4 * (wait - retryMs)) / (retryMs * RETRY_SPREAD))));
    expect(quarters.size).toBeGreaterThanOrEqual(4);
  });

  test("does not go on by itself with a relay of another key, and does when started again", () => {
    const walk = new Walk();
    walk.connect();
    walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "no" });
    walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs);
    walk.on({ type: "linked", dial: walk.state.dial });
    const other = { ...challenge, relay: new Uint8Array(32) };
    expect(types(walk.receive(other))).toEqual(["hangUp"]);
    expect(walk.state.failure?.sentence).toMatch(/another key/);
    walk.on({ type: "start" });
    walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs);
    walk.on({ type: "linked", dial: walk.state.dial });
    expect(types(walk.receive(other))).toEqual(["prove"]);
  });

  test("believes nothing of a relay that leaves the proof of its key out", () => {
    const contributor = digest("d") as string as ContributorId;
    const verdict = { type: "refused", reason: "harmful" } as const;
    const early = [
      { type: "welcome", run: digest("r"), charter, contributor, head: head(0), earlier: [] },
      { type: "version", head: head(1) },
      { type: "assign", assignment: train("t0", 0) },
      { type: "verdict", contribution: pending.id, verdict },
      { type: "have", contribution: pending.id, pieces: 1 },
    ] as const;
    for (const message of early) {
      const walk = new Walk();
      walk.settle(0, pending);
      walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "no" });
      walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs);
      walk.on({ type: "linked", dial: walk.state.dial });
      walk.receive(challenge);
      expect(types(walk.receive(message))).toEqual(["hangUp"]);
      expect(walk.state).toMatchObject({ failure: null, pending, head: head(0), link: { type: "waiting" } });
    }
  });
});
