/**
 * The host over memory links and a memory store, in virtual time. Participants are scripts; the model is sixteen numbers
 * that should become a target, so that loss tells good updates from bad ones in microseconds.
 */
import { describe, expect, test } from "vitest";
import {
  concatBytes,
  digestOf,
  floatBytes,
  fromHex,
  type Bytes,
  type ContributionId,
  type Digest,
} from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { createRng } from "../base/rng.ts";
import type { Attach, Link } from "../net/link.ts";
import { createMemoryPair, type MemoryPair } from "../net/memory.ts";
import { verifyChain } from "../protocol/chain.ts";
import type { Charter } from "../protocol/charter.ts";
import {
  contributionIdOf,
  contributorIdOf,
  decodeRelayMessage,
  encodeHeader,
  encodeMessage,
  encodeReport,
  sessionProof,
} from "../protocol/codec.ts";
import { exampleCharter } from "../protocol/examples.ts";
import type { DeviceKey, VerifySignature } from "../protocol/keys.ts";
import { PROTOCOL_VERSION } from "../protocol/limits.ts";
import type {
  ContributionHeader,
  ContributorMessage,
  Losses,
  RelayMessage,
  TrainAssignment,
  ValidateAssignment,
} from "../protocol/messages.ts";
import { createMemoryDisk, createMemoryStore, type MemoryDisk } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { applyUpdate } from "../update/delta.ts";
import { packUpdate } from "../update/pack.ts";
import { unpackUpdate, type SparseUpdate } from "../update/unpack.ts";
import { createCoordinatorHost, type CoordinatorHost, type CoordinatorOptions } from "./host.ts";
import { BUSY_RETRY_MS, HANDSHAKE_MS, STRIKES_MAX } from "./peer.ts";

const P = 16;
const exact = { keep: 4096, bits: 64, beta: 1 } as const;
const charter: Charter = {
  ...exampleCharter,
  uplink: exact,
  downlink: exact,
  trust: { ...exampleCharter.trust, auditShare: 0 },
};
const target = Float32Array.from({ length: P }, (_, i) => 1 + i / P);
const initial = new Float32Array(P);

function lossOf(params: Float32Array): number {
  return params.reduce((sum, value, i) => sum + (value - (target[i] as number)) ** 2, 0.1);
}

const referee = {
  evaluate: async (params: Float32Array) => lossOf(params),
  measure: async (base: Float32Array, update: SparseUpdate): Promise<Losses> => measure(base, update),
};

function measure(base: Float32Array, update: SparseUpdate): Losses {
  const [before, after] = [lossOf(base), lossOf(applyUpdate(base, update))];
  return { assignedBefore: before, assignedAfter: after, randomBefore: before, randomAfter: after };
}

/** Step towards the target, as a delta: base − trained. */
function honestDelta(base: Float32Array, share = 0.25): Float64Array {
  return Float64Array.from(base, (value, i) => share * (value - (target[i] as number)));
}

const pack = (delta: Float64Array): Bytes => packUpdate(delta, exact);

/** A keyed hash, which everyone who has the secret table can check. */
const secrets = new Map<string, Bytes>();
function keyOf(name: string): DeviceKey {
  const secret = fromHex(digestOf(new TextEncoder().encode(name)));
  const publicKey = fromHex(digestOf(secret));
  secrets.set(digestOf(publicKey), secret);
  return { publicKey, sign: async (purpose, message) => mac(secret, purpose, message) };
}
const mac = (secret: Uint8Array, purpose: string, message: Uint8Array): Bytes =>
  fromHex(digestOf(concatBytes([secret, new TextEncoder().encode(purpose), message])));
const verify: VerifySignature = async (publicKey, purpose, message, signature) => {
  const secret = secrets.get(digestOf(publicKey));
  return secret !== undefined && digestOf(mac(secret, purpose, message)) === digestOf(signature);
};
const relayKey = keyOf("relay");

