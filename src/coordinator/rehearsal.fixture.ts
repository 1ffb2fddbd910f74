/**
 * A host to be rehearsed with, for tests: memory links, a memory store, virtual time and scripted participants. The model is
 * sixteen numbers that should become a target, so that loss tells good updates from bad ones in microseconds.
 */
import { assert, present } from "../base/assert.ts";
import { concatBytes, digestOf, fromHex, type Bytes, type ContributionId } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { createRng } from "../base/rng.ts";
import type { Attach } from "../net/link.ts";
import { createMemoryPair, type MemoryPair } from "../net/memory.ts";
import type { Charter } from "../protocol/charter.ts";
import {
  contributionIdOf,
  contributorIdOf,
  decodeRelayMessage,
  encodeHeader,
  encodeMessage,
  encodeReport,
  rtcProof,
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
  RtcSignal,
  TrainAssignment,
  ValidateAssignment,
} from "../protocol/messages.ts";
import { createMemoryDisk, createMemoryStore, type MemoryDisk } from "../store/memory.ts";
import type { MeasureFacts } from "../trust/measure.ts";
import { applyUpdate } from "../update/delta.ts";
import { packUpdate } from "../update/pack.ts";
import { unpackUpdate, type SparseUpdate } from "../update/unpack.ts";
import { soloCrew } from "../update/solo.ts";
import { loadMergeKernel } from "../wasm/merge.ts";
import type { Arrival } from "./peer.ts";
import { createCoordinatorHost, type CoordinatorHost, type CoordinatorOptions } from "./host.ts";

export const P = 16;
export const exact = { keep: 4096, bits: 64, beta: 1 } as const;
export const charter: Charter = {
  ...exampleCharter,
  uplink: { ...exact, together: 0, carry: false },
  downlink: exact,
  round: { ...exampleCharter.round, lateShare: 0 },
  trust: { ...exampleCharter.trust, auditShare: 0 },
};
const target = Float32Array.from({ length: P }, (_, i) => 1 + i / P);
export const initial = new Float32Array(P);

export function lossOf(params: Float32Array): number {
  return params.reduce((sum, value, i) => sum + (value - (target[i] as number)) ** 2, 0.1);
}

const referee = {
  evaluate: async (params: Float32Array) => lossOf(params),
  measure: async (base: Float32Array, update: SparseUpdate, { among }: MeasureFacts): Promise<Losses> =>
    measure(base, update, among),
};

function measure(base: Float32Array, update: SparseUpdate, among: number): Losses {
  const before = lossOf(base);
  const [one, whole] = [applyUpdate(base, update, among), applyUpdate(base, update)];
  return { assignedBefore: before, assignedAfter: lossOf(one), randomBefore: before, randomAfter: lossOf(whole) };
}

/** Step towards the target, as a delta: base − trained. */
export function honestDelta(base: Float32Array, share = 0.25): Float64Array {
  return Float64Array.from(base, (value, i) => share * (value - (target[i] as number)));
}

export const pack = (delta: Float64Array): Bytes => packUpdate(delta, exact);

const textBytes = (text: string): Bytes => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

/** A keyed hash, which everyone who has the secret table can check. */
const secrets = new Map<string, Bytes>();
export function keyOf(name: string): DeviceKey {
  const secret = fromHex(digestOf(textBytes(name)));
  const publicKey = fromHex(digestOf(secret));
  secrets.set(digestOf(publicKey), secret);
  return { publicKey, sign: async (purpose, message) => mac(secret, purpose, message) };
}
const mac = (secret: Uint8Array, purpose: string, message: Uint8Array): Bytes =>
  fromHex(digestOf(concatBytes([secret, textBytes(purpose), message])));
export const verify: VerifySignature = async (publicKey, purpose, message, signature) => {
  const secret = secrets.get(digestOf(publicKey));
  return secret !== undefined && digestOf(mac(secret, purpose, message)) === digestOf(signature);
};
const relayKey = keyOf("relay");
const openCrew = soloCrew(await loadMergeKernel());

