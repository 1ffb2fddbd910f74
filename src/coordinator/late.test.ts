import { describe, expect, test } from "vitest";
import { floatBytes, digestOf, type Bytes, type ContributionId } from "../base/bytes.ts";
import { BUSY_RETRY_MS } from "./live.ts";
import { digestPieces, pieceAt } from "../protocol/pieces.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Keys } from "../store/store.ts";
import { applyUpdate } from "../update/delta.ts";
import { createServerState, outerAt } from "../update/outer.ts";
import { mergeUpdates, outerStep } from "../update/twin.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { trainSeed } from "./assignment.ts";
import { weightIn } from "./late.ts";
import { STRIKES_MAX } from "./peer.ts";
import { Actor, calm, charter, honestDelta, joined, P, pack, started, World } from "./rehearsal.fixture.ts";
import { GOOD, idOf, Stage } from "./stage.fixture.ts";
import type { RoundFacts } from "./state.ts";
import { UPLOAD_IDLE_MS } from "./uploads.ts";

const { trainMs, graceMs } = charter.round;

const sameAsLedger = (it: Stage): void => expect(it.fold()).toEqual(it.state.durable);

/** A stage in whose first round ada and bob got work and only ada has contributed; and bob's header, for later. */
function bobIsLate(lateShare = 0.5) {
  const stage = new Stage(sameAsLedger, { lateShare });
  stage.come("ada", "bob");
  const early = stage.contribute("ada");
  const header = stage.header("bob");
  stage.pass(trainMs + graceMs);
  return { stage, early, header };
}

/** Ada's contribution is accepted, and the next round opens. */
function goOn(stage: Stage, id: ContributionId): void {
  stage.pass(1_000);
  stage.measure(id, GOOD);
  stage.merge();
  stage.ready("ada", "bob");
}