class TestClock implements Clock {
  now = 0;
  readonly #wakes = new Set<{ readonly timeMs: number; readonly wake: () => void }>();
  nowMs(): number {
    return this.now;
  }
  after(delayMs: number, wake: () => void): () => void {
    const entry = { timeMs: this.now + delayMs, wake };
    this.#wakes.add(entry);
    return () => this.#wakes.delete(entry);
  }
  /** The next wake-up up to `untilMs`, or none. */
  step(untilMs: number): boolean {
    const next = [...this.#wakes].sort((a, b) => a.timeMs - b.timeMs)[0];
    if (next === undefined || next.timeMs > untilMs) {
      this.now = untilMs;
      return false;
    }
    this.#wakes.delete(next);
    this.now = Math.max(this.now, next.timeMs);
    next.wake();
    return true;
  }
}

/** Lets everything that is pending happen: links, queue, store. */
async function calm(host?: CoordinatorHost): Promise<void> {
  for (let i = 0; i < 4; i += 1) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    await host?.settled();
  }
}

class World {
  readonly clock = new TestClock();
  readonly disk: MemoryDisk;
  readonly logged: string[] = [];
  host!: CoordinatorHost;

  constructor(disk = createMemoryDisk()) {
    this.disk = disk;
  }

  async start(change: Partial<CoordinatorOptions> = {}): Promise<void> {
    this.host = await createCoordinatorHost({
      store: createMemoryStore({ disk: this.disk }),
      charter,
      initial,
      clock: this.clock,
      rng: createRng("host.test"),
      key: relayKey,
      verify,
      referee,
      log: (sentence) => this.logged.push(sentence),
      ...change,
    });
  }

  async pass(ms: number): Promise<void> {
    const untilMs = this.clock.now + ms;
    await calm(this.host);
    while (this.clock.step(untilMs)) {
      await calm(this.host);
    }
    await calm(this.host);
  }
}

/** A scripted participant. */
class Actor {
  readonly name: string;
  readonly key: DeviceKey;
  readonly world: World;
  readonly got: RelayMessage[] = [];
  pair!: MemoryPair;
  closed: string | null = null;

  constructor(world: World, name: string) {
    this.world = world;
    this.name = name;
    this.key = keyOf(name);
  }

  get id() {
    return contributorIdOf(this.key.publicKey);
  }

  /** Dials and shakes hands; `forge` replaces the proof. */
  async connect(forge?: Bytes): Promise<void> {
    this.closed = null;
    const hello = encodeMessage({
      type: "hello",
      protocol: PROTOCOL_VERSION,
      publicKey: this.key.publicKey,
      agent: this.name,
      engine: "twin",
      device: "test",
      privateData: false,
    });
    const attachA: Attach = () => ({
      message: (bytes) => {
        const decoded = decodeRelayMessage(bytes);
        expect(decoded.ok).toBe(true);
        if (decoded.ok) {
          this.got.push(decoded.value);
          if (decoded.value.type === "challenge") {
            const proof = sessionProof({ nonce: decoded.value.nonce, hello });
            void this.key
              .sign("session", proof)
              .then((signature) => this.send({ type: "prove", signature: forge ?? signature }));
          } else if (decoded.value.type === "ping") {
            this.send({ type: "pong" });
          }
        }
      },
      closed: (reason) => {
        this.closed = reason;
      },
    });
    this.pair = createMemoryPair({ attachA, attachB: this.world.host.attach });
    this.pair.a.send(hello);
    await calm(this.world.host);
  }

  send(message: ContributorMessage): void {
    this.pair.a.send(encodeMessage(message));
  }

  last<K extends RelayMessage["type"]>(type: K): Extract<RelayMessage, { readonly type: K }> | undefined {
    return this.got.findLast((one): one is Extract<RelayMessage, { readonly type: K }> => one.type === type);
  }

  get base(): Float32Array<ArrayBuffer> {
    const bytes = this.world.disk.blobs.get(this.world.host.head().digest) as Bytes;
    return new Float32Array(bytes.slice().buffer);
  }

  train(): TrainAssignment {
    const given = this.got.findLast((one) => one.type === "assign" && one.assignment.type === "train");
    return (given as { readonly assignment: TrainAssignment }).assignment;
  }

  async ready(): Promise<void> {
    this.send({ type: "ready", version: this.world.host.head().version });
    await calm(this.world.host);
  }

