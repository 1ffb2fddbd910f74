import { beforeEach, describe, expect, test } from "vitest";
import { digestOf, type ContributionId } from "../base/bytes.ts";
import { contributionIdOf } from "../protocol/codec.ts";
import { countingBytes } from "../protocol/examples.ts";
import { DRAW_MS, GRACE_SHARE_MIN, REPORT_GRACE_MS, RESTART_PATIENCE_MS, RETURN_MS, SKIP_PAUSE_MS } from "./live.ts";
import { screen } from "./screen.ts";
import { charter, GOOD, HARMFUL, idOf, Stage } from "./stage.fixture.ts";
import { blobsOf, CHECKPOINTS_KEPT, ROUNDS_KEPT } from "./state.ts";
import { wakeAt } from "./tick.ts";

const { trainMs, graceMs, judgeMs } = charter.round;

/** After every tick the fold of the ledger is the durable state. */
const sameAsLedger = (it: Stage): void => expect(it.fold()).toEqual(it.state.durable);

let stage: Stage;
beforeEach(() => {
  stage = new Stage(sameAsLedger);
});

test("wakeAt() is null, not a time that never comes, where only what is late is due", () => {
  stage.come("ada");
  expect(wakeAt(stage.state, stage.nowMs)).toBeGreaterThan(stage.nowMs);
  expect(wakeAt(stage.state, stage.state.live.closeMs)).toBeNull();
});

