import { beforeEach, describe, expect, test } from "vitest";
import { contributorIdOf } from "../protocol/codec.ts";
import { countingBytes } from "../protocol/examples.ts";
import { TEXT_CHARS_MAX } from "../protocol/limits.ts";
import type { RelayMessage } from "../protocol/messages.ts";
import { BUSY_RETRY_MS, SKIP_PAUSE_MS, type OperatorCommand } from "./live.ts";
import { refusalOf } from "./operator.ts";
import { Actor, calm, honestDelta, joined, pack, started } from "./rehearsal.fixture.ts";
import { charter, GOOD, idOf, Stage } from "./stage.fixture.ts";
import { BANS_MAX } from "./state.ts";

let stage: Stage;
beforeEach(() => {
  stage = new Stage((it) => expect(it.fold()).toEqual(it.state.durable));
});

const operate = (command: OperatorCommand): string | null => {
  const refusal = refusalOf(stage.state, command);
  stage.give({ type: "operated", command });
  return refusal;
};
const ban = (name: string, why = "Sends noise"): string | null =>
  operate({ type: "ban", contributor: idOf(name), why });
const drained = (): boolean => stage.effects.some(({ type }) => type === "drained");

describe("pause", () => {
  test("ends the round under way and opens no other until resume, after a restart neither", () => {
    stage.come("ada");
    expect(operate({ type: "pause" })).toBeNull();
    expect(operate({ type: "pause" })).toBe("Cannot pause: the run is paused already");
    const id = stage.contribute("ada");
    stage.ready("ada");
    stage.measure(id, GOOD);
    stage.merge();
    stage.ready("ada");
    stage.pass(3_600_000);
    expect(stage.state.durable).toMatchObject({ stage: "idle", round: 2, paused: true });
    stage.restart();
    stage.come("ada");
    expect(stage.assignment("ada", "train")).toBeUndefined();
    expect(operate({ type: "resume" })).toBeNull();
    expect(stage.assignment("ada", "train")).toMatchObject({ round: 2, baseVersion: 1 });
    expect(operate({ type: "resume" })).toBe("Cannot resume: the run is not paused");
    expect(stage.types().filter((type) => /paused|resumed/.test(type))).toEqual(["paused", "resumed"]);
  });
});

describe("drain", () => {
  test("of a relay at rest is done at once", () => {
    expect(operate({ type: "drain" })).toBeNull();
    expect(drained()).toBe(true);
  });

  test("finishes the round, lets nobody new in but those whose link dropped, and opens no other", () => {
    stage.come("ada", "bob");
    const given = stage.assignment("bob", "train");
    operate({ type: "drain" });
    expect(operate({ type: "drain" })).toBe("Cannot drain: the relay is draining already");
    stage.join("cyd");
    expect(stage.told("cyd")).toEqual([{ type: "refused", reason: "busy", retryMs: BUSY_RETRY_MS }]);
    expect(stage.state.live.sessions.has(stage.session("cyd"))).toBe(false);
    stage.leave("bob", false);
    stage.come("bob");
    expect(stage.assignment("bob", "train")?.id).toBe(given?.id);
    const ids = [stage.contribute("ada"), stage.contribute("bob")];
    stage.ready("ada", "bob");
    stage.report("ada", GOOD);
    stage.report("bob", GOOD);
    expect(stage.merges()).toEqual([ids.toSorted()]);
    expect(drained()).toBe(false);
    stage.merge();
    expect(drained()).toBe(true);
    stage.ready("ada", "bob");
    stage.pass(3_600_000);
    expect(stage.types().filter((type) => type === "opened")).toHaveLength(1);
    stage.restart();
    expect(stage.state.live.draining).toBe(false);
  });
});