  async contribution(
    payload: Bytes,
    change: Partial<ContributionHeader> = {},
  ): Promise<{
    readonly id: ContributionId;
    readonly message: Extract<ContributorMessage, { readonly type: "contribute" }>;
  }> {
    const { id, round, baseVersion, baseDigest } = this.train();
    const header = encodeHeader({
      run: this.world.host.view().run,
      contributor: this.id,
      assignment: id,
      round,
      baseVersion,
      baseDigest,
      steps: 10,
      tokens: 1_000,
      loss: 3,
      privateData: false,
      payload: { digest: digestOf(payload), bytes: payload.length },
      ...change,
    });
    const signature = await this.key.sign("contribution", header);
    return { id: contributionIdOf(header), message: { type: "contribute", header, signature, payload } };
  }

  /** Contributes and says ready again; returns the contribution's id. */
  async contribute(
    payload = pack(honestDelta(this.base)),
    change: Partial<ContributionHeader> = {},
  ): Promise<ContributionId> {
    const { id, message } = await this.contribution(payload, change);
    this.send(message);
    await this.ready();
    return id;
  }

  verdictOn(id: ContributionId): string | undefined {
    const told = this.got.findLast((one) => one.type === "verdict" && one.contribution === id);
    return told?.type !== "verdict" ? undefined : told.verdict.type === "refused" ? told.verdict.reason : "accepted";
  }

  /** Validates whatever it was last asked to; `lie` replaces the measurement. */
  async validate(lie?: Losses): Promise<void> {
    const given = this.got.findLast((one) => one.type === "assign" && one.assignment.type === "validate");
    const { id, contribution, payload } = (given as { readonly assignment: ValidateAssignment }).assignment;
    const update = unpackUpdate(this.world.disk.blobs.get(payload.digest) as Bytes, { parameters: P, keepMax: 4096 });
    expect(update.ok).toBe(true);
    const losses = lie ?? (update.ok ? measure(this.base, update.value) : undefined);
    const { run } = this.world.host.view();
    const body = encodeReport({ run, validator: this.id, assignment: id, contribution, ...(losses as Losses) });
    this.send({ type: "report", body, signature: await this.key.sign("report", body) });
    await this.ready();
  }
}

async function started(change: Partial<CoordinatorOptions> = {}): Promise<World> {
  const world = new World();
  await world.start(change);
  return world;
}

async function joined(world: World, ...names: string[]): Promise<Actor[]> {
  const actors = names.map((name) => new Actor(world, name));
  for (const actor of actors) {
    await actor.connect();
    await actor.ready();
  }
  return actors;
}