describe("a round", () => {
  test("of one contributor: train, contribute, the referee measures, merge, next version", () => {
    stage.come("ada");
    const assignment = stage.assignment("ada", "train");
    expect(assignment).toMatchObject({ round: 1, baseVersion: 0, trainMs, stepsMax: charter.round.stepsMax });
    const id = stage.contribute("ada");
    expect(stage.state.durable.stage).toBe("closed");
    stage.ready("ada");
    expect(stage.measures()).toEqual([id]);
    stage.measure(id, GOOD);
    expect(stage.told("ada")).toContainEqual({ type: "verdict", contribution: id, verdict: { type: "accepted" } });
    expect(stage.merges()).toEqual([[id]]);
    stage.merge();
    expect(stage.told("ada").at(-1)).toMatchObject({ type: "version", head: { version: 1 } });
    stage.ready("ada");
    expect(stage.assignment("ada", "train")).toMatchObject({ round: 2, baseVersion: 1 });
    const all = ["started", "introduced", "opened", "contributed", "closed", "judged", "merged", "opened"];
    expect(stage.types()).toEqual(all);
  });

  test("of three: each judges another's work, nobody its own, and nobody two", () => {
    stage.come("ada", "bob", "cyd");
    const ids = new Map(["ada", "bob", "cyd"].map((name) => [name, stage.contribute(name)]));
    stage.ready("ada", "bob", "cyd");
    const judged = ["ada", "bob", "cyd"].map((name) => {
      const given = stage.assignment(name, "validate");
      expect(given?.contribution).not.toBe(ids.get(name));
      stage.report(name, GOOD);
      return given?.contribution;
    });
    expect(new Set(judged).size).toBe(3);
    expect(stage.measures()).toEqual([]);
    expect(stage.merges()).toEqual([[...ids.values()].sort()]);
  });

  test("assignments differ between contributors and rounds", () => {
    stage.come("ada", "bob");
    const [ada, bob] = [stage.assignment("ada", "train"), stage.assignment("bob", "train")];
    expect(ada?.seed).not.toBe(bob?.seed);
    expect(ada?.id).not.toBe(bob?.id);
  });

  test("stays open for a joiner while half of the time remains, and gives it the rest", () => {
    stage.come("ada");
    stage.pass(trainMs / 2);
    stage.come("bob");
    expect(stage.assignment("bob", "train")?.trainMs).toBe(trainMs / 2);
    stage.pass(1);
    stage.come("cyd");
    expect(stage.assignment("cyd", "train")).toBeUndefined();
    stage.contribute("ada");
    stage.contribute("bob");
    stage.pass(DRAW_MS);
    expect(stage.assignment("cyd", "validate")).toBeDefined();
  });

  test("asks less of each where more contributed lately, whoever is there now", () => {
    const { keep, together } = charter.uplink;
    expect(together).toBeGreaterThan(3 * keep);
    const names = ["ada", "bob", "cyd"];
    stage.come(...names);
    expect(names.map((name) => stage.assignment(name, "train")?.keep)).toEqual([together, together, together]);
    names.forEach((name) => stage.contribute(name));
    ["bob", "cyd"].forEach((name) => stage.leave(name));
    for (let round = 1; round <= ROUNDS_KEPT; round += 1) {
      stage.pass(DRAW_MS);
      [...stage.state.durable.contributions.keys()].forEach((id) => stage.measure(id, GOOD));
      stage.merge();
      stage.ready("ada");
      const asked = { round: round + 1, keep: Math.ceil(together / 3) };
      expect(stage.assignment("ada", "train")).toMatchObject(asked);
      stage.contribute("ada");
    }
    stage.pass(DRAW_MS);
    [...stage.state.durable.contributions.keys()].forEach((id) => stage.measure(id, GOOD));
    stage.merge();
    stage.ready("ada");
    expect(stage.assignment("ada", "train")).toMatchObject({ keep: together });
  });

  test("is not given to somebody who holds another version", () => {
    stage.join("ada");
    stage.give({ type: "ready", session: stage.session("ada"), version: 4 });
    expect(stage.told("ada").at(-1)).toMatchObject({ type: "version", head: { version: 0 } });
    expect(stage.state.durable.stage).toBe("idle");
  });

  test("closes at the deadline for one that stays silent, and what comes after is late", () => {
    stage.come("ada", "bob");
    const late = stage.header("bob");
    stage.contribute("ada");
    stage.pass(trainMs + graceMs - 1);
    expect(stage.state.durable.stage).toBe("open");
    stage.pass(1);
    expect(stage.state.durable.stage).toBe("closed");
    expect(stage.screen("bob", late)).toBe("late");
  });

  test.each([
    [0, GRACE_SHARE_MIN * graceMs],
    [0.2 * graceMs, 0.4 * graceMs],
  ])("a quorum that took %i ms after the deadline leaves the rest %i ms", (tookMs, leftMs) => {
    stage.come("ada", "bob", "cyd", "dan");
    stage.contribute("ada");
    stage.pass(trainMs + tookMs);
    stage.contribute("bob");
    stage.contribute("cyd"); // three of four
    stage.pass(leftMs - tookMs - 1);
    expect(stage.state.durable.stage).toBe("open");
    stage.pass(1);
    expect(stage.state.durable.stage).toBe("closed");
    expect(stage.told("dan").at(-1)?.type).toBe("assign");
  });

  test("a quorum before the training deadline leaves the rest all of its time, and joiners may undo one", () => {
    stage.come("ada", "bob", "cyd", "dan");
    ["ada", "bob", "cyd"].forEach((name) => stage.contribute(name));
    stage.pass(trainMs / 2);
    stage.come("eve", "fay");
    expect(stage.state.live.quorumMs).toBeNull();
    stage.pass(trainMs / 2 + graceMs - 1);
    expect(stage.state.durable.stage).toBe("open");
    stage.pass(1);
    expect(stage.state.durable.stage).toBe("closed");
  });

  test("a restart makes no quorum of those who contributed before it", () => {
    stage.come("ada", "bob");
    stage.contribute("ada");
    stage.restart();
    stage.come("bob");
    stage.pass(Math.max(trainMs + graceMs / 2, RESTART_PATIENCE_MS));
    expect(stage.state.durable.stage).toBe("open");
  });

  test("does not wait for somebody who leaves or gives the assignment back", () => {
    stage.come("ada", "bob", "cyd");
    stage.contribute("ada");
    stage.leave("bob");
    expect(stage.state.durable.stage).toBe("open");
    stage.give({
      type: "released",
      session: stage.session("cyd"),
      assignment: stage.assignment("cyd", "train")?.id ?? "",
    });
    expect(stage.state.durable.stage).toBe("closed");
  });

  test("waits a moment for somebody whose link dropped, and gives the same assignment again", () => {
    stage.come("ada", "bob");
    const before = stage.assignment("bob", "train");
    stage.contribute("ada");
    stage.leave("bob", false);
    stage.pass(RETURN_MS - 1);
    stage.come("bob");
    expect(stage.assignment("bob", "train")).toEqual({ ...before, trainMs: trainMs - RETURN_MS + 1 });
    stage.leave("bob", false);
    stage.pass(RETURN_MS);
    expect(stage.state.durable.stage).toBe("closed");
  });

  test("does not remember for long who left, however many come and go", () => {
    stage.come("ada");
    for (let i = 0; i < 20; i += 1) {
      stage.come(`eve${i}`);
      stage.leave(`eve${i}`, false);
      stage.pass(RETURN_MS / 10);
    }
    expect(stage.state.durable.stage).toBe("open");
    expect(stage.state.live.absent.size).toBeLessThanOrEqual(10);
  });

  test("without any contribution is skipped, and the next begins after a pause on the same base with another seed", () => {
    stage.come("ada");
    const seed = stage.assignment("ada", "train")?.seed;
    stage.pass(trainMs + graceMs);
    expect(stage.types().at(-1)).toBe("skipped");
    stage.ready("ada");
    expect(stage.state.durable.stage).toBe("idle");
    stage.pass(SKIP_PAUSE_MS);
    expect(stage.assignment("ada", "train")).toMatchObject({ round: 2, baseVersion: 0 });
    expect(stage.assignment("ada", "train")?.seed).not.toBe(seed);
  });

  test("somebody who comes and goes cannot open rounds faster than the pause", () => {
    for (let i = 0; i < 20; i += 1) {
      stage.come("ada");
      stage.leave("ada");
      stage.pass(10);
    }
    expect(stage.types().filter((type) => type === "opened").length).toBe(1);
  });

  test("a second session of a contributor replaces the first and keeps its training", () => {
    stage.come("ada", "bob");
    const first = stage.session("ada");
    stage.join("ada");
    expect(stage.effects).toContainEqual(expect.objectContaining({ type: "disconnect", session: first }));
    expect(stage.state.live.sessions.size).toBe(2);
    stage.give({ type: "left", session: first, leave: false });
    stage.contribute("bob");
    expect(stage.state.durable.stage).toBe("open");
    stage.ready("ada");
    stage.contribute("ada");
    expect(stage.state.durable.stage).toBe("closed");
  });
});

