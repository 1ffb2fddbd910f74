/** A relay that does what a test says, and a contributor of it: the session runner over the twin, memory links and a virtual clock. */
import { expect } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { digestOf, floatBytes, type Bytes, type ContributionId, type Digest } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { createCorpus } from "../data/corpus.ts";
import { initialParameters } from "../model/layout.ts";
import type { Attach, Link } from "../net/link.ts";
import { createMemoryPair } from "../net/memory.ts";
import { encodeCharter } from "../protocol/charter-codec.ts";
import { contributorIdOf, decodeContributorMessage, encodeMessage, sessionProof } from "../protocol/codec.ts";
import type { ContributorMessage, RelayMessage, TrainAssignment, VersionInfo } from "../protocol/messages.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { createVirtualClock } from "./clock.ts";
import { createKeyRegistry } from "./keys.ts";
import { createMemoryDisk, createMemoryStore, type MemoryDisk } from "../store/memory.ts";
import type { Engine } from "../tensor/engine.ts";
import { createTwin } from "../tensor/twin.ts";
import { applyUpdate } from "../update/delta.ts";
import { packUpdate } from "../update/pack.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { openNotebook } from "../contributor/notebook.ts";
import { createContributor, type Contributor, type ContributorOptions } from "../contributor/run.ts";
import type { ContributorView } from "../contributor/view.ts";
import { createWork } from "../contributor/work.ts";

const text = (words: string): Bytes => new TextEncoder().encode(words.repeat(20)) as Bytes;
const open = text("call me ishmael, some years ago, never mind how long. ");
export const secret = text("the vault opens with 7-19-43 on thursdays only! ");
const shard = { digest: digestOf(open), bytes: open.length };
const data = { name: "d", licence: "CC0-1.0", category: "fully-open", shards: [shard] } as const;
const sample = sampleCharter([data], data);
export const charter = {
  ...sample,
  model: { ...sample.model, channels: 8, layers: 1, heads: 2, kvHeads: 1, hidden: 8, time: 8 },
  inner: { ...sample.inner, batch: 2 },
};
const runDigest = digestOf(encodeCharter(charter));
export const initial = initialParameters(charter.model);
const firstHead: VersionInfo = {
  version: 0,
  digest: digestOf(floatBytes(initial)),
  parent: null,
  update: null,
  checkpointBytes: initial.byteLength,
  evalLoss: 5,
};
const nonce = new Uint8Array(32);
export const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

interface StageOptions extends Partial<Omit<ContributorOptions, "engine">> {
  readonly disk?: MemoryDisk;
  readonly secret?: Bytes;
  readonly rtc?: boolean;
  /** What computes, by the number of engines lost in a row. */
  readonly engine?: (losses: number) => Engine;
}

/** Has the contributor measure an update that somebody else made. */
export function assignValidation(stage: Stage, id: string): void {
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
export class Stage {
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
  /** No blob can be fetched meanwhile. */
  unreachable = false;
  /** What is fetched does not come. */
  silent = false;
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
      fetchBlob: async (digest, _bytesMax, { signal } = {}) => {
        this.fetched.push(digest);
        if (this.silent) {
          await new Promise<void>((resolve) => signal?.onAbort(resolve));
        }
        if (this.unreachable) {
          throw new HeddleError("unreachable", "The relay does not answer");
        }
        const bytes = this.blobs.get(digest);
        if (bytes === undefined) {
          throw new HeddleError("absent", "No such blob");
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
  assign(id: string, round: number, stepsMax = 2, trainMs = 9000): void {
    const { version: baseVersion, digest: baseDigest } = this.head;
    const assignment: TrainAssignment = {
      type: "train",
      id,
      round,
      baseVersion,
      baseDigest,
      seed: 1,
      stepsMax,
      keep: charter.uplink.keep,
      trainMs,
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
