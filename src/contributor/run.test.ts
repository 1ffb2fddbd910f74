import { describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { concatBytes, digestOf, type ContributionId, type Digest } from "../base/bytes.ts";
import { decodeHeader } from "../protocol/codec.ts";
import type { Program } from "../tensor/program.ts";
import { createTwin } from "../tensor/twin.ts";
import { packUpdate } from "../update/pack.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { lose, twinWhose } from "./twin.fixture.ts";
import { secret, charter, initial, settle, assignValidation, Stage } from "../sim/stage.fixture.ts";

function runOut(): never {
  throw new HeddleError("model-too-big", "The GPU ran out of memory while running a step");
}

/** Of a round's time; less than half. */
const LATE_MS = charter.round.trainMs / 2 - 1;

describe("createContributor()", () => {
  test("greets, proves its key, fetches data and base, and is ready", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    expect(stage.got.map(({ message }) => message.type)).toEqual(["hello", "prove", "ready"]);
    expect(stage.contributor.view()).toMatchObject({ status: "waiting", version: 0, lane: "memory" });
    expect(stage.contributor.parameters()).toEqual(initial);
  });

  test("contributes what packs its residual, and settles it only when that is accepted", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    const first = await stage.contribute("t1", 1);
    const fed = await stage.page();
    stage.say({ type: "verdict", contribution: first, verdict: { type: "refused", reason: "late" } });
    await stage.pass(100);
    expect((await stage.page()).residual).toEqual(fed.residual);
    expect((await stage.page()).signed).toBeNull();

    const second = await stage.contribute("t2", 2);
    const { residual: before } = await stage.page();
    const payload = stage.last("contribute").payload;
    stage.say({ type: "verdict", contribution: second, verdict: { type: "accepted" } });
    await stage.pass(100);
    const sent = unpackUpdate(payload, { parameters: initial.length, keepMax: 4096 });
    const left = before?.map((value, i) => {
      const at = sent.ok ? sent.value.indices.indexOf(i) : -1;
      return at < 0 || !sent.ok ? value : value - (sent.value.values[at] as number);
    });
    expect((await stage.page()).residual).toEqual(left);
    expect(stage.contributor.view()).toMatchObject({ accepted: 1, refused: 1 });
  });

  test("a process that is started again on the same disk sends the unanswered contribution again", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    const id = await stage.contribute("t1", 1);
    const again = new Stage({ disk: stage.disk });
    again.contributor.start();
    await again.pass(500);
    expect(digestOf(again.last("contribute").header)).toBe(id);
    expect(again.last("contribute")).toEqual(stage.last("contribute"));
    again.say({ type: "verdict", contribution: id, verdict: { type: "accepted" } });
    await again.pass(100);
    expect(again.contributor.view().accepted).toBe(1);
    expect((await again.page()).moments?.t).toBe(2);
  });

  test("follows the base by its packed updates, and by the checkpoint where those do not fit", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    const next = stage.advance();
    stage.say({ type: "version", head: stage.head });
    await stage.pass(100);
    expect(stage.contributor.parameters()).toEqual(next);
    expect(stage.fetched.at(-1)).toBe(stage.head.update?.digest);
    expect(stage.last("ready").version).toBe(1);

    const after = stage.advance();
    stage.blobs.set(
      stage.head.update?.digest as Digest,
      packUpdate(new Float32Array(initial.length).fill(1), charter.downlink),
    );
    stage.say({ type: "version", head: stage.head });
    await stage.pass(100);
    expect(stage.contributor.parameters()).toEqual(after);
    expect(stage.fetched.at(-1)).toBe(stage.head.digest);
  });

  test("asks again for the updates while the relay is away, and for no checkpoint", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    stage.fetched.length = 0;
    stage.unreachable = true;
    const next = stage.advance();
    stage.say({ type: "version", head: stage.head });
    await stage.pass(2_500);
    expect(stage.contributor.view()).toMatchObject({
      version: 0,
      sentence: expect.stringContaining("does not answer"),
    });
    stage.unreachable = false;
    await stage.pass(1_500);
    expect(stage.contributor.parameters()).toEqual(next);
    expect(stage.fetched.length).toBe(4);
    expect(new Set(stage.fetched)).toEqual(new Set([stage.head.update?.digest]));
  });

  test.each([
    ["by the updates that it missed", true],
    ["by the checkpoint where it does not know them", false],
  ])("goes on after a restart from the base that it held, %s", async (_, known) => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    await stage.contributor.stop();
    const again = new Stage({ disk: stage.disk });
    const newest = [again.advance(), again.advance(), again.advance()].at(-1);
    const updates = [...again.earlier.slice(1), again.head].map(({ update }) => update?.digest);
    again.earlier.splice(0, known ? 0 : 2);
    again.contributor.start();
    await again.pass(500);
    expect(again.fetched).toEqual(known ? updates : [again.head.digest]);
    expect(again.contributor.parameters()).toEqual(newest);
    expect((await again.page()).base).toEqual({ digest: again.head.digest, params: newest });
    const blobs = again.disk.blobs.size;
    again.advance();
    again.say({ type: "version", head: again.head });
    await again.pass(500);
    expect(again.disk.blobs.size).toBe(blobs);
  });

  test("checks another's update and signs what it measured", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    assignValidation(stage, "v1");
    await stage.pass(500);
    expect(stage.count("report")).toBe(1);
    expect(stage.contributor.view().validated).toBe(1);
    expect(stage.last("ready").version).toBe(0);
  });

  test("gives a measurement back that does not fit beside training, trains on, and measures when it fits", async () => {
    const twin = createTwin();
    let refusals = 0;
    const compile = async (program: Program) => {
      if (program.name === "loss" && refusals === 0) {
        refusals += 1;
        throw new HeddleError("model-too-big", "The GPU has no room");
      }
      return twin.compile(program);
    };
    const stage = new Stage({ engine: () => ({ ...twin, compile }) });
    stage.contributor.start();
    await stage.pass(500);
    assignValidation(stage, "v1");
    await stage.pass(500);
    expect([refusals, stage.last("release").assignment, stage.count("report")]).toEqual([1, "v1", 0]);
    await stage.pass(3_000);
    await stage.contribute("t1", 1);
    assignValidation(stage, "v2");
    await stage.pass(500);
    expect(stage.count("report")).toBe(1);
  });

  test.each([
    [
      "a norm that is not a number",
      () => ({ loss: Float32Array.of(5), norm: Float32Array.of(Number.NaN) }),
      /norm.*NaN.*step 2/,
    ],
    [
      "an infinite loss",
      () => ({ loss: Float32Array.of(Infinity), norm: Float32Array.of(1) }),
      /loss.*Infinity.*step 2/,
    ],
    ["a lost device", lose, /GPU went away/],
    ["a device that has no memory any more", runOut, /GPU ran out of memory/],
  ])(
    "%s ends the round's work, keeps residual and notebook, and a new engine begins at the base",
    async (_name, fail, words) => {
      const seen: number[] = [];
      // The first contribution takes two steps; the second fails in its second step.
      const broken = twinWhose((step, values) => (step === 4 ? fail() : values));
      const stage = new Stage({
        engine: (losses) => {
          seen.push(losses);
          return losses === 0 ? broken : createTwin();
        },
      });
      stage.contributor.start();
      await stage.pass(500);
      const first = await stage.contribute("t1", 1);
      stage.say({ type: "verdict", contribution: first, verdict: { type: "refused", reason: "late" } });
      await stage.pass(100);
      const before = await stage.page();
      stage.assign("t2", 2);
      await stage.pass(500);
      expect(stage.last("release").assignment).toBe("t2");
      expect(stage.contributor.view()).toMatchObject({ status: "fetching", sentence: expect.stringMatching(words) });
      await stage.pass(3_000);
      expect(seen).toEqual([0, 1]);
      expect(stage.contributor.view()).toMatchObject({
        status: "waiting",
        device: "test 1",
        engineSentence: "1 lost.",
      });
      expect(await stage.page()).toEqual(before);
      expect(stage.contributor.parameters()).toEqual(initial);
      await stage.contribute("t3", 3);
      const { residual, moments } = await stage.page();
      expect(moments?.t).toBe(4);
      expect(residual?.every((value) => Number.isFinite(value))).toBe(true);
    },
  );

  test("a failure that comes back every time is told to the person", async () => {
    const stage = new Stage({
      engine: () => twinWhose(() => ({ loss: Float32Array.of(NaN), norm: Float32Array.of(1) })),
    });
    stage.contributor.start();
    for (let i = 0; i < 4; i += 1) {
      await stage.pass(3_000);
      stage.assign(`t${i}`, i);
      await stage.pass(500);
    }
    expect(stage.contributor.view()).toMatchObject({ status: "failed", sentence: expect.stringMatching(/NaN/) });
    expect(stage.contributor.failure()?.code).toBe("device-wrong");
    expect(stage.count("contribute")).toBe(0);
  });

  test("private texts are in nothing that is sent and nothing that is stored", async () => {
    const stage = new Stage({ secret });
    stage.contributor.start();
    await stage.pass(500);
    const id = await stage.contribute("t1", 1);
    stage.say({ type: "verdict", contribution: id, verdict: { type: "accepted" } });
    await stage.contribute("t2", 2);
    expect(decodeHeader(stage.last("contribute").header)).toMatchObject({ value: { privateData: true, loss: 0 } });
    expect(stage.contributor.view().contributions[0]?.loss).toBeGreaterThan(0); // shown here alone
    await stage.contributor.stop();
    const written = [...stage.disk.values.values(), ...stage.disk.blobs.values(), ...stage.disk.entries];
    const views = new TextEncoder().encode(JSON.stringify(stage.views));
    const all = Buffer.from(concatBytes([...stage.got.map(({ bytes }) => bytes), ...written, views]));
    expect(all.includes(Buffer.from("call me ishmael"))).toBe(true); // open texts may be stored: the search works
    for (let at = 0; at < 48; at += 1) {
      expect(all.includes(Buffer.from(secret.subarray(at, at + 6)))).toBe(false);
    }
  });

  test("sends updates by WebRTC while it is open, the same update again by the dialled link when it breaks", async () => {
    const stage = new Stage({ rtc: true });
    stage.contributor.start();
    await stage.pass(500);
    expect(stage.contributor.view().lane).toBe("rtc");
    await stage.contribute("t1", 1);
    expect(stage.got.findLast(({ message }) => message.type === "contribute")?.lane).toBe("rtc");
    stage.rtcEnd?.close("The data channel has failed");
    await stage.pass(500);
    expect(stage.contributor.view()).toMatchObject({ lane: "memory", laneReason: "The data channel has failed" });
    expect(stage.got.filter(({ message }) => message.type === "contribute").map(({ lane }) => lane)).toEqual([
      "rtc",
      "ws",
    ]);
  });

  test("shows its view at most twice a second, and the last one always", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(1000);
    await stage.contribute("t1", 1);
    await stage.pass(1000);
    expect(stage.views.length).toBeLessThanOrEqual(2.5 * 2 + 1);
    expect(stage.views.at(-1)).toMatchObject({ status: stage.contributor.view().status, step: 2 });
  });

  test("finish() ends training as its deadline would, and waits until the relay has what was made", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    stage.assign("t1", 1, 1_000_000, LATE_MS);
    await settle();
    expect(stage.contributor.view()).toMatchObject({ status: "training" });
    let finished = false;
    const finishing = stage.contributor.finish(5_000).then(() => (finished = true));
    await stage.pass(500);
    const { header } = stage.last("contribute");
    expect(decodeHeader(header)).toMatchObject({ value: { assignment: "t1", steps: 1 } });
    expect(finished).toBe(false);
    stage.say({ type: "have", contribution: digestOf(header) as string as ContributionId, pieces: 1 });
    await stage.pass(10);
    await finishing;
    await stage.contributor.stop();
    expect((await stage.page()).signed).not.toBeNull();
  });

  test("finish() leaves a round in its first half, where it could still come back", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    stage.assign("t1", 1, 1_000_000);
    await settle();
    await stage.contributor.finish(5_000);
    void stage.contributor.stop();
    await stage.pass(100);
    expect(stage.count("contribute")).toBe(0);
    expect(stage.last("leave")).toEqual({ type: "leave" });
  });

  test("finish() waits, each time that it is called, for what was made before and is on its way", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    const contribution = await stage.contribute("t1", 1);
    let finished = 0;
    const finishing = [1, 2].map(() => stage.contributor.finish(5_000).then(() => (finished += 1)));
    await stage.pass(500);
    expect(finished).toBe(0);
    stage.say({ type: "have", contribution, pieces: 1 });
    await stage.pass(10);
    expect(finished).toBe(2);
    await Promise.all(finishing);
  });

  test("finish() waits for no relay that is away or silent, and for nothing where nothing is trained", async () => {
    const stage = new Stage();
    await stage.contributor.finish(5_000);
    stage.contributor.start();
    await stage.pass(500);
    await stage.contributor.finish(5_000);
    for (const [round, way] of ["away", "silent"].entries()) {
      stage.assign(`t${round}`, round, 1_000_000, LATE_MS);
      await settle();
      const beganMs = stage.clock.nowMs();
      let tookMs = -1;
      void stage.contributor.finish(5_000).then(() => (tookMs = stage.clock.nowMs() - beganMs));
      if (way === "away") {
        stage.relayEnd?.close("gone");
      }
      await stage.pass(6_000);
      expect(tookMs, way).toBe(way === "away" ? 0 : 5_000);
      expect((await stage.page()).signed?.pending.round).toBe(round);
      stage.say({
        type: "verdict",
        contribution: (await stage.page()).signed?.pending.id as ContributionId,
        verdict: { type: "accepted" },
      });
      await stage.pass(100);
    }
  });

  test("a device that has stopped fetches no checkpoint in place of what it was fetching", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    const count = stage.fetched.length;
    let stopped: Promise<void> | undefined;
    stage.blobs.get = () => {
      stopped ??= stage.contributor.stop(); // while the update is fetched, which then fails; the checkpoint would follow
      return undefined;
    };
    stage.say({
      type: "version",
      head: {
        ...stage.head,
        version: 1,
        digest: digestOf(new Uint8Array(1)),
        parent: stage.head.digest,
        update: { digest: digestOf(new Uint8Array(2)), bytes: 9 },
      },
    });
    await stage.pass(100);
    await stopped;
    expect(stage.fetched.length).toBe(count + 1);
  });

  test("stop() waits for nothing that is being fetched, and what is fetched after it comes", async () => {
    const stage = new Stage();
    stage.silent = true;
    stage.contributor.start();
    await stage.pass(500);
    expect(stage.fetched).toHaveLength(2);
    await stage.contributor.stop();
    stage.silent = false;
    stage.contributor.start();
    await stage.pass(500);
    expect(stage.contributor.view().status).toBe("waiting");
  });

  test("stop() resolves when nothing runs any more, and start() begins anew", async () => {
    const stage = new Stage();
    stage.contributor.start();
    await stage.pass(500);
    stage.assign("t1", 1);
    await settle();
    const stopped = stage.contributor.stop();
    await stage.pass(100); // the step at hand ends
    await stopped;
    expect(stage.contributor.view().status).toBe("stopped");
    stage.contributor.start();
    await stage.pass(500);
    expect(stage.contributor.view().status).toBe("waiting");
  });
});