describe("judging", () => {
  const pair = (): { readonly ada: ContributionId; readonly bob: ContributionId } => {
    stage.come("ada", "bob");
    const ids = { ada: stage.contribute("ada"), bob: stage.contribute("bob") };
    stage.ready("ada", "bob");
    return ids;
  };

  test("validators are drawn when everyone is ready, or a moment after the close", () => {
    stage.come("ada", "bob", "cyd");
    stage.contribute("ada");
    stage.ready("ada");
    stage.contribute("bob");
    stage.contribute("cyd");
    expect(stage.assignment("ada", "validate")).toBeUndefined();
    stage.pass(DRAW_MS);
    expect(stage.assignment("ada", "validate")).toBeDefined();
    expect(stage.measures().length).toBe(2);
  });

  test("a validator's refusal is confirmed by the referee, whose measurement decides", () => {
    const { ada, bob } = pair();
    stage.report("ada", HARMFUL);
    stage.report("bob", HARMFUL);
    expect(stage.measures().toSorted()).toEqual([ada, bob].sort());
    stage.measure(ada, GOOD);
    stage.measure(bob, HARMFUL);
    expect(stage.verdict(ada)).toEqual({ type: "accepted" });
    expect(stage.verdict(bob)).toEqual({ type: "refused", reason: "harmful" });
    expect(stage.merges()).toEqual([[ada]]);
  });

  test("a share of acceptances is measured again, and the referee wins", () => {
    stage = new Stage(sameAsLedger, { auditShare: 1 });
    const { ada, bob } = pair();
    stage.report("ada", GOOD);
    stage.report("bob", GOOD);
    expect(stage.verdict(ada)).toBeNull();
    stage.measure(ada, { ...GOOD, assignedAfter: 3 });
    stage.measure(bob, GOOD);
    expect(stage.verdict(ada)).toEqual({ type: "refused", reason: "no-improvement" });
    expect(stage.merges()).toEqual([[bob]]);
  });

  test("what a validator says that somebody improved is no standard for others", () => {
    const { ada } = pair();
    stage.report("ada", { ...GOOD, assignedAfter: 0 });
    stage.report("bob", HARMFUL);
    expect(stage.state.durable.standards.improvements.size).toBe(0);
    stage.measure(ada, GOOD);
    expect(stage.merges()).toHaveLength(1);
    expect(stage.state.durable.standards.improvements.size).toBe(1);
  });

  test("the referee takes over from a validator that is late, leaves or gives up", () => {
    stage.come("ada", "bob", "cyd");
    const ids = ["ada", "bob", "cyd"].map((name) => stage.contribute(name));
    stage.ready("ada", "bob", "cyd");
    stage.leave("ada", false);
    expect(stage.measures().length).toBe(1);
    stage.give({
      type: "released",
      session: stage.session("bob"),
      assignment: stage.assignment("bob", "validate")?.id ?? "",
    });
    expect(stage.measures().length).toBe(2);
    stage.pass(judgeMs + REPORT_GRACE_MS);
    expect(new Set(stage.measures())).toEqual(new Set(ids));
    stage.report("cyd", GOOD);
    expect(stage.told("cyd").at(-1)).toMatchObject({ type: "refused", reason: "not-assigned" });
  });

  test("a referee that cannot measure leaves an acceptable report standing, and refuses as busy without one", () => {
    const { ada, bob } = pair();
    const judge = stage.assignment("ada", "validate")?.contribution === bob ? "ada" : "bob";
    expect(judge).toBe("ada");
    stage.report("ada", HARMFUL);
    stage.measure(bob, null);
    expect(stage.verdict(bob)).toEqual({ type: "refused", reason: "busy" });
    stage.leave("bob");
    stage.measure(ada, null);
    expect(stage.verdict(ada)).toEqual({ type: "refused", reason: "busy" });
  });

  test("who contributes and judges nothing holds up no round: what waits when the referee's time is over is refused as busy", () => {
    stage.come("ada", "bob", "cyd");
    const [ada, bob, cyd] = ["ada", "bob", "cyd"].map((name) => stage.contribute(name)) as ContributionId[];
    stage.pass(DRAW_MS);
    stage.pass(2 * judgeMs + REPORT_GRACE_MS - 1);
    stage.measure(ada as ContributionId, GOOD);
    expect(stage.verdict(bob as ContributionId)).toBeNull();
    stage.pass(1);
    stage.measure(bob as ContributionId, GOOD);
    expect(stage.verdict(cyd as ContributionId)).toEqual({ type: "refused", reason: "busy" });
    expect(stage.merges()).toEqual([[ada, bob].sort()]);
  });

  test("a norm out of proportion is refused when the round closes, without a measurement", () => {
    stage.come("ada", "bob", "cyd");
    stage.contribute("ada", { norm: 1 });
    const huge = stage.contribute("bob", { norm: 100 });
    stage.contribute("cyd", { norm: 1.1 });
    expect(stage.verdict(huge)).toEqual({ type: "refused", reason: "norm-too-large" });
    expect(stage.told("bob")).toContainEqual(expect.objectContaining({ type: "verdict", contribution: huge }));
  });

  test("a tiny update on what is said to be private data makes nobody's norm too large, nor its work too little", () => {
    stage.come("ada", "bob", "cyd", "dan", "eve", "fay");
    for (const liar of ["dan", "eve", "fay"]) {
      stage.contribute(liar, { norm: 1e-6, header: stage.header(liar, { privateData: true }) });
    }
    const honest = ["ada", "bob", "cyd"].map((name) => stage.contribute(name, { norm: 1 }));
    expect(honest.map((id) => stage.verdict(id))).toEqual([null, null, null]);
    stage.pass(DRAW_MS + judgeMs + REPORT_GRACE_MS);
    const own = { ...GOOD, assignedBefore: null, assignedAfter: null };
    stage.measures().forEach((id) => stage.measure(id, honest.includes(id) ? GOOD : own));
    expect(stage.merges()).toHaveLength(1);
    expect([...stage.state.durable.contributions.values()].every(({ verdict }) => verdict?.type === "accepted")).toBe(
      true,
    );
    expect(stage.state.durable.standards.norms.runs).toEqual([[1, 1, 1]]);
  });

  test("a round of refusals is skipped", () => {
    const { ada, bob } = pair();
    stage.report("ada", HARMFUL);
    stage.report("bob", HARMFUL);
    stage.measure(ada, HARMFUL);
    stage.measure(bob, HARMFUL);
    expect(stage.merges()).toEqual([]);
    expect(stage.types().at(-1)).toBe("skipped");
  });

  test("a verdict is told to an author that was away when it returns", () => {
    const { ada, bob } = pair();
    stage.leave("ada");
    stage.report("bob", GOOD);
    stage.measures().forEach((id) => stage.measure(id, GOOD));
    expect([stage.verdict(ada), stage.verdict(bob)]).toEqual([{ type: "accepted" }, { type: "accepted" }]);
    stage.merge();
    stage.join("ada");
    expect(stage.told("ada").map((message) => message.type)).toEqual(["welcome", "verdict"]);
  });
});

