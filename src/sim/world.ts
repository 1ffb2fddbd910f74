/**
 * The machines of a simulation: one relay and some contributors, each with a disk that outlives its processes. Every process
 * runs production code (coordinator host, contributor session, codec, merge); only the work is a toy and the keys are hashes.
 * What contributors are told and what they work on is written down as evidence for the oracle.
 */
import { present } from "../base/assert.ts";
import { digestOf, floatBytes, type Bytes, type ContributionId, type ContributorId } from "../base/bytes.ts";
import { createRng, type Rng } from "../base/rng.ts";
import type { PeerRtc } from "../contributor/peers.ts";
import { createContributor, type Contributor, type OpenRtc } from "../contributor/run.ts";
import type { Work } from "../contributor/work.ts";
import type { GateOptions } from "../coordinator/gate.ts";
import { createCoordinatorHost, type CoordinatorHost } from "../coordinator/host.ts";
import type { Link } from "../net/link.ts";
import { decodeEntry } from "../protocol/chain.ts";
import type { Charter } from "../protocol/charter.ts";
import { contributorIdOf, decodeContributorMessage, decodeHeader, decodeRelayMessage } from "../protocol/codec.ts";
import type { OpenCrew } from "../update/crew.ts";
import { createMemoryDisk, type MemoryDisk } from "../store/memory.ts";
import { createVirtualClock, type VirtualClock } from "./clock.ts";
import { createKeyRegistry, type KeyRegistry, type SimKey } from "./keys.ts";
import { LIES, lieAbout, twistOf, type Lie } from "./liar.ts";
import { followOperator } from "./operator.ts";
import { createNetwork, type Network, type NetworkFaults } from "./network.ts";
import type { Diary, Replica, Told } from "./oracle.ts";
import { createProcess, type Process, type ProcessOptions } from "./process.ts";
import { createToy, createToyWork, type Toy } from "./toy.ts";

/** A machine that was killed is started again after up to this long. */
const RESTART_MS = 3_000;
/** Somebody whose contributor has failed looks at it this often, and starts it again. */
const RETURN_LOOK_MS = 2_000;
/** Control messages of a relay that carry a verdict are shorter than this. */
const VERDICT_BYTES_MAX = 200;
/** The newest public payloads, from which a replaying liar chooses. */
const PUBLISHED_MAX = 8;

/** The one shard of the toy's data: fetched like any other, read by nobody. */
export const TEXT: Bytes = Uint8Array.from({ length: 300 }, (_, i) => 97 + (i % 26));

export interface Faults extends NetworkFaults {
  /** A write to a disk takes up to this long, twice. */
  readonly writeMsMax: number;
  /** Kills of the relay and of contributors, at random times; half of the relay's in the middle of a write. */
  readonly relayKills: number;
  readonly contributorKills: number;
  /** People pause and stop their contributors, and go on. */
  readonly whims: boolean;
  /** The operator pauses, bans and drains. */
  readonly operator: boolean;
  /** How many of the contributors lie. */
  readonly liars: number;
}

export interface WorldOptions {
  readonly seed: number;
  readonly contributors: number;
  readonly parameters: number;
  readonly charter: Charter;
  readonly faults: Faults;
  readonly openCrew: OpenCrew;
  /** Largest piece of an honest contribution. */
  readonly pieceBytes: number;
  /** Kills happen before this time. */
  readonly stormMs: number;
  /** How many sessions the relay takes; as many as production by itself. */
  readonly gate?: GateOptions;
  /** Contributors begin within this time. */
  readonly arriveMs?: number;
  /** Everybody agreed to exchange checkpoints with the others; liars send wrong ones. */
  readonly peers?: boolean;
}

export interface Machine {
  readonly id: ContributorId;
  readonly lie: Lie | null;
  readonly process: Process;
  readonly contributor: Contributor;
}