describe("rounds", () => {
  test("three contributors train, judge each other and get the next version, which replays from its parts", async () => {
    const entries: string[] = [];
    const versions: number[] = [];
    const world = await started({
      onEntry: (entry) => entries.push(entry.event.type),
      onVersion: ({ version }) => versions.push(version),
    });
    const actors = await joined(world, "ada", "bob", "cyd");
    const ids: ContributionId[] = [];
    for (const [i, actor] of actors.entries()) {
      ids.push(await actor.contribute(pack(honestDelta(actor.base, 0.2 + i / 50))));
    }
    expect(world.host.view()).toMatchObject({ phase: "judging", round: 1, connected: 3, parameters: P });
    for (const actor of actors) {
      await actor.validate();
    }
    await calm(world.host);
    expect(actors.map((actor, i) => actor.verdictOn(ids[i] as ContributionId))).toEqual([
      "accepted",
      "accepted",
      "accepted",
    ]);
    const head = world.host.head();
    expect(head.version).toBe(1);
    expect(actors.every((actor) => actor.last("version")?.head.digest === head.digest)).toBe(true);
    const update = unpackUpdate(world.disk.blobs.get(head.update?.digest as Digest) as Bytes, {
      parameters: P,
      keepMax: 4096,
    });
    expect(update.ok && digestOf(floatBytes(applyUpdate(initial, update.value)))).toBe(head.digest);
    expect(head.evalLoss).toBeLessThan(lossOf(initial));
    expect(versions).toEqual([1]);
    expect(world.host.view().versions.at(-1)).toMatchObject({ accepted: 3, contributors: 3, refused: 0 });
    expect(world.host.view().versions.at(-1)?.bytesUp).toBeGreaterThan(500);
    expect(entries.length).toBe(world.disk.entries.length);
    expect(await verifyChain(world.disk.entries, { verify })).toMatchObject({ ok: true });
    expect(world.host.isPublic(head.digest) && world.host.isPublic(head.parent as string)).toBe(true);
    expect(world.host.isPublic(digestOf(Uint8Array.of(1)))).toBe(false);
  });

  test("a validator that lies to refuse is overruled, and one that lies to accept is caught by an audit", async () => {
    const audits = { ...charter, trust: { ...charter.trust, auditShare: 1 } };
    const world = await started({ charter: audits });
    const [ada, bob] = (await joined(world, "ada", "bob")) as [Actor, Actor];
    const good = await ada.contribute();
    const bad = await bob.contribute(pack(honestDelta(bob.base, -0.25)));
    const praise = { assignedBefore: 3, assignedAfter: 1, randomBefore: 3, randomAfter: 1 };
    await ada.validate(praise);
    await bob.validate({ ...praise, randomAfter: 9 });
    await calm(world.host);
    expect(ada.verdictOn(good)).toBe("accepted");
    expect(bob.verdictOn(bad)).toBe("harmful");
  });

  test("bytes of links and downloads are counted for the version they led to", async () => {
    const world = await started();
    const [ada] = (await joined(world, "ada")) as [Actor];
    world.host.countDownload(1_000_000);
    await ada.contribute();
    await world.pass(1_000);
    const { bytesUp, bytesDown } = world.host.view().versions.at(-1) as {
      readonly bytesUp: number;
      readonly bytesDown: number;
    };
    expect(bytesUp).toBeGreaterThan(500);
    expect(bytesUp).toBeLessThan(5_000);
    expect(bytesDown).toBeGreaterThan(1_000_000);
    expect(bytesDown).toBeLessThan(1_010_000);
  });
});