describe("ban", () => {
  test("ends the session with the reason, and the next ones before they begin, after a restart too", () => {
    stage.come("ada", "bob");
    expect(ban("ada")).toBeNull();
    const told: RelayMessage = { type: "banned", why: "Sends noise" };
    expect(stage.told("ada").at(-1)).toEqual(told);
    expect(stage.effects.at(-1)).toMatchObject({ type: "disconnect", session: stage.session("ada") });
    stage.give({ type: "left", session: stage.session("ada"), leave: false });
    expect(stage.state.live.absent.size).toBe(0);
    stage.restart();
    stage.join("ada");
    expect(stage.told("ada")).toEqual([told]);
    expect(stage.state.live.sessions.size).toBe(0);
    expect(ban("ada", "Still does")).toBeNull();
    expect(stage.state.durable.banned).toEqual(new Map([[idOf("ada"), "Still does"]]));
    expect(operate({ type: "unban", contributor: idOf("ada") })).toBeNull();
    expect(operate({ type: "unban", contributor: idOf("ada") })).toBe("Cannot unban: this device is not banned");
    stage.come("ada");
    expect(stage.told("ada")[0]).toMatchObject({ type: "welcome" });
  });

  test("refuses what is not judged yet, and the round goes on with the others' work", () => {
    stage.come("ada", "bob", "cyd");
    const [ada, bob, cyd] = [stage.contribute("ada"), stage.contribute("bob"), stage.contribute("cyd")];
    stage.ready("ada", "bob", "cyd");
    ban("ada");
    expect(stage.verdict(ada)).toEqual({ type: "refused", reason: "banned" });
    for (const name of ["bob", "cyd"]) {
      stage.report(name, GOOD); // one of them measured the work of ada, which counts for nothing now
    }
    stage.pass(charter.round.judgeMs * 2);
    for (const id of stage.measures()) {
      stage.measure(id, GOOD);
    }
    expect(stage.verdict(ada)).toEqual({ type: "refused", reason: "banned" });
    expect(stage.merges()).toEqual([[bob, cyd].toSorted()]);
  });

  test("while the referee measures the work makes its result count for nothing", () => {
    stage.come("ada");
    const id = stage.contribute("ada");
    stage.ready("ada");
    expect(stage.measures()).toEqual([id]);
    ban("ada");
    stage.measure(id, GOOD);
    expect(stage.verdict(id)).toEqual({ type: "refused", reason: "banned" });
    expect(stage.types().at(-1)).toBe("skipped");
  });

  test("of a round's only author makes the report of its validator, which comes after the round, count for nothing", () => {
    stage.come("ada", "bob");
    const id = stage.contribute("ada");
    stage.give({
      type: "released",
      session: stage.session("bob"),
      assignment: stage.assignment("bob", "train")?.id ?? "",
    });
    stage.ready("bob", "ada");
    expect(stage.assignment("bob", "validate")).toMatchObject({ contribution: id });
    ban("ada");
    expect(stage.types().at(-1)).toBe("skipped");
    stage.report("bob", GOOD);
    stage.ready("bob");
    stage.pass(SKIP_PAUSE_MS);
    expect(stage.assignment("bob", "train")).toMatchObject({ round: 2 });
  });

  test("keeps what was accepted before", () => {
    stage.come("ada");
    const id = stage.contribute("ada");
    stage.ready("ada");
    stage.measure(id, GOOD);
    ban("ada");
    stage.merge();
    expect(stage.state.durable.head.version).toBe(1);
  });

  test("is refused without a reason of one line, and where too many are banned", () => {
    const refused = /^Cannot ban: /;
    for (const why of ["", "x".repeat(TEXT_CHARS_MAX + 1), "two\nlines", "half a pair \ud800", "\ufeffmarked"]) {
      expect(ban("ada", why)).toMatch(refused);
    }
    expect(stage.types()).toEqual(["started"]);
    const many = Array.from({ length: BANS_MAX }, (_, i) => [contributorIdOf(countingBytes(32, i)), "x"] as const);
    const banned = new Map(many.map(([id, why], i) => [`${i}${id}` as typeof id, why]));
    const full = { ...stage.state, durable: { ...stage.state.durable, banned } };
    expect(refusalOf(full, { type: "ban", contributor: idOf("ada"), why: "x" })).toMatch(refused);
    const [first] = banned.keys();
    expect(refusalOf(full, { type: "ban", contributor: first as never, why: "y" })).toBeNull();
  });
});

describe("createCoordinatorHost()", () => {
  test("operates when what it says is durable, tells the banned and closes their link", async () => {
    const entries: string[] = [];
    const changes: string[] = [];
    const world = await started({
      onEntry: (entry) => entries.push(entry.event.type),
      onChange: () => changes.push(world.host.view().phase),
    });
    const [ada] = (await joined(world, "ada")) as [Actor];
    expect(await world.host.operate({ type: "ban", contributor: ada.id, why: "Sends noise" })).toBeNull();
    expect(entries).toContain("banned");
    await calm(world.host);
    expect(ada.got.at(-1)).toEqual({ type: "banned", why: "Sends noise" });
    expect(ada.closed).not.toBeNull();
    expect(await world.host.operate({ type: "pause" })).toBeNull();
    expect(world.host.operatorView()).toEqual({
      draining: false,
      paused: true,
      banned: [{ contributor: ada.id, why: "Sends noise" }],
      sessions: [],
    });
    await ada.connect();
    expect(ada.got.at(-1)).toEqual({ type: "banned", why: "Sends noise" });
    expect(await world.host.operate({ type: "unban", contributor: ada.id })).toBeNull();
    expect(await world.host.operate({ type: "unban", contributor: ada.id })).toMatch(/^Cannot unban/);
  });

  test("whileStill() waits for a merge that is under way, and sees what it made", async () => {
    let [gate, release]: [Promise<void>, () => void] = [Promise.resolve(), () => undefined];
    const losses = { assignedBefore: 3, assignedAfter: 2, randomBefore: 3, randomAfter: 2 };
    const world = await started({
      referee: { evaluate: async () => gate.then(() => 2.5), measure: async () => losses },
    });
    const [ada] = (await joined(world, "ada")) as [Actor];
    gate = new Promise((settle) => {
      release = settle;
    });
    const contributing = ada.contribute(pack(honestDelta(ada.base, 0.2))); // waits for all that follows from it
    for (let turn = 0; turn < 2_000; turn += 1) {
      await Promise.resolve();
    }
    expect(world.host.view().phase).toBe("merging");
    const versions: number[] = [];
    const still = world.host.whileStill(async ({ head }) => versions.push(head.version));
    for (let turn = 0; turn < 2_000; turn += 1) {
      await Promise.resolve();
    }
    expect(versions).toEqual([]);
    release();
    await Promise.all([still, contributing]);
    expect(versions).toEqual([1]);
    await expect(
      world.host.whileStill(async () => Promise.reject(new Error("the work's own failure"))),
    ).rejects.toThrow("the work's own failure");
    expect(await world.host.operate({ type: "pause" })).toBeNull(); // the host goes on
  });

  test("says when it is drained", async () => {
    let drainedTimes = 0;
    const world = await started({ onDrained: () => (drainedTimes += 1) });
    expect(await world.host.operate({ type: "drain" })).toBeNull();
    expect(drainedTimes).toBe(1);
  });
});