export interface World {
  readonly clock: VirtualClock;
  readonly network: Network;
  readonly registry: KeyRegistry;
  readonly relayDisk: MemoryDisk;
  readonly toy: Toy;
  /** The present process of each contributor's machine. */
  readonly machines: Map<number, Machine>;
  readonly told: Told[];
  readonly used: Replica[];
  readonly diaries: Diary[];
  /** The present relay; null while there is none. */
  relay: CoordinatorHost | null;
  /** Payloads that everybody can fetch. */
  readonly published: Bytes[];
  /** Why a relay could not go on, though nobody killed it. */
  readonly failures: string[];
  kills: number;
  /** Offers of which the relay had some pieces already. */
  resumed: number;
  start(): void;
}

export function createWorld(options: WorldOptions): World {
  const { seed, charter, faults, contributors, parameters } = options;
  const clock = createVirtualClock();
  const toy = createToy(parameters, seed);
  const world: World = {
    clock,
    network: createNetwork(clock, createRng("network", seed), faults),
    registry: createKeyRegistry(),
    relayDisk: createMemoryDisk(),
    toy,
    machines: new Map(),
    told: [],
    used: [],
    diaries: [],
    relay: null,
    published: [],
    failures: [],
    kills: 0,
    resumed: 0,
    start: () => {
      world.relayDisk.blobs.set(digestOf(TEXT), TEXT);
      runRelay(world, options);
      for (let number = 0; number < contributors; number += 1) {
        const lie = number < faults.liars ? (LIES[(seed + number) % LIES.length] as Lie) : null;
        runContributor(world, { ...options, charter, number, lie });
      }
      if (faults.operator) {
        followOperator(world, { rng: createRng("operator", seed), stormMs: options.stormMs, contributors });
      }
    },
  };
  return world;
}

/** Starts the relay, and again whenever it was killed. */
function runRelay(world: World, options: WorldOptions): void {
  const { seed, faults, stormMs, charter, openCrew } = options;
  const { clock, network, registry, relayDisk: disk, toy } = world;
  const rng = createRng("relay", seed);
  const key = registry.create("relay", seed);
  let kills = faults.relayKills;
  let life = 0;
  const start = (): void => {
    life += 1;
    const common = { name: `relay ${life}`, clock, disk, rng: createRng("disk", seed, life) };
    const process = createProcess({ ...common, writeMsMax: faults.writeMsMax, ...deathOf(kills > 0, rng) });
    if (kills > 0) {
      kills -= 1;
      clock.after(rng.below(Math.max(1, stormMs - clock.nowMs())), process.kill);
    }
    process.onKill(() => {
      world.kills += 1;
      network.listener = null;
      world.relay = null;
      clock.after(rng.below(RESTART_MS), start);
    });
    void createCoordinatorHost({
      store: process.store,
      charter,
      clock: process.clock,
      rng: createRng("coordinator", seed, life),
      key,
      verify: registry.verify,
      referee: {
        evaluate: async (params) => toy.loss(params),
        measure: async (base, update, facts) => toy.measure(base, update, facts),
      },
      openCrew,
      ...(options.gate === undefined ? {} : { gate: options.gate }),
      initial: () => toy.initial,
      answerRtc: async (offer, attach) => {
        network.offers.set(offer, { process, attach });
        return offer;
      },
      onEntry: ({ event }) => {
        const header = event.type === "contributed" ? decodeHeader(event.header) : null;
        const payload = header?.ok === true ? disk.blobs.get(header.value.payload.digest) : undefined;
        if (payload !== undefined) {
          world.published.push(payload);
          world.published.splice(0, world.published.length - PUBLISHED_MAX);
        }
      },
      onDrained: () => void world.relay?.close().then(process.kill),
      onFailure: (error) => world.failures.push(String(error)),
    }).then((host) => {
      if (process.alive) {
        world.relay = host;
        network.listener = {
          process,
          attach: (link) => host.attach(link),
          blob: async (digest) => (host.isPublic(digest) ? disk.blobs.get(digest) : undefined),
        };
      }
    });
  };
  start();
}

/** Half of the kills hit a certain write, half a certain time. */
function deathOf(kill: boolean, rng: Rng): Pick<ProcessOptions, "dieAtWrite"> {
  const byWrite = rng.below(2) === 0;
  const number = 1 + rng.below(40);
  const done = rng.below(2) === 0;
  return { dieAtWrite: kill && byWrite ? { number, done } : null };
}