describe("screen()", () => {
  test("knows what it received, from whom, and in which round", () => {
    stage.come("ada", "bob");
    const header = stage.header("ada");
    const id = stage.contribute("ada", { header });
    expect(stage.screen("ada", header)).toBe("known");
    expect(stage.screen("bob", header)).toBe("replayed");
    stage.contribute("bob");
    stage.ready("ada", "bob");
    stage.report("ada", GOOD);
    stage.report("bob", GOOD);
    stage.merge();
    expect(screen(stage.state, stage.session("ada"), id, header)).toEqual({
      type: "known",
      verdict: { type: "accepted" },
    });
    stage.ready("ada");
    expect(stage.screen("ada", header)).toBe("replayed");
    expect(stage.screen("ada", stage.header("ada", { payload: header.payload }))).toBe("replayed");
  });

  test("refuses what does not fit the run, the round, the assignment, the base or the truth", () => {
    stage.come("ada", "bob");
    const other = digestOf(countingBytes(9));
    const bobs = stage.assignment("bob", "train")?.id ?? "";
    expect(stage.screen("ada", stage.header("ada"))).toBe("passed");
    expect(stage.screen("ada", stage.header("ada", { run: other }))).toBe("wrong-run");
    expect(stage.screen("ada", stage.header("ada", { contributor: idOf("bob") }))).toBe("bad-signature");
    expect(stage.screen("ada", stage.header("ada", { assignment: bobs }))).toBe("not-assigned");
    expect(stage.screen("ada", stage.header("ada", { round: 0 }))).toBe("late");
    expect(stage.screen("ada", stage.header("ada", { round: 2 }))).toBe("not-assigned");
    expect(stage.screen("ada", stage.header("ada", { baseDigest: other }))).toBe("wrong-base");
    expect(stage.screen("ada", stage.header("ada", { baseVersion: 3 }))).toBe("wrong-base");
    expect(stage.screen("ada", stage.header("ada", { loss: NaN }))).toBe("not-finite");
    expect(stage.screen("ada", stage.header("ada", { tokens: 10 * 8 * 128 + 1 }))).toBe("malformed");
    expect(stage.screen("ada", stage.header("ada", { steps: charter.round.stepsMax + 1 }))).toBe("malformed");
    const { aheadMax } = charter.round;
    expect(stage.screen("ada", stage.header("ada", { ahead: aheadMax }))).toBe("passed");
    expect(stage.screen("ada", stage.header("ada", { ahead: aheadMax + 1 }))).toBe("malformed");
    expect(stage.screen("eve", stage.header("ada"))).toBe("unknown-contributor");
    stage.contribute("ada");
    expect(stage.screen("ada", stage.header("ada"))).toBe("not-assigned");
  });

  test("a rejected answer ends the assignment, so the round does not wait for another", () => {
    stage.come("ada", "bob");
    stage.contribute("bob");
    const contribution = contributionIdOf(countingBytes(1));
    stage.give({ type: "rejected", session: stage.session("ada"), contribution, reason: "truncated", ends: true });
    expect(stage.told("ada").at(-1)).toMatchObject({ type: "verdict", verdict: { reason: "truncated" } });
    expect(stage.state.durable.stage).toBe("closed");
    expect(stage.state.live.refused).toBe(1);
  });
});

