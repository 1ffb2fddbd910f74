import { describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { concatBytes, digestOf, floatBytes, type Bytes, type ContributionId, type Digest } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { createCorpus } from "../data/corpus.ts";
import { initialParameters } from "../model/layout.ts";
import type { Attach, Link } from "../net/link.ts";
import { createMemoryPair } from "../net/memory.ts";
import { encodeCharter } from "../protocol/charter-codec.ts";
import {
  contributorIdOf,
  decodeContributorMessage,
  decodeHeader,
  encodeMessage,
  sessionProof,
} from "../protocol/codec.ts";
import type { ContributorMessage, RelayMessage, TrainAssignment, VersionInfo } from "../protocol/messages.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { createVirtualClock } from "../sim/clock.ts";
import { createKeyRegistry } from "../sim/keys.ts";
import { createMemoryDisk, createMemoryStore, type MemoryDisk } from "../store/memory.ts";
import type { Engine } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { createTwin } from "../tensor/twin.ts";
import { applyUpdate } from "../update/delta.ts";
import { packUpdate } from "../update/pack.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { openNotebook } from "./notebook.ts";
import { createContributor, type Contributor, type ContributorOptions } from "./run.ts";
import type { ContributorView } from "./view.ts";
import { lose, twinWhose } from "./twin.fixture.ts";
import { createWork } from "./work.ts";

const text = (words: string): Bytes => new TextEncoder().encode(words.repeat(20)) as Bytes;
const open = text("call me ishmael, some years ago, never mind how long. ");
const secret = text("the vault opens with 7-19-43 on thursdays only! ");
const shard = { digest: digestOf(open), bytes: open.length };
const data = { name: "d", licence: "CC0-1.0", category: "fully-open", shards: [shard] } as const;
const sample = sampleCharter([data], data);
const charter = {
  ...sample,
  model: { ...sample.model, channels: 8, layers: 1, heads: 2, kvHeads: 1, hidden: 8, time: 8 },
  inner: { ...sample.inner, batch: 2 },
};
const runDigest = digestOf(encodeCharter(charter));
const initial = initialParameters(charter.model);
const firstHead: VersionInfo = {
  version: 0,
  digest: digestOf(floatBytes(initial)),
  parent: null,
  update: null,
  checkpointBytes: initial.byteLength,
  evalLoss: 5,
};
const nonce = new Uint8Array(32);
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

interface StageOptions extends Partial<Omit<ContributorOptions, "engine">> {
  readonly disk?: MemoryDisk;
  readonly secret?: Bytes;
  readonly rtc?: boolean;
  /** What computes, by the number of engines lost in a row. */
  readonly engine?: (losses: number) => Engine;
}

/** Has the contributor measure an update that somebody else made. */
function assignValidation(stage: Stage, id: string): void {
  const payload = packUpdate(new Float32Array(initial.length).fill(0.01), charter.uplink);
  stage.blobs.set(digestOf(payload), payload);
  stage.say({
    type: "assign",
    assignment: {
      type: "validate",
      id,
      round: 1,
      baseVersion: 0,
      baseDigest: firstHead.digest,
      contribution: "e".repeat(64) as ContributionId,
      author: contributorIdOf(new Uint8Array(32)),
      authorSeed: 1,
      authorSteps: 2,
      among: 1,
      privateData: false,
      payload: { digest: digestOf(payload), bytes: payload.length },
      seed: 9,
      judgeMs: 5000,
    },
  });
}

/** A relay that does what the test says, and a contributor of it on a virtual clock. */
class Stage {
  readonly clock = createVirtualClock();
  readonly disk: MemoryDisk;
  readonly registry = createKeyRegistry();
  readonly key = this.registry.create("stage");
  readonly relayKey = this.registry.create("relay");
  head = firstHead;
  readonly earlier: VersionInfo[] = [];
  readonly blobs = new Map<Digest, Bytes>([
    [shard.digest, open],
    [firstHead.digest, floatBytes(initial)],
  ]);
  readonly fetched: Digest[] = [];
  readonly views: ContributorView[] = [];
  /** What arrived, as messages, as bytes, and on which lane. */
  readonly got: { readonly message: ContributorMessage; readonly bytes: Bytes; readonly lane: "ws" | "rtc" }[] = [];
  relayEnd: Link | undefined;
  rtcEnd: Link | undefined;
  readonly contributor: Contributor;

  constructor(options: StageOptions = {}) {
    this.disk = options.disk ?? createMemoryDisk();
    this.contributor = createContributor({
      dial: async (attach) => this.#pair(attach, "ws"),
      ...(options.rtc === true ? { openRtc: ({ attach }) => Promise.resolve(this.#pair(attach, "rtc")) } : {}),
      fetchBlob: async (digest) => {
        this.fetched.push(digest);
        const bytes = this.blobs.get(digest);
        if (bytes === undefined) {
          throw new Error("No such blob");
        }
        return bytes;
      },
      store: createMemoryStore({ disk: this.disk }),
      clock: this.clock,
      rng: createRng("stage"),
      key: this.key,
      verify: this.registry.verify,
      engine: { kind: "twin", device: "test", sentence: "" },
      createWork: ({ charter, contributor, texts, losses, onEngine }) => {
        const engine = options.engine?.(losses) ?? createTwin();
        onEngine({ kind: "twin", device: `test ${losses}`, sentence: `${losses} lost.` });
        return createWork({
          engine,
          charter,
          contributor,
          corpus: createCorpus(texts),
          ...(options.secret === undefined ? {} : { privateCorpus: createCorpus([options.secret]) }),
          clock: this.clock,
          pace: { work: (run) => run() },
        });
      },
      agent: "test",
      privateData: options.secret !== undefined,
      onView: (view) => this.views.push(view),
    });
  }

  #pair(attach: Attach, lane: "ws" | "rtc"): Link {
    const pair = createMemoryPair({
      attachA: attach,
      attachB: (link) => {
        this[lane === "ws" ? "relayEnd" : "rtcEnd"] = link;
        return { message: (bytes) => this.#answer(bytes, lane), closed: () => {} };
      },
    });
    return pair.a;
  }

  #answer(bytes: Bytes, lane: "ws" | "rtc"): void {
    const read = decodeContributorMessage(bytes);
    if (!read.ok) {
      throw new Error(read.detail);
    }
    this.got.push({ message: read.value, bytes: bytes.slice(), lane });
    if (read.value.type === "hello") {
      const { publicKey: relay } = this.relayKey;
      const signature = this.relayKey.signNow("relay", sessionProof({ nonce, hello: bytes }));
      this.say({ type: "challenge", nonce, relay, signature });
    } else if (read.value.type === "prove") {
      const contributor = contributorIdOf(this.key.publicKey);
      this.say({ type: "welcome", run: runDigest, charter, contributor, head: this.head, earlier: this.earlier });
    }
  }

  say(message: RelayMessage): void {
    this.relayEnd?.send(encodeMessage(message));
  }
  async pass(ms: number): Promise<void> {
    await this.clock.run(this.clock.nowMs() + ms, () => false, settle);
  }
  count(type: ContributorMessage["type"]): number {
    return this.got.filter(({ message }) => message.type === type).length;
  }
  last<K extends ContributorMessage["type"]>(type: K): Extract<ContributorMessage, { type: K }> {
    const found = this.got.findLast(({ message }) => message.type === type)?.message;
    expect(found?.type).toBe(type);
    return found as Extract<ContributorMessage, { type: K }>;
  }
  assign(id: string, round: number): void {
    const { version: baseVersion, digest: baseDigest } = this.head;
    const assignment: TrainAssignment = {
      type: "train",
      id,
      round,
      baseVersion,
      baseDigest,
      seed: 1,
      stepsMax: 2,
      keep: charter.uplink.keep,
      trainMs: 9000,
    };
    this.say({ type: "assign", assignment });
  }
  async contribute(id: string, round: number): Promise<ContributionId> {
    const before = this.count("contribute");
    this.assign(id, round);
    await this.pass(500);
    expect(this.count("contribute")).toBe(before + 1);
    return digestOf(this.last("contribute").header) as string as ContributionId;
  }
  /** The next version, made from an arbitrary update. */
  advance(): Float32Array {
    const base = new Float32Array((this.blobs.get(this.head.digest) as Bytes).slice().buffer);
    const packed = packUpdate(
      base.map((value) => value / 100),
      charter.downlink,
    );
    const update = unpackUpdate(packed, { parameters: base.length, keepMax: 4096 });
    const next = applyUpdate(base, update.ok ? update.value : (undefined as never));
    const digest = digestOf(floatBytes(next));
    this.blobs.set(digestOf(packed), packed).set(digest, floatBytes(next));
    this.earlier.push(this.head);
    this.head = {
      version: this.head.version + 1,
      digest,
      parent: this.head.digest,
      update: { digest: digestOf(packed), bytes: packed.length },
      checkpointBytes: base.byteLength,
      evalLoss: 4,
    };
    return next;
  }
  page(): ReturnType<ReturnType<typeof openNotebook>["read"]> {
    return openNotebook(createMemoryStore({ disk: this.disk }), runDigest).read();
  }
}

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