interface MachineOptions extends WorldOptions {
  readonly number: number;
  readonly lie: Lie | null;
}

/** Starts a contributor, and again on the same disk whenever it was killed. */
function runContributor(world: World, options: MachineOptions): void {
  const { seed, faults, stormMs, number, lie, contributors } = options;
  const { clock, registry } = world;
  const rng = createRng("machine", seed, number);
  const key = registry.create("contributor", seed, number);
  const diary: Diary = {
    contributor: contributorIdOf(key.publicKey),
    honest: lie === null,
    pages: [],
    blobs: new Map(),
  };
  world.diaries.push(diary);
  const disk = diskWithDiary(diary);
  const stepMs = 50 + rng.below(300);
  let kills = Math.floor((faults.contributorKills + number) / contributors);
  let life = 0;
  const start = (): void => {
    life += 1;
    const common = { name: `contributor ${number}.${life}`, clock, disk, rng: createRng("disk", seed, number, life) };
    const process = createProcess({ ...common, writeMsMax: faults.writeMsMax });
    const contributor = createSession(world, { options, process, key, stepMs });
    world.machines.set(number, { id: contributorIdOf(key.publicKey), lie, process, contributor });
    contributor.start();
    if (faults.whims) {
      followWhims(contributor, process, { rng, stormMs });
    }
    if (faults.operator) {
      returnAfterFailure(contributor, process);
    }
    if (kills > 0) {
      kills -= 1;
      clock.after(rng.below(Math.max(1, stormMs - clock.nowMs())), process.kill);
    }
    process.onKill(() => {
      world.kills += 1;
      clock.after(rng.below(RESTART_MS), start);
    });
  };
  clock.after(rng.below(options.arriveMs ?? 1_000), start);
}

/** The person starts again what has failed: whoever was banned may be so no longer. */
function returnAfterFailure(contributor: Contributor, { clock }: Process): void {
  const look = (): void => {
    if (contributor.view().status === "failed") {
      contributor.start();
    }
    clock.after(RETURN_LOOK_MS, look);
  };
  look();
}

/** A disk that keeps a copy of everything that was ever written to it. */
function diskWithDiary({ pages, blobs }: Diary): MemoryDisk {
  const disk = createMemoryDisk();
  const { values, blobs: present } = disk;
  const [setValue, setBlob] = [values.set.bind(values), present.set.bind(present)];
  values.set = (key, value) => {
    pages.push({ key, value });
    return setValue(key, value);
  };
  present.set = (digest, bytes) => {
    blobs.set(digest, bytes);
    return setBlob(digest, bytes);
  };
  return disk;
}

/** The person pauses and goes on, or stops and starts again. */
function followWhims(
  contributor: Contributor,
  { clock }: Process,
  { rng, stormMs }: { readonly rng: Rng; readonly stormMs: number },
): void {
  const pauses = rng.below(2) === 0;
  const fromMs = rng.below(Math.max(1, stormMs - clock.nowMs()));
  clock.after(fromMs, () => (pauses ? contributor.pause() : void contributor.stop()));
  clock.after(fromMs + rng.below(3_000), () => (pauses ? contributor.resume() : contributor.start()));
}

interface SessionOptions {
  readonly options: MachineOptions;
  readonly process: Process;
  readonly key: SimKey;
  readonly stepMs: number;
}