describe("a contribution that is one round late", () => {
  test("is held while its round is judged, and taken while the next one is open; then it is too late", () => {
    const { stage, early, header } = bobIsLate();
    expect(stage.state.durable.stage).toBe("closed");
    expect(stage.screen("bob", header)).toBe("soon");
    stage.pass(1_000);
    stage.measure(early, GOOD);
    stage.merge();
    expect([stage.state.durable.stage, stage.screen("bob", header)]).toEqual(["idle", "soon"]);
    stage.ready("ada", "bob");
    expect([stage.state.durable.stage, stage.screen("bob", header)]).toEqual(["open", "passed"]);
    stage.contribute("ada");
    stage.contribute("bob");
    expect([stage.state.durable.stage, stage.screen("bob", header)]).toEqual(["closed", "late"]);
    stage.pass(1_000);
    stage.measures().forEach((id) => stage.measure(id, GOOD));
    stage.merge();
    stage.ready("ada", "bob");
    expect([stage.state.durable.round, stage.screen("bob", header)]).toEqual([3, "late"]);
  });

  test("is late at once where the charter gives it no weight", () => {
    const { stage, early, header } = bobIsLate(0);
    expect(stage.screen("bob", header)).toBe("late");
    goOn(stage, early);
    expect([stage.state.durable.stage, stage.screen("bob", header)]).toEqual(["open", "late"]);
  });

  test("comes beside the same contributor's present one, once each, and ends no training", () => {
    const { stage, early, header } = bobIsLate();
    goOn(stage, early);
    const late = stage.contribute("bob", { header });
    expect(stage.state.live.sessions.get(stage.session("bob"))?.task).toMatchObject({ type: "train" });
    const { payload } = stage.header("bob");
    expect(stage.screen("bob", header)).toBe("known");
    expect(stage.screen("bob", { ...header, payload })).toBe("not-assigned");
    const present = stage.contribute("bob");
    expect(stage.screen("bob", { ...stage.header("bob"), payload })).toBe("not-assigned");
    stage.contribute("ada");
    stage.ready("ada", "bob");
    const judged = ["ada", "bob"].map((name) => stage.assignment(name, "validate")?.contribution);
    expect(new Set(judged).size).toBe(2); // nobody has two of them, and nobody its own
    expect([late, present]).not.toContain(judged[1]);
    stage.report("ada", GOOD);
    stage.report("bob", GOOD);
    stage.measures().forEach((id) => stage.measure(id, GOOD));
    expect(stage.merges().at(-1)).toHaveLength(3);
    stage.merge();
    stage.ready("ada", "bob");
    expect(stage.screen("bob", { ...header, payload })).toBe("late");
    expect([...(stage.state.durable.past.at(-1)?.authors.keys() ?? [])]).toHaveLength(3);
  });

  test("is no second answer of one who was in time, nor of a header that does not fit its round", () => {
    const { stage, early, header } = bobIsLate();
    const again = { ...header, contributor: idOf("ada"), assignment: stage.header("ada").assignment };
    goOn(stage, early);
    expect(stage.screen("ada", again)).toBe("not-assigned");
    expect(stage.screen("bob", { ...header, assignment: stage.header("bob").assignment })).toBe("not-assigned");
    const { head } = stage.state.durable;
    const moved = { ...header, baseVersion: head.version, baseDigest: head.digest };
    expect(stage.screen("bob", moved)).toBe("wrong-base");
    expect(stage.screen("bob", { ...header, steps: 1e6 })).toBe("malformed");
    expect(stage.screen("bob", header)).toBe("passed");
  });

  test("makes no quorum, and no round waits for it or ends by it", () => {
    const { stage, early, header } = bobIsLate();
    goOn(stage, early);
    stage.contribute("bob", { header });
    expect(stage.state.live.quorumMs).toBeNull();
    expect(stage.state.durable.stage).toBe("open");
    stage.leave("bob");
    stage.contribute("ada");
    expect(stage.state.durable.stage).toBe("closed");
  });

  test("is measured with the batches of its own round on the present base, also after a restart", () => {
    const { stage, early, header } = bobIsLate();
    const facts = { round: 1, seed: stage.state.durable.seed } as RoundFacts;
    goOn(stage, early);
    const late = stage.contribute("bob", { header });
    stage.restart();
    stage.pass(3 * (trainMs + graceMs));
    const asked = stage.effects.find((effect) => effect.type === "measure" && effect.contribution === late);
    expect(asked).toMatchObject({ facts: { round: 1, authorSeed: trainSeed(facts, idOf("bob")) } });
    stage.come("ada");
    stage.measure(late, GOOD);
    expect(stage.verdict(late)).toEqual({ type: "accepted" });
    expect(stage.merges()).toEqual([[late]]);
  });

  test("is late after a round that was skipped, too, from the same base", () => {
    const stage = new Stage(sameAsLedger, { lateShare: 0.5 });
    stage.come("bob");
    const header = stage.header("bob");
    stage.pass(trainMs + graceMs + 3_000);
    stage.ready("bob");
    expect(stage.state.durable).toMatchObject({ round: 2, stage: "open", head: { version: 0 } });
    expect(stage.contribute("bob", { header })).toBeDefined();
  });
});

const late = { ...charter, round: { ...charter.round, lateShare: 0.25 } };

/** A world in whose first round ada has contributed and bob, who did not, signs what he made. */
async function bobsWorld(): Promise<{
  world: World;
  ada: Actor;
  bob: Actor;
  sent: Awaited<ReturnType<Actor["contribution"]>>;
}> {
  const world = await started({ charter: late });
  const [ada, bob] = (await joined(world, "ada", "bob")) as [Actor, Actor];
  const sent = await bob.contribution(pack(honestDelta(bob.base, 0.2)));
  ada.send((await ada.contribution(pack(honestDelta(ada.base)))).message);
  return { world, ada, bob, sent };
}

/** Until the referee has measured and the next version is there. */
async function toNext(world: World, ...actors: Actor[]): Promise<void> {
  await world.pass(2_000);
  for (const actor of actors) {
    await actor.ready();
  }
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 2_000; turn += 1) {
    await Promise.resolve();
  }
}