export class TestClock implements Clock {
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

const MICROTASKS = 100;

/** Lets everything that is pending happen: links, queue, store. */
export async function calm(host?: CoordinatorHost): Promise<void> {
  for (let i = 0; i < 4; i += 1) {
    for (let turn = 0; turn < MICROTASKS; turn += 1) {
      await Promise.resolve();
    }
    await host?.settled();
  }
}

export class World {
  readonly clock = new TestClock();
  readonly disk: MemoryDisk;
  readonly logged: string[] = [];
  readonly failures: unknown[] = [];
  host!: CoordinatorHost;

  constructor(disk = createMemoryDisk()) {
    this.disk = disk;
  }

  async start(change: Partial<CoordinatorOptions> = {}): Promise<void> {
    this.host = await createCoordinatorHost({
      store: createMemoryStore({ disk: this.disk }),
      charter,
      initial: () => initial,
      clock: this.clock,
      rng: createRng("host.test"),
      key: relayKey,
      verify,
      referee,
      openCrew,
      log: (sentence) => this.logged.push(sentence),
      onFailure: (error) => this.failures.push(error),
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
export class Actor {
  readonly name: string;
  readonly key: DeviceKey;
  readonly world: World;
  readonly got: RelayMessage[] = [];
  pair!: MemoryPair;
  hello!: Bytes;
  closed: string | null = null;

  readonly #arrival: Arrival;

  constructor(world: World, name: string, arrival: Arrival = { prefix: null }) {
    this.world = world;
    this.#arrival = arrival;
    this.name = name;
    this.key = keyOf(name);
  }

  get id() {
    return contributorIdOf(this.key.publicKey);
  }

  /** Dials and shakes hands; `forge` replaces the proof. */
  async connect(forge?: Bytes): Promise<void> {
    this.closed = null;
    this.hello = encodeMessage({
      type: "hello",
      protocol: PROTOCOL_VERSION,
      publicKey: this.key.publicKey,
      nonce: new Uint8Array(32),
      agent: this.name,
      engine: "twin",
      device: "test",
      privateData: false,
    });
    const attachA: Attach = () => ({
      message: (bytes) => {
        const decoded = decodeRelayMessage(bytes);
        assert(decoded.ok, "Cannot read what the relay sent");
        if (decoded.ok) {
          this.got.push(decoded.value);
          if (decoded.value.type === "challenge") {
            const proof = sessionProof({ nonce: decoded.value.nonce, hello: this.hello });
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
    this.pair = createMemoryPair({ attachA, attachB: (link) => this.world.host.attach(link, this.#arrival) });
    this.pair.a.send(this.hello);
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

  /** An offer of a second link, signed for this session. */
  async signedOffer(sdp: string): Promise<{
    readonly challenge: Extract<RelayMessage, { readonly type: "challenge" }>;
    readonly message: RtcSignal;
  }> {
    const challenge = present(this.last("challenge"), "a challenge");
    const signature = await this.key.sign("rtc", rtcProof({ nonce: challenge.nonce, offer: sdp }));
    return { challenge, message: { type: "rtc", kind: "offer", sdp, signature } };
  }

  /** Offers a second link; returns the session's challenge. */
  async offer(sdp: string): Promise<Extract<RelayMessage, { readonly type: "challenge" }>> {
    const { challenge, message } = await this.signedOffer(sdp);
    this.send(message);
    await calm(this.world.host);
    return challenge;
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
      ahead: 0,
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
    const { id, contribution, payload, among } = (given as { readonly assignment: ValidateAssignment }).assignment;
    const update = unpackUpdate(this.world.disk.blobs.get(payload.digest) as Bytes, { parameters: P, keepMax: 4096 });
    const losses = lie ?? (update.ok ? measure(this.base, update.value, among) : undefined);
    const { run } = this.world.host.view();
    const body = encodeReport({ run, validator: this.id, assignment: id, contribution, ...(losses as Losses) });
    this.send({ type: "report", body, signature: await this.key.sign("report", body) });
    await this.ready();
  }
}

export async function started(change: Partial<CoordinatorOptions> = {}): Promise<World> {
  const world = new World();
  await world.start(change);
  return world;
}

export async function joined(world: World, ...names: string[]): Promise<Actor[]> {
  const actors = names.map((name) => new Actor(world, name));
  for (const actor of actors) {
    await actor.connect();
    await actor.ready();
  }
  return actors;
}