describe("poisoned contributions", () => {
  /** What eve sends in a round in which three others are honest; the reason she gets. */
  const reasonFor = async (
    make: (eve: Actor, world: World) => Promise<ContributionId>,
  ): Promise<string | undefined> => {
    const world = await started();
    const honest = await joined(world, "ada", "bob", "cyd");
    const [eve] = (await joined(world, "eve")) as [Actor];
    for (const [i, actor] of honest.entries()) {
      await actor.contribute(pack(honestDelta(actor.base, 0.2 + i / 50)));
    }
    const id = await make(eve, world);
    await world.pass(2_000);
    for (const actor of [...honest, eve]) {
      if (actor.got.some((one) => one.type === "assign" && one.assignment.type === "validate")) {
        await actor.validate();
      }
    }
    await world.pass(60_000);
    expect(world.host.head().version).toBe(1);
    expect(world.host.view().versions.at(-1)).toMatchObject({ accepted: 3, refused: 1 });
    return eve.verdictOn(id);
  };
  const delta = honestDelta(initial);

  test("noise of plausible norm does harm or improves nothing", async () => {
    const rng = createRng("noise");
    const noise = Float64Array.from({ length: P }, () => 0.3 * rng.normal());
    expect(["harmful", "no-improvement"]).toContain(await reasonFor((eve) => eve.contribute(pack(noise))));
  });
  test("a flipped sign is harmful", async () => {
    expect(await reasonFor((eve) => eve.contribute(pack(delta.map((value) => -value))))).toBe("harmful");
  });
  test("a hundred times the norm is too large", async () => {
    expect(await reasonFor((eve) => eve.contribute(pack(delta.map((value) => 100 * value))))).toBe("norm-too-large");
  });
  test("NaN is not finite", async () => {
    const payload = pack(delta);
    new DataView(payload.buffer).setFloat64(payload.length - 8, NaN, true);
    expect(await reasonFor((eve) => eve.contribute(payload))).toBe("not-finite");
  });
  test("the wrong base is named so", async () => {
    const baseDigest = digestOf(Uint8Array.of(1));
    expect(await reasonFor((eve) => eve.contribute(pack(delta), { baseDigest }))).toBe("wrong-base");
  });
  test("another's update is replayed, under a new header or under its own", async () => {
    expect(await reasonFor((eve) => eve.contribute(pack(honestDelta(eve.base, 0.2))))).toBe("replayed");
    const world = await started();
    const [ada, eve] = (await joined(world, "ada", "eve")) as [Actor, Actor];
    const { id, message } = await ada.contribution(pack(delta));
    ada.send(message);
    eve.send(message);
    await calm(world.host);
    expect(eve.verdictOn(id)).toBe("replayed");
  });
  test("a cut update is truncated, whether it was signed whole or cut", async () => {
    const payload = pack(delta);
    const cut = payload.slice(0, -9);
    expect(await reasonFor((eve) => eve.contribute(cut))).toBe("truncated");
    const whole = { payload: { digest: digestOf(payload), bytes: payload.length } };
    expect(await reasonFor((eve) => eve.contribute(cut, whole))).toBe("truncated");
  });
  test("an update of more than the run allows is oversized, in its bytes or in its parameters", async () => {
    const large = packUpdate(new Float64Array(P + 1).fill(0.01), exact);
    expect(await reasonFor((eve) => eve.contribute(large))).toBe("oversized");
    const bytes = new Uint8Array(300_000);
    expect(await reasonFor((eve) => eve.contribute(bytes))).toBe("oversized");
  });
  test("a signature of another key, and bytes that are no update, are named so", async () => {
    const forged = async (eve: Actor): Promise<ContributionId> => {
      const { id, message } = await eve.contribution(pack(delta));
      eve.send({ ...message, signature: new Uint8Array(64) });
      await eve.ready();
      return id;
    };
    expect(await reasonFor(forged)).toBe("bad-signature");
    expect(await reasonFor((eve) => eve.contribute(new Uint8Array(100)))).toBe("malformed");
  });
});