describe("what arrives between two rounds", () => {
  for (const way of ["as it is", "sent in judging", "its relay is killed", "its link breaks", "its piece is lost"]) {
    test(`waits for the next one and is merged with it: ${way}`, async () => {
      const { world, ada, bob, sent } = await bobsWorld();
      const wanted = way === "sent in judging" ? "judging" : "gathering";
      for (let looks = 0; looks < 1_000 && world.host.view().phase !== wanted; looks += 1) {
        await world.pass(100);
      }
      expect(world.host.view().phase).toBe(wanted);
      bob.send(sent.message);
      await calm(world.host);
      expect(bob.last("have")).toEqual({ type: "have", contribution: sent.id, pieces: 1 });
      expect([bob.verdictOn(sent.id), world.disk.values.size]).toEqual([undefined, 2]);
      if (way.includes("relay")) {
        await world.start({ charter: late });
        await ada.connect();
        await bob.connect();
        bob.send(sent.message);
        await calm(world.host);
      } else if (way.includes("link")) {
        bob.pair.cut("cut");
        await bob.connect();
      } else if (way.includes("piece")) {
        const { keys } = createMemoryStore({ disk: world.disk });
        await keys.delete((await keys.list("upload/")).find((name) => name.endsWith("/0")) ?? "");
      }
      await toNext(world, ada, bob);
      if (way.includes("piece")) {
        expect(bob.last("have")).toEqual({ type: "have", contribution: sent.id, pieces: 0 });
        bob.send({ type: "piece", contribution: sent.id, index: 0, bytes: sent.message.payload });
        await calm(world.host);
      }
      expect(world.host.head().version).toBe(1);
      if (way.includes("link")) {
        bob.send(sent.message);
        await calm(world.host);
      }
      expect(world.disk.values.size).toBe(0);
      const own = await ada.contribute();
      await world.pass(2 * (trainMs + graceMs) + BUSY_RETRY_MS);
      expect([bob.verdictOn(sent.id), ada.verdictOn(own)]).toEqual(["accepted", "accepted"]);
      expect(world.host.head().version).toBe(2);
      expect(world.failures).toEqual([]);
    });
  }

  test("may have been begun before: an upload that takes longer than its round is merged with the next, one that takes two is late", async () => {
    for (const rounds of [1, 2]) {
      const { world, ada, bob, sent } = await bobsWorld();
      const { header, signature, payload } = sent.message;
      const count = 6;
      const send = async (index: number): Promise<void> => {
        const { start, end } = pieceAt(index, { bytes: payload.length, count });
        bob.send({ type: "piece", contribution: sent.id, index, bytes: payload.slice(start, end) });
        await calm(world.host);
      };
      bob.send({ type: "offer", header, signature, pieces: digestPieces(payload, count) });
      await calm(world.host);
      await send(0);
      for (let looks = 0; looks < 1_000 && world.host.view().phase !== "judging"; looks += 1) {
        await world.pass(100);
      }
      await send(1);
      await toNext(world, ada, bob);
      expect(world.host.head().version).toBe(1);
      await send(2);
      const own = await ada.contribute();
      if (rounds === 2) {
        await world.pass(trainMs + graceMs);
        expect(bob.verdictOn(sent.id)).toBe("late");
        expect(world.disk.values.size).toBe(0);
        continue;
      }
      for (const index of [3, 4, 5]) {
        await send(index);
        expect(bob.last("have")).toEqual({ type: "have", contribution: sent.id, pieces: index + 1 });
      }
      await world.pass(2 * (trainMs + graceMs) + BUSY_RETRY_MS);
      expect([bob.verdictOn(sent.id), ada.verdictOn(own)]).toEqual(["accepted", "accepted"]);
    }
  });

  test("is one contribution of each: others are refused, and whoever goes on with them is shown out", async () => {
    const { world, bob, sent } = await bobsWorld();
    await world.pass(trainMs + graceMs);
    for (const message of [sent.message, sent.message]) {
      bob.send(message);
      await calm(world.host);
    }
    const have = { type: "have", contribution: sent.id, pieces: 1 };
    expect(bob.got.slice(-2)).toEqual([have, have]);
    for (let i = 0; i < STRIKES_MAX; i += 1) {
      expect(bob.closed).toBeNull();
      bob.send((await bob.contribution(pack(honestDelta(bob.base, 0.2)), { loss: 4 + i })).message);
      await calm(world.host);
      expect(bob.last("refused")).toMatchObject({ reason: "not-assigned" });
    }
    expect(bob.closed).toMatch(/messages that cannot be right/);
    expect(world.disk.values.size).toBe(2); // what came first, offer and piece
  });

  test("is kept where its link breaks while it is made durable and it is sent again", async () => {
    const world = new World();
    const store = createMemoryStore({ disk: world.disk });
    let [gate, open]: [Promise<void>, () => void] = [Promise.resolve(), () => undefined];
    const set: Keys["set"] = (key, value) =>
      key.startsWith("upload/") ? gate.then(() => store.keys.set(key, value)) : store.keys.set(key, value);
    await world.start({ charter: late, store: { ...store, keys: { ...store.keys, set } } });
    const [ada, bob, cyd] = (await joined(world, "ada", "bob", "cyd")) as [Actor, Actor, Actor];
    const [sent, before] = [
      await bob.contribution(pack(honestDelta(bob.base, 0.2))),
      await cyd.contribution(pack(honestDelta(cyd.base, 0.3))),
    ];
    ada.send((await ada.contribution(pack(honestDelta(ada.base)))).message);
    await world.pass(trainMs + graceMs);
    gate = new Promise((resolve) => {
      open = resolve;
    });
    cyd.send(before.message); // in whose turn bob's waits
    await turns();
    bob.send(sent.message);
    await turns();
    bob.pair.cut("cut");
    const back = bob.connect();
    await turns();
    bob.send(sent.message);
    await turns();
    open();
    await back;
    expect(bob.last("refused")).toBeUndefined();
    expect(bob.got.slice(-1)).toEqual([{ type: "have", contribution: sent.id, pieces: 1 }]);
  });

  test("is made durable once, however fast it is sent", async () => {
    const { world, bob, sent } = await bobsWorld();
    await world.pass(trainMs + graceMs);
    for (let i = 0; i < 100; i += 1) {
      bob.send((await bob.contribution(pack(honestDelta(bob.base, 0.2)), { loss: 4 + i })).message);
    }
    bob.send(sent.message);
    await calm(world.host);
    expect([world.disk.values.size, bob.closed !== null]).toEqual([2, true]);
  });

  test("weighs its share of the tokens in the merge, to the last bit, whichever came first", async () => {
    const digests = new Set<string>();
    for (const first of ["late", "present"]) {
      const { world, ada, bob, sent } = await bobsWorld();
      await world.pass(trainMs + graceMs);
      await toNext(world, ada, bob);
      const before = ada.base;
      const present = await ada.contribution(pack(honestDelta(before, 0.25)));
      for (const [actor, message] of first === "late"
        ? ([
            [bob, sent],
            [ada, present],
          ] as const)
        : ([
            [ada, present],
            [bob, sent],
          ] as const)) {
        actor.send(message.message);
        await calm(world.host);
      }
      await world.pass(2 * (trainMs + graceMs));
      expect([bob.verdictOn(sent.id), ada.verdictOn(present.id)]).toEqual(["accepted", "accepted"]);
      const updates = [
        { id: sent.id, weight: 250, update: unpacked(sent.message.payload) },
        { id: present.id, weight: 1_000, update: unpacked(present.message.payload) },
      ];
      const settings = outerAt(late, 2);
      const merged = mergeUpdates(updates, { parameters: P, ...settings });
      const { update } = outerStep(createServerState(P), merged, settings, late.downlink);
      expect(digestOf(floatBytes(applyUpdate(before, update)))).toBe(world.host.head().digest);
      digests.add(world.host.head().digest);
    }
    expect(digests.size).toBe(1);
  });

  test("waits as long as the run is paused", async () => {
    const { world, ada, bob, sent } = await bobsWorld();
    await world.host.operate({ type: "pause" });
    await world.pass(trainMs + graceMs);
    bob.send(sent.message);
    await world.pass(2 * UPLOAD_IDLE_MS);
    expect([bob.verdictOn(sent.id), world.disk.values.size]).toEqual([undefined, 2]);
    await world.host.operate({ type: "resume" });
    await toNext(world, ada, bob);
    await ada.contribute();
    await world.pass(2 * (trainMs + graceMs));
    expect([bob.verdictOn(sent.id), world.disk.values.size]).toEqual(["accepted", 0]);
  });
});

test("weightIn() is the tokens in its own round, and a share of them in the next", () => {
  const header = { round: 3, tokens: 1_000 } as Parameters<typeof weightIn>[1];
  expect([weightIn(3, header, late), weightIn(4, header, late)]).toEqual([1_000, 250]);
});

function unpacked(payload: Bytes) {
  const read = unpackUpdate(payload, { parameters: P, keepMax: 4096 });
  if (!read.ok) {
    throw new Error(read.detail);
  }
  return read.value;
}