/** The production contributor on a simulated process, with its ends of links watched. */
function createSession(world: World, { options, process, key, stepMs }: SessionOptions): Contributor {
  const { lie, charter, pieceBytes } = options;
  const { network, toy } = world;
  const id = contributorIdOf(key.publicKey);
  const rng = createRng("session", options.seed, process.name);
  let offered = false;
  const sent = (bytes: Bytes): readonly Bytes[] => {
    const { published } = world;
    const message = decodeContributorMessage(bytes);
    offered ||= message.ok && message.value.type === "offer";
    return lie === null ? [bytes] : lieAbout(bytes, { lie, key, rng, compression: charter.uplink, published });
  };
  const received = (bytes: Bytes): void => {
    const message = bytes.length <= VERDICT_BYTES_MAX ? decodeRelayMessage(bytes) : null;
    if (message?.ok === true && message.value.type === "verdict") {
      const { contribution, verdict } = message.value;
      world.told.push({ contributor: id, contribution, verdict, written: isAccepted(world.relayDisk, contribution) });
    } else if (message?.ok === true && message.value.type === "have" && offered) {
      world.resumed += message.value.pieces > 0 ? 1 : 0;
      offered = false;
    }
  };
  const tap = { sent, received };
  let offers = 0;
  const openRtc: OpenRtc = async ({ exchange, attach }) => {
    offers += 1;
    const offer = await exchange(`offer ${offers} of ${process.name}`);
    return network.open(process, offer, { attach, tap });
  };
  const peerRtc: PeerRtc = {
    dial: async ({ exchange, attach }) => {
      offers += 1;
      return network.open(process, await exchange(`offer ${offers} of ${process.name}`), { attach, tap: {} });
    },
    answer: async ({ offerSdp, attach }) => {
      const answer = `answer of ${process.name} to ${offerSdp}`;
      network.offers.set(answer, { process, attach: lie === null ? attach : (link) => attach(spoiling(link)) });
      return answer;
    },
  };
  const contributor: Contributor = createContributor({
    ...(options.peers === true ? { peerRtc, peers: true } : {}),
    dial: (attach) => network.dial(process, attach, tap),
    ...(rng.below(2) === 0 ? { openRtc } : {}),
    fetchBlob: (digest, bytesMax) => network.fetchBlob(process, digest, bytesMax),
    store: process.store,
    clock: process.clock,
    rng,
    key,
    verify: world.registry.verify,
    engine: { kind: "twin", device: "simulated", sentence: "" },
    createWork: async () =>
      witnessed(createToyWork({ toy, clock: process.clock, stepMs, twist: twistOf(lie) }), {
        // Who trains ahead, or from what it has not sent, too, begins near the base and not at it.
        near: charter.round.aheadMax > 0 || charter.uplink.carry,
        base: () => present(contributor.parameters(), "the base"),
        note: (version, params) =>
          world.used.push({ contributor: id, version, digest: digestOf(floatBytes(new Float32Array(params))) }),
      }),
    // Liars change whole contributions on their way. What a quarter of the honest trained on nobody else can measure.
    ...(lie === null ? { pieceBytes, privateData: createRng("private", id).below(4) === 0 } : {}),
    agent: "simulation",
  });
  return contributor;
}

/** A link over which the last byte of every message goes out wrong. */
function spoiling(link: Link): Link {
  return {
    lane: link.lane,
    send: (bytes) => link.send(bytes.map((byte, i) => (i === bytes.length - 1 ? byte ^ 1 : byte))),
    drained: () => link.drained(),
    get bytesSent() {
      return link.bytesSent;
    },
    get bytesReceived() {
      return link.bytesReceived;
    },
    close: (reason) => link.close(reason),
  };
}

/** Whether the ledger, as it is on the disk now, says that a contribution is accepted. */
function isAccepted({ entries }: MemoryDisk, id: ContributionId): boolean {
  return entries.toReversed().some((bytes) => {
    const entry = decodeEntry(bytes);
    const event = entry.ok ? entry.value.event : null;
    return event?.type === "judged" && event.contribution === id && event.verdict.type === "accepted";
  });
}

interface Witness {
  /** Whether training begins elsewhere than at the base. */
  readonly near: boolean;
  readonly base: () => Float32Array;
  readonly note: (version: number, params: Float32Array) => void;
}

/** Has every version noted that is worked on, and its parameters: those that the work begins from, or that are held then. */
function witnessed(work: Work, { near, base: held, note }: Witness): Work {
  return {
    ...work,
    train: (assignment, from, job) => {
      if (job.firstStep === undefined) {
        note(assignment.baseVersion, near ? held() : from);
      } // else it goes on ahead of its next assignment
      return work.train(assignment, from, job);
    },
    validate: (assignment, base, update, job) => {
      note(assignment.baseVersion, base);
      return work.validate(assignment, base, update, job);
    },
  };
}