describe("sessions", () => {
  test("are opened by whoever proves a key, and by nobody else", async () => {
    const world = await started();
    const ada = new Actor(world, "ada");
    await ada.connect();
    expect(ada.last("welcome")).toMatchObject({ run: world.host.view().run, contributor: ada.id, charter });
    const eve = new Actor(world, "eve");
    await eve.connect(new Uint8Array(64));
    expect(eve.last("refused")?.reason).toBe("bad-signature");
    expect(eve.closed).toMatch(/could not be proven/);
    expect(world.host.view().connected).toBe(1);
  });

  test("get a nonce of their own", async () => {
    const world = await started();
    const nonces: string[] = [];
    for (const name of ["ada", "bob", "ada"]) {
      const actor = new Actor(world, name);
      await actor.connect();
      nonces.push(String(actor.last("challenge")?.nonce));
    }
    expect(new Set(nonces).size).toBe(3);
  });

  test("of another protocol version are told so", async () => {
    const world = await started();
    const got: RelayMessage[] = [];
    const pair = createMemoryPair({
      attachA: () => ({
        message: (bytes) => {
          const decoded = decodeRelayMessage(bytes);
          got.push(...(decoded.ok ? [decoded.value] : []));
        },
        closed: () => undefined,
      }),
      attachB: world.host.attach,
    });
    const key = keyOf("ada");
    const { publicKey } = key;
    const hello = {
      type: "hello",
      protocol: 2,
      publicKey,
      agent: "",
      engine: "wasm",
      device: "",
      privateData: false,
    } as const;
    pair.a.send(encodeMessage(hello));
    await calm(world.host);
    expect(got).toEqual([{ type: "refused", reason: "wrong-version", retryMs: null }]);
  });

  test("end when they are silent, or do not finish the handshake", async () => {
    const world = await started();
    const [ada] = (await joined(world, "ada")) as [Actor];
    let ended = "";
    createMemoryPair({
      attachA: () => ({ message: () => undefined, closed: (reason) => (ended = reason) }),
      attachB: world.host.attach,
    });
    await world.pass(HANDSHAKE_MS + 5_000);
    expect(ended).toMatch(/too long/);
    expect(ada.closed).toBeNull(); // it answers pings
    ada.send = () => undefined;
    await world.pass(25_000);
    expect(ada.closed).toMatch(/silent/);
    expect(world.host.view().connected).toBe(0);
  });

  test("that send what cannot be read are refused each time and closed after a few", async () => {
    const world = await started();
    const [eve] = (await joined(world, "eve")) as [Actor];
    const rng = createRng("garbage");
    for (let i = 0; i < 2 * STRIKES_MAX; i += 1) {
      eve.pair.a.send(Uint8Array.from({ length: 1 + rng.below(300) }, () => rng.below(256)));
    }
    await calm(world.host);
    expect(eve.got.filter((one) => one.type === "refused").length).toBe(STRIKES_MAX);
    expect(eve.closed).toMatch(/cannot be right/);
    await eve.connect();
    expect(eve.last("welcome")).toBeDefined();
  });

  test("that flood the queue are closed", async () => {
    const world = await started();
    const [eve] = (await joined(world, "eve")) as [Actor];
    for (let i = 0; i < 200; i += 1) {
      eve.send({ type: "ready", version: 7 });
    }
    await calm(world.host);
    expect(eve.last("refused")).toEqual({ type: "refused", reason: "busy", retryMs: BUSY_RETRY_MS });
    expect(eve.closed).toMatch(/more than can be handled/);
  });

  test("reports that were not asked for, or forged, are refused", async () => {
    const world = await started();
    const [ada] = (await joined(world, "ada")) as [Actor];
    const { run } = world.host.view();
    const contribution = contributionIdOf(Uint8Array.of(1));
    const losses = { assignedBefore: 1, assignedAfter: 1, randomBefore: 1, randomAfter: 1 };
    const body = encodeReport({ run, validator: ada.id, assignment: "v1-0-0", contribution, ...losses });
    ada.send({ type: "report", body, signature: new Uint8Array(64) });
    await calm(world.host);
    expect(ada.last("refused")?.reason).toBe("bad-signature");
    ada.send({ type: "report", body, signature: await ada.key.sign("report", body) });
    await calm(world.host);
    expect(ada.last("refused")?.reason).toBe("not-assigned");
  });

  test("may open a second link, over which a contribution arrives", async () => {
    let second: { readonly link: Link } | undefined;
    const world = await started({
      answerRtc: async (sdp, attach) => {
        const pair = createMemoryPair({
          attachA: () => ({ message: () => undefined, closed: () => undefined }),
          attachB: attach,
        });
        second = { link: pair.a };
        return `answer to ${sdp}`;
      },
    });
    const [ada] = (await joined(world, "ada")) as [Actor];
    ada.send({ type: "rtc", kind: "offer", sdp: "offer" });
    await calm(world.host);
    expect(ada.last("rtc")).toEqual({ type: "rtc", kind: "answer", sdp: "answer to offer" });
    const { id, message } = await ada.contribution(pack(honestDelta(ada.base)));
    second?.link.send(encodeMessage(message));
    await world.pass(2_000);
    expect(ada.verdictOn(id)).toBe("accepted");
    ada.send(message); // and once more on the first
    await calm(world.host);
    expect(world.host.head().version).toBe(1);
    second?.link.close("done");
    await calm(world.host);
    expect(ada.closed).toBeNull();
  });
});

