import { describe, expect, test } from "vitest";
import type { ContributionId, ContributorId } from "../base/bytes.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { DIAL_BACK_OFF, STALL_MS, type ContributorEvent } from "./state.ts";
import { wakeMs } from "./tick.ts";
import { viewOf } from "./projection.ts";
import { challenge, charter, counters, digest, head, pending, train, types, validation, Walk } from "./walk.fixture.ts";

describe("tick()", () => {
  test("goes from start to ready by hello, prove, prepare and fetch", () => {
    const walk = new Walk();
    expect(types(walk.on({ type: "start" }))).toEqual(["dial"]);
    expect(types(walk.on({ type: "linked", dial: walk.state.dial }))).toEqual(["hello"]);
    expect(types(walk.receive(challenge))).toEqual(["prove"]);
    walk.on({ type: "proven", dial: walk.state.dial, relay: challenge.relay });
    const contributor = digest("d") as string as ContributorId;
    const welcome = { type: "welcome", run: digest("r"), charter, contributor, head: head(0), earlier: [] } as const;
    expect(types(walk.receive(welcome))).toEqual(["prepare", "fetch"]);
    expect(types(walk.on({ type: "prepared", pending: null, late: null }))).toEqual([]);
    expect(types(walk.on({ type: "fetched", version: 0, digest: digest("0") }))).toEqual(["ready"]);
  });

  test("waits as long as a busy relay asks", () => {
    const walk = new Walk();
    walk.on({ type: "start" });
    walk.on({ type: "linked", dial: walk.state.dial });
    walk.receive({ type: "refused", reason: "busy", retryMs: 60_000 });
    expect(wakeMs(walk.state, walk.nowMs)).toBeGreaterThanOrEqual(walk.nowMs + 60_000);
  });

  test("says why it connects again, until it is connected", () => {
    const walk = new Walk();
    walk.settle();
    const sentence = (): string => viewOf(walk.state, { ...counters, nowMs: walk.nowMs }).sentence;
    walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "The relay was silent for 15 s." });
    expect(sentence()).toMatch(/^Connecting again in \d+ s: The relay was silent/);
    walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs);
    expect(walk.state.link.type).toBe("dialling");
    expect(sentence()).toBe("Connecting again: The relay was silent for 15 s.");
  });

  test("fails with a sentence when the relay speaks another version", () => {
    const walk = new Walk();
    walk.on({ type: "start" });
    walk.on({ type: "linked", dial: walk.state.dial });
    walk.receive({ type: "refused", reason: "wrong-version", retryMs: null });
    expect(viewOf(walk.state, counters).status).toBe("failed");
    expect(viewOf(walk.state, counters).sentence).toMatch(/^This client speaks another version/);
    expect(wakeMs(walk.state, walk.nowMs)).toBeNull();
    expect(types(walk.on({ type: "start" }))).toEqual([]);
    expect(types(walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs))).toEqual(["dial"]);
  });

  test("fails with the operator's reason when it is banned, and asks again only when the person starts it", () => {
    const walk = new Walk();
    walk.settle();
    walk.receive({ type: "banned", why: "Sends noise" });
    expect(viewOf(walk.state, counters)).toMatchObject({
      status: "failed",
      sentence: "The operator of this run has excluded this device. The reason given: Sends noise",
    });
    expect(wakeMs(walk.state, walk.nowMs)).toBeNull();
    walk.on({ type: "start" });
    expect(types(walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs))).toContain("dial");
  });

  test("fails when it finds another run after a reconnect", () => {
    const walk = new Walk();
    walk.settle();
    walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "gone" });
    walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs);
    walk.on({ type: "linked", dial: walk.state.dial });
    walk.greet();
    const contributor = digest("d") as string as ContributorId;
    walk.receive({ type: "welcome", run: digest("q"), charter, contributor, head: head(0), earlier: [] });
    expect(walk.state.failure).toMatchObject({ code: "changed", sentence: expect.stringMatching(/another run/) });
  });

  test("started again while it prepares, prepares once more, after that and not beside it", () => {
    const walk = new Walk();
    expect(types(walk.connect())).toContain("prepare");
    walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "gone" });
    walk.on({ type: "woke" }, DIAL_BACK_OFF.capMs);
    walk.on({ type: "linked", dial: walk.state.dial });
    walk.receive({ ...challenge, relay: new Uint8Array(32).fill(8) });
    expect(walk.state.failure).toMatchObject({ code: "changed", sentence: expect.stringMatching(/another key/) });
    walk.on({ type: "start" });
    expect(types(walk.connect())).not.toContain("prepare");
    const effects = walk.on({ type: "prepared", pending, late: null });
    expect(types(effects)).toContain("prepare");
    expect(walk.state).toMatchObject({ preparation: "running", pending: null });
    walk.on({ type: "prepared", pending: null, late: null });
    expect(walk.state.preparation).toBe("done");
  });

  test("takes part in the run that the person agreed to, and fails when the relay welcomes it to another", () => {
    const welcomed = (agreed: string): Walk => {
      const walk = new Walk({ run: digest(agreed) });
      walk.on({ type: "start" });
      walk.on({ type: "linked", dial: walk.state.dial });
      walk.greet();
      const contributor = digest("d") as string as ContributorId;
      walk.receive({ type: "welcome", run: digest("q"), charter, contributor, head: head(0), earlier: [] });
      return walk;
    };
    expect(welcomed("q").state).toMatchObject({ failure: null, run: { digest: digest("q") } });
    expect(welcomed("r").state).toMatchObject({
      failure: { code: "refused", sentence: expect.stringMatching(/another run/) },
      run: null,
    });
  });

  test("trains, uploads, says ready for checks, and asks for new work only after the verdict", () => {
    const walk = new Walk();
    walk.settle();
    expect(types(walk.receive({ type: "assign", assignment: train("t0", 0) }))).toEqual(["work"]);
    const made: ContributorEvent = { type: "finished", assignment: "t0", result: { type: "contribution", pending } };
    expect(types(walk.on(made))).toEqual(["upload", "ready"]);
    expect(types(walk.receive({ type: "version", head: head(1) }))).toEqual(["fetch"]);
    expect(types(walk.on({ type: "fetched", version: 1, digest: digest("1") }))).toEqual([]);
    const verdict = { type: "verdict", contribution: pending.id, verdict: { type: "accepted" } } as const;
    expect(walk.receive(verdict)).toMatchObject([
      { type: "settle", outcome: "accepted" },
      { type: "send", message: { type: "ready", version: 1 } },
    ]);
    expect(walk.state.accepted).toBe(1);
    expect(walk.receive(verdict)).toEqual([]);
    expect(walk.state.accepted).toBe(1);
  });

  test("ends training earlier while its contributions come too late", () => {
    const walk = new Walk();
    walk.settle();
    const made = { type: "finished", result: { type: "contribution", pending } } as const;
    let round = 0;
    /** How much before its deadline the next training is to end, and what becomes of what it makes. */
    const earlyMs = (verdict: Verdict): number => {
      const assignment = { ...train(`t${round}`, round), trainMs: 4_000 };
      const work = walk.receive({ type: "assign", assignment }).find((effect) => effect.type === "work");
      const deadlineMs = walk.nowMs + assignment.trainMs;
      walk.on({ ...made, assignment: assignment.id });
      walk.receive({ type: "verdict", contribution: pending.id, verdict });
      round += 1;
      walk.receive({ type: "version", head: head(round) });
      walk.on({ type: "fetched", version: round, digest: digest(String(round)) });
      return deadlineMs - (work?.deadlineMs ?? 0);
    };
    const [late, accepted] = [{ type: "refused", reason: "late" } as const, { type: "accepted" } as const];
    expect(Array.from({ length: 6 }, () => earlyMs(late))).toEqual([0, 250, 500, 1_000, 2_000, 2_000]); // half of its time
    expect(earlyMs({ type: "refused", reason: "no-improvement" })).toBe(2_000);
    for (let i = 0; i < 60; i += 1) {
      earlyMs(accepted);
    }
    expect(earlyMs(accepted)).toBe(0);
  });

  test("goes on to a version that has changed no bit", () => {
    const walk = new Walk();
    walk.settle();
    const same = { ...head(1), digest: head(0).digest };
    expect(walk.receive({ type: "version", head: same })).toMatchObject([{ type: "fetch", head: same }]);
    expect(walk.on({ type: "fetched", version: 1, digest: same.digest })).toMatchObject([
      { type: "send", message: { type: "ready", version: 1 } },
    ]);
  });

  test("remembers the versions that led to the head, and forgets them where one does not follow", () => {
    const walk = new Walk();
    walk.settle();
    const versions = (): number[] => walk.state.earlier.map(({ version }) => version);
    for (let version = 1; version <= 20; version += 1) {
      walk.receive({ type: "version", head: head(version) });
      walk.receive({ type: "version", head: head(version) });
    }
    expect(versions()).toEqual(Array.from({ length: 15 }, (_, i) => 5 + i));
    walk.on({ type: "unfetched", reason: "no" });
    expect(walk.on({ type: "woke" }, 2_000)).toMatchObject([
      { type: "fetch", head: head(20), earlier: walk.state.earlier },
    ]);
    walk.receive({ type: "version", head: head(23) });
    expect(versions()).toEqual([]);
  });

  describe("training ahead", () => {
    const made = { type: "finished", assignment: "t0", result: { type: "contribution", pending } } as const;
    const ahead = (steps: number): ContributorEvent => ({
      type: "finished",
      assignment: "t0",
      result: { type: "ahead", steps },
    });
    const verdict = (reason: "late" | "harmful") =>
      ({ type: "verdict", contribution: pending.id, verdict: { type: "refused", reason } }) as const;
    const walked = (): Walk => {
      const walk = new Walk();
      walk.aheadMax = 5;
      walk.settle();
      walk.receive({ type: "assign", assignment: train("t0", 0) });
      return walk;
    };

    test("begins when the contribution is on its way and ends with the next assignment, which begins after it", () => {
      const walk = walked();
      expect(walk.on(made)).toContainEqual({ type: "ahead", assignment: "t0", stepsMax: 5 });
      expect(types(walk.effects)).toEqual(["upload", "ready", "ahead"]);
      expect(types(walk.receive({ type: "version", head: head(1) }))).toEqual(["fetch"]);
      walk.receive(verdict("late"));
      expect(types(walk.on({ type: "fetched", version: 1, digest: digest("1") }))).toEqual(["ready"]);
      expect(types(walk.receive({ type: "assign", assignment: train("t1", 1) }))).toEqual(["abort"]);
      expect(types(walk.on(ahead(2)))).toEqual(["work"]);
      expect(walk.state.trail).toBeNull();
    });

    const validate = { ...validation, ...train("v0", 0), id: "v0", type: "validate" } as const;

    test("goes on until what is to be checked is here, and after that, until its steps are taken", () => {
      const walk = walked();
      walk.on(made);
      expect(walk.receive({ type: "assign", assignment: validate })).toEqual([
        { type: "supply", assignment: validate },
      ]);
      expect(walk.state.job?.type).toBe("ahead");
      expect(types(walk.on({ type: "woke" }))).toEqual([]);
      expect(types(walk.on({ type: "supplied", assignment: "v0", trouble: null }))).toEqual(["abort"]);
      expect(types(walk.on(ahead(2)))).toEqual(["work"]);
      const report = { type: "report", body: new Uint8Array(1), signature: new Uint8Array(1) } as const;
      expect(types(walk.on({ type: "finished", assignment: "v0", result: report }))).toEqual([
        "report",
        "ready",
        "ahead",
      ]);
      expect(types(walk.on(ahead(5)))).toEqual([]);
    });

    test("is not disturbed by what cannot be fetched, comes too late or was given up", () => {
      for (const [end, released] of [
        [(walk: Walk) => walk.on({ type: "supplied", assignment: "v0", trouble: "gone" }), true],
        [(walk: Walk) => walk.on({ type: "woke" }, validate.judgeMs + 1), true],
        [(walk: Walk) => walk.on({ type: "supplied", assignment: "v1", trouble: "gone" }), false],
      ] as const) {
        const walk = walked();
        walk.on(made);
        walk.receive({ type: "assign", assignment: validate });
        const sent = end(walk).filter((effect) => effect.type === "send" && effect.message.type === "release");
        expect(sent).toHaveLength(released ? 1 : 0);
        expect([walk.state.assigned === null, walk.state.job?.type]).toEqual([released, "ahead"]);
        walk.on({ type: "supplied", assignment: "v0", trouble: null }); // late, where it was given back
        expect(walk.state.job?.aborted).toBe(!released);
      }
    });

    test("stops for a pause, for a verdict of harm, and when the base has moved on twice", () => {
      for (const stop of [
        (walk: Walk) => walk.on({ type: "pause" }),
        (walk: Walk) => walk.receive(verdict("harmful")),
        (walk: Walk) => walk.receive({ type: "version", head: head(2) }),
      ]) {
        const walk = walked();
        walk.on(made);
        expect(types(stop(walk))).toContain("abort");
        walk.on(ahead(1));
        expect(walk.state.job).toBeNull();
      }
    });

    test("is not begun where the charter has none, and a failure of it ends no round", () => {
      const none = new Walk();
      none.settle();
      none.receive({ type: "assign", assignment: train("t0", 0) });
      expect(types(none.on(made))).toEqual(["upload", "ready"]);
      const walk = walked();
      walk.on(made);
      const broken = { type: "broken", reason: "no room", code: "no-engine", lost: false } as const;
      expect(types(walk.on({ type: "finished", assignment: "t0", result: broken }))).toEqual([]);
      expect(walk.state).toMatchObject({ trail: null, failure: null, preparation: "done", trouble: "no room" });
      const lost = walked();
      lost.on(made);
      expect(types(lost.on({ type: "finished", assignment: "t0", result: { ...broken, lost: true } }))).toEqual([]);
      expect(lost.state).toMatchObject({ trail: null, job: null, failure: null, preparation: "none", pending });
      lost.receive(verdict("late"));
      lost.on({ type: "prepared", pending, late: null }); // read before the verdict was written down
      expect(lost.state).toMatchObject({ refused: 1, contributions: [{ id: pending.id }] });
    });

    test("is not ended by the assignment that was answered, said again after a reconnect", () => {
      const walk = walked();
      walk.on(made);
      walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "gone" });
      walk.connect();
      expect(types(walk.effects)).toContain("ready");
      // The relay has used up the "ready" that came before the contribution; without another nothing is assigned any more.
      expect(types(walk.receive({ type: "assign", assignment: train("t0", 0) }))).toEqual(["ready"]);
      expect(walk.state).toMatchObject({ assigned: null, job: { type: "ahead", aborted: false } });
    });
  });

  test("sends an unanswered contribution again on every new link", () => {
    const walk = new Walk();
    walk.settle(0, pending);
    for (let i = 0; i < 3; i += 1) {
      walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "cut" });
      expect(types(walk.connect())).toContain("upload");
    }
  });

  test("gives an unanswered contribution up, keeping its residual, when its round is long over", () => {
    const walk = new Walk();
    walk.settle(1, pending);
    walk.receive({ type: "have", contribution: pending.id, pieces: 1 });
    walk.receive({ type: "ping" });
    walk.on({ type: "woke" }, 10_000);
    walk.receive({ type: "ping" });
    expect(walk.on({ type: "woke" }, 10_000)).toMatchObject([
      { type: "send", message: { type: "ping" } },
      { type: "settle", outcome: "kept" },
      { type: "send", message: { type: "ready" } },
    ]);
  });

  test("settles a remembered contribution whose verdict came before the notebook was read", () => {
    const walk = new Walk();
    walk.connect();
    walk.receive({ type: "verdict", contribution: pending.id, verdict: { type: "accepted" } });
    expect(walk.on({ type: "prepared", pending, late: null })).toMatchObject([{ type: "settle", outcome: "accepted" }]);
    expect(walk.state.pending).toBeNull();
    expect(walk.state.accepted).toBe(1);
  });

  test("throws the residual of a harmful contribution away", () => {
    const walk = new Walk();
    walk.settle(0, pending);
    const verdict = { type: "refused", reason: "harmful" } as const;
    const effects = walk.receive({ type: "verdict", contribution: pending.id, verdict });
    expect(effects).toMatchObject([{ type: "settle", outcome: "discarded" }]);
  });

  test("drops an assignment whose round has ended", () => {
    const walk = new Walk();
    walk.settle();
    walk.receive({ type: "assign", assignment: train("t0", 0) });
    expect(types(walk.receive({ type: "version", head: head(1) }))).toEqual(["abort", "fetch"]);
    expect(types(walk.on({ type: "fetched", version: 1, digest: digest("1") }))).toEqual([]);
    const dropped: ContributorEvent = { type: "finished", assignment: "t0", result: { type: "dropped" } };
    expect(types(walk.on(dropped))).toEqual(["ready"]);
  });

  test("pause gives the assignment back and keeps the link, resume asks for work again", () => {
    const walk = new Walk();
    walk.settle();
    walk.receive({ type: "assign", assignment: train("t0", 0) });
    expect(types(walk.on({ type: "pause" }))).toEqual(["release", "abort"]);
    expect(types(walk.on({ type: "finished", assignment: "t0", result: { type: "dropped" } }))).toEqual([]);
    expect(walk.state.link.type).toBe("open");
    expect(types(walk.on({ type: "resume" }))).toEqual(["ready"]);
  });

  test("stop leaves, stops the work and puts the engine away", () => {
    const walk = new Walk();
    walk.settle();
    walk.receive({ type: "assign", assignment: train("t0", 0) });
    expect(types(walk.on({ type: "stop" }))).toEqual(["abort", "leave", "hangUp"]);
    const dropped: ContributorEvent = { type: "finished", assignment: "t0", result: { type: "dropped" } };
    expect(types(walk.on(dropped))).toEqual(["putAway"]);
    expect(wakeMs(walk.state, walk.nowMs)).toBeNull();
  });

  test("work goes on while the link is down, and its contribution is sent on the next one", () => {
    const walk = new Walk();
    walk.settle();
    walk.receive({ type: "assign", assignment: train("t0", 0) });
    expect(types(walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "cut" }))).toEqual([]);
    walk.on({ type: "finished", assignment: "t0", result: { type: "contribution", pending } });
    expect(types(walk.connect())).toEqual(["upload", "ready"]);
  });

  test("a lost device is replaced a few times, then a person is asked", () => {
    const walk = new Walk();
    walk.settle();
    for (let i = 0; i < 3; i += 1) {
      walk.receive({ type: "assign", assignment: train(`t${i}`, 0) });
      const result = { type: "broken", reason: "The device is lost", code: "device-lost", lost: true } as const;
      expect(types(walk.on({ type: "finished", assignment: `t${i}`, result }))).toContain("release");
      expect(types(walk.on({ type: "woke" }, 1000))).toContain("prepare");
      walk.on({ type: "prepared", pending: null, late: null });
    }
    walk.receive({ type: "assign", assignment: train("t9", 0) });
    const result = { type: "broken", reason: "The device is lost", code: "device-lost", lost: true } as const;
    walk.on({ type: "finished", assignment: "t9", result });
    expect(walk.state.failure).toEqual({ code: "device-lost", sentence: "The device is lost" });
  });

  test("finished training forgives the engines that were lost before it", () => {
    const walk = new Walk();
    walk.settle();
    for (let i = 0; i < 6; i += 1) {
      walk.receive({ type: "assign", assignment: train(`t${i}`, 0) });
      const result = { type: "broken", reason: "The device is lost", code: "device-lost", lost: true } as const;
      walk.on({ type: "finished", assignment: `t${i}`, result });
      walk.receive({ type: "ping" });
      expect(walk.on({ type: "woke" }, 1000).at(-1)).toMatchObject({ type: "prepare", losses: 1 });
      walk.on({ type: "prepared", pending: null, late: null });
      walk.receive({ type: "assign", assignment: train(`u${i}`, 0) });
      const made = { ...pending, id: (i + 1).toString(16).repeat(64) as ContributionId };
      walk.on({ type: "finished", assignment: `u${i}`, result: { type: "contribution", pending: made } });
      walk.receive({ type: "verdict", contribution: made.id, verdict: { type: "accepted" } });
    }
    expect(walk.state.failure).toBeNull();
  });

  test("a measurement between failures of training forgives none of them", () => {
    const walk = new Walk();
    walk.settle();
    for (const losses of [1, 2, 3]) {
      walk.receive({ type: "assign", assignment: train(`t${losses}`, 0) });
      const result = { type: "broken", reason: "The loss came out as NaN", code: "device-wrong", lost: true } as const;
      walk.on({ type: "finished", assignment: `t${losses}`, result });
      walk.receive({ type: "ping" });
      expect(walk.on({ type: "woke" }, 1000).at(-1)).toMatchObject({ type: "prepare", losses });
      walk.on({ type: "prepared", pending: null, late: null });
      walk.receive({ type: "assign", assignment: train(`v${losses}`, 0) });
      const report = { type: "report", body: new Uint8Array(), signature: new Uint8Array() } as const;
      walk.on({ type: "finished", assignment: `v${losses}`, result: report });
    }
  });

  test("an update goes by WebRTC while that lane is open, and again by the dialled link when it stalls", () => {
    const walk = new Walk({ rtc: true });
    expect(types(walk.connect())).toContain("openRtc");
    walk.on({ type: "rtcOpened" });
    walk.on({ type: "fetched", version: 0, digest: digest("0") });
    expect(walk.on({ type: "prepared", pending, late: null })).toMatchObject([
      { type: "upload", lane: "rtc" },
      { type: "send" },
    ]);
    for (let i = 0; i < STALL_MS / 5_000; i += 1) {
      walk.receive({ type: "pong" });
      walk.receive({ type: "ping" }, "rtc");
      walk.on({ type: "woke" }, 5000);
    }
    expect(walk.effects).toMatchObject([{ type: "send" }, { type: "closeRtc" }, { type: "upload", lane: "ws" }]);
    expect(viewOf(walk.state, { ...counters, nowMs: walk.nowMs })).toMatchObject({
      lane: "ws",
      laneReason: "The upload over WebRTC made no progress for 15 s; it goes on without.",
      status: "uploading",
    });
    for (let i = 0; i < STALL_MS / 5_000; i += 1) {
      walk.receive({ type: "pong" });
      walk.on({ type: "woke" }, 5_000);
    }
    expect(walk.effects).toMatchObject([{ type: "send" }, { type: "hangUp", reason: "The upload has stalled" }]);
  });
});