describe("a restart", () => {
  test("in training: the round gets its time anew and the assignments still hold", () => {
    stage.come("ada", "bob");
    const header = stage.header("ada");
    stage.contribute("bob");
    stage.pass(trainMs);
    stage.restart();
    stage.join("ada");
    stage.contribute("ada", { header });
    expect(stage.state.durable.contributions.size).toBe(2);
    stage.pass(RESTART_PATIENCE_MS);
    expect(stage.state.durable.stage).toBe("closed");
  });

  test("in judging: what is undecided goes to whoever is there, the referee if nobody is", () => {
    stage.come("ada", "bob");
    const ids = [stage.contribute("ada"), stage.contribute("bob")];
    stage.restart();
    expect(stage.measures().toSorted()).toEqual(ids.sort());
  });

  test("in merging: the same merge is asked for again", () => {
    stage.come("ada");
    const id = stage.contribute("ada");
    stage.ready("ada");
    stage.measure(id, GOOD);
    expect(stage.merges()).toEqual([[id]]);
    stage.restart();
    expect(stage.merges()).toEqual([[id]]);
    stage.merge();
    expect(stage.state.durable.head.version).toBe(1);
  });

  test("in gathering: nothing happens until somebody is ready", () => {
    stage.restart();
    stage.pass(100_000);
    expect(stage.types()).toEqual(["started"]);
  });
});

describe("bounds", () => {
  test("blobs that are no longer needed are forgotten, and what is remembered stays small", () => {
    const rounds = ROUNDS_KEPT + CHECKPOINTS_KEPT + 10;
    stage.join("ada");
    for (let round = 0; round < rounds; round += 1) {
      stage.ready("ada");
      const id = stage.contribute("ada");
      stage.ready("ada");
      stage.measure(id, GOOD);
      stage.merge();
    }
    const { durable } = stage.state;
    expect(durable.head.version).toBe(rounds);
    expect(durable.past.length).toBe(ROUNDS_KEPT);
    const forgotten = stage.effects.flatMap((effect) => (effect.type === "forget" ? effect.blobs : []));
    expect(new Set(forgotten).size).toBe(forgotten.length);
    expect(forgotten.some((digest) => blobsOf(durable).has(digest))).toBe(false);
    expect(forgotten).toContain(digestOf(countingBytes(4)));
    expect(durable.versions.length).toBe(rounds + 1);
    expect(durable.versions.at(-1)).toMatchObject({ accepted: 1, contributors: 1, refused: 0, bytesUp: 10 });
  });
});