describe("restarts", () => {
  test("a store of another run, another relay or broken bytes is not gone on with", async () => {
    const world = await started();
    await calm(world.host);
    await world.host.close();
    await expect(world.start({ charter: { ...charter, seed: 9 } })).rejects.toMatchObject({ code: "store" });
    await expect(world.start({ key: keyOf("other") })).rejects.toMatchObject({ code: "store" });
    const entry = world.disk.entries[0] as Bytes;
    entry[40] = (entry[40] as number) ^ 1;
    await expect(world.start()).rejects.toMatchObject({ code: "integrity" });
  });

  test("a second writer is noticed: the relay stops, and says so", async () => {
    const failures: unknown[] = [];
    const world = await started({ onFailure: (error) => failures.push(error) });
    world.disk.entries.push(Uint8Array.of(1));
    const ada = new Actor(world, "ada");
    await ada.connect().catch(() => undefined);
    await expect(world.host.settled()).rejects.toMatchObject({ code: "store" });
    expect(failures.length).toBe(1);
    expect(ada.closed).toMatch(/stopping/);
    await world.host.close();
  });

  test("the relay dies at any write, before or after it is done, and the run ends with the same bits", async () => {
    const whole = await runThrough(Infinity, "before");
    expect(whole.deaths).toBe(0);
    expect(whole.digests.length).toBe(3);
    expect(whole.writes).toBeGreaterThan(20);
    for (let n = 1; n <= whole.writes; n += 1) {
      for (const when of ["before", "after"] as const) {
        const broken = await runThrough(n, when);
        const { deaths, digests, verdicts } = broken;
        const same = { digests: whole.digests, verdicts: whole.verdicts };
        expect({ n, when, deaths, digests, verdicts }).toEqual({ n, when, deaths: 1, ...same });
      }
    }
  });
});

/** A store whose n-th write fails, before or after it is done; `written` counts them. */
function failing(store: Store, n: number, when: "before" | "after", counter: { writes: number }): Store {
  const guard = async <T>(write: () => Promise<T>): Promise<T> => {
    counter.writes += 1;
    const dies = counter.writes === n;
    if (dies && when === "before") {
      throw new Error("the relay dies before a write");
    }
    const result = await write();
    if (dies) {
      throw new Error("the relay dies after a write");
    }
    return result;
  };
  return {
    ...store,
    log: { ...store.log, append: (after, entries) => guard(() => store.log.append(after, entries)) },
    blobs: {
      ...store.blobs,
      put: (bytes) => guard(() => store.blobs.put(bytes)),
      delete: (digest) => guard(() => store.blobs.delete(digest)),
    },
  };
}

/** One contributor takes a run to version 3 on a relay whose n-th write kills it; it is started again at once. */
async function runThrough(n: number, when: "before" | "after") {
  const world = new World();
  const counter = { writes: 0 };
  let deaths = 0;
  const ada = new Actor(world, "ada");
  const up = async (): Promise<void> => {
    for (;;) {
      try {
        await world.start({ store: failing(createMemoryStore({ disk: world.disk }), n, when, counter) });
        return;
      } catch {
        deaths += 1;
      }
    }
  };
  await up();
  let pending: { readonly message: ContributorMessage; readonly id: ContributionId; readonly round: number } | null =
    null;
  for (let turn = 0; turn < 100 && world.host.head().version < 3; turn += 1) {
    try {
      if (ada.closed !== null || turn === 0) {
        await ada.connect();
        if (pending !== null) {
          ada.send(pending.message);
        }
      }
      if (pending !== null && ada.verdictOn(pending.id) !== undefined) {
        pending = null;
      }
      await ada.ready();
      const round = world.host.view().round;
      const given = ada.got.some(
        (one) => one.type === "assign" && one.assignment.type === "train" && one.assignment.round === round,
      );
      if (pending === null && given && world.host.view().phase === "training") {
        pending = { ...(await ada.contribution(pack(honestDelta(ada.base)))), round };
        ada.send(pending.message);
      }
      await world.pass(1_000);
    } catch {
      deaths += 1;
      await up();
    }
  }
  await calm(world.host);
  const chain = await verifyChain(world.disk.entries, { verify });
  expect(chain.ok).toBe(true);
  const events = chain.ok ? chain.value.entries.map(({ event }) => event) : [];
  const merged = events.flatMap((event) => (event.type === "merged" ? event.contributions : []));
  expect(new Set(merged).size).toBe(merged.length);
  const versions = events.flatMap((event) => (event.type === "merged" ? [event.head] : []));
  const verdicts = events.flatMap((event) => (event.type === "judged" ? [event.verdict.type] : []));
  return {
    deaths,
    writes: counter.writes,
    digests: versions.slice(0, 3).map(({ digest }) => digest),
    verdicts: verdicts.slice(0, 3),
  };
}
