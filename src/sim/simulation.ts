/**
 * One run from one seed: a storm, in which links break, machines die and liars lie, then quiet, in which everything must come
 * to rest, then the oracle's judgement. The same seed gives the same history to the last byte, so a failing seed is a bug
 * report. After TigerBeetle's VOPR: production state machines in a simulated world.
 */
import { digestOf, floatBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { decodeEntry } from "../protocol/chain.ts";
import { decodeHeader } from "../protocol/codec.ts";
import type { Charter, UplinkConfig } from "../protocol/charter.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { PIECE_BYTES } from "../protocol/limits.ts";
import { sampleCharter } from "../protocol/sample.ts";
import type { Settle } from "./clock.ts";
import { examine, type Evidence, type Finding, type Replica } from "./oracle.ts";
import type { OpenCrew } from "../update/crew.ts";
import { createWorld, TEXT, type Faults, type Machine, type World } from "./world.ts";

/** Virtual time that a round may take in the storm, and that everything may take to come to rest after it. */
const ROUND_MS_MAX = 60_000;
const REST_MS_MAX = 120_000;
/** How often the simulation looks whether it is done. */
const LOOK_MS = 200;

export interface SimulationOptions {
  readonly seed: number;
  readonly contributors: number;
  /** Rounds in the storm; some more happen in the quiet. */
  readonly rounds: number;
  readonly faults: Faults;
  readonly openCrew: OpenCrew;
  /** P */
  readonly parameters?: number;
  readonly uplink?: UplinkConfig;
  /** Largest piece of an honest contribution. */
  readonly pieceBytes?: number;
  /** Contributors exchange checkpoints. */
  readonly peers?: boolean;
  readonly settle?: Settle;
}

export interface Outcome {
  readonly seed: number;
  /** Everything the oracle found wrong. */
  readonly findings: readonly Finding[];
  readonly evidence: Evidence;
  readonly version: number;
  readonly accepted: number;
  /** Contributions that were received one round late. */
  readonly late: number;
  readonly refused: number;
  readonly kills: number;
  /** Uploads in pieces that went on where they had been cut off. */
  readonly resumed: number;
  /** What the contributors that are there at the end got from others, and what came of their last attempts. */
  readonly peers: { readonly bytesFetched: number; readonly sentences: readonly string[] };
  /** Virtual time, and wake-ups served. */
  readonly timeMs: number;
  readonly wakes: number;
  readonly lossFirst: number;
  readonly lossLast: number;
}

export const CALM: Faults = {
  delayMsMax: 5,
  breakShare: 0,
  duplicateShare: 0,
  failShare: 0,
  writeMsMax: 0,
  relayKills: 0,
  contributorKills: 0,
  whims: false,
  operator: false,
  liars: 0,
};

/** The faults of a seed: each kind is absent in some seeds and frequent in others. */
export function faultsOf(seed: number): Faults {
  const rng = createRng("faults", seed);
  const oneOf = (values: readonly number[]): number => values[rng.below(values.length)] as number;
  return {
    delayMsMax: oneOf([2, 50, 400]),
    breakShare: oneOf([0, 0.01, 0.05]),
    duplicateShare: oneOf([0, 0.05, 0.3]),
    failShare: oneOf([0, 0.05, 0.3]),
    writeMsMax: oneOf([0, 5, 60]),
    relayKills: oneOf([0, 1, 3]),
    contributorKills: oneOf([0, 1, 4]),
    whims: rng.below(3) === 0,
    liars: oneOf([0, 1, 1, 2]),
    operator: rng.below(3) === 0,
  };
}

/** Bits of a value that does not travel exactly. */
const WIDTHS = [1, 2, 3, 4] as const;

/** Pieces for updates of so few parameters, a handful each; those whose values travel exactly are larger. */
const SMALL_PIECE_BYTES = 24;

/** What `seed` runs in the suite. */
export function optionsOf(seed: number): Omit<SimulationOptions, "openCrew"> {
  const rng = createRng("options", seed);
  const faults = faultsOf(seed);
  const contributors = faults.liars + 1 + rng.below(3);
  const [rounds, parameters] = [2 + rng.below(2), 64 + rng.below(200)];
  const exact = rng.below(2) !== 0;
  const carry = createRng("carry", seed).below(2) === 0; // of no relation to the width
  const uplink = exact
    ? ({ keep: 4096, bits: 64, beta: 0.95, together: 0, carry } as const)
    : ({ keep: 32, bits: WIDTHS[seed % 4] ?? 2, beta: 0.95, together: 64 * (seed % 3), carry } as const);
  const whole = createRng("pieces", seed).below(2) === 0;
  const pieceBytes = whole ? PIECE_BYTES : SMALL_PIECE_BYTES * (exact ? 16 : Math.max(1, uplink.together / 32));
  return { seed, contributors, rounds, parameters, uplink, pieceBytes, faults };
}

export async function runSimulation(options: SimulationOptions): Promise<Outcome> {
  const { seed, contributors, rounds, faults, parameters = 128, openCrew, settle } = options;
  const { pieceBytes = PIECE_BYTES, peers = false } = options;
  const charter = charterOf(seed, options.uplink ?? { keep: 32, bits: 2, beta: 0.95, together: 0, carry: false });
  const stormMs = rounds * 5_000;
  const world = createWorld({
    seed,
    contributors,
    parameters,
    charter,
    faults,
    openCrew,
    pieceBytes,
    stormMs,
    peers,
  });
  const ledger = followLedger(world);
  world.start();

  let wakes = 0;
  const blobs = new Map<Digest, Bytes>();
  const runUntil = async (limitMs: number, done: () => boolean): Promise<boolean> => {
    let isDone = false;
    const untilMs = world.clock.nowMs() + limitMs;
    const look = (): void => {
      archive(world, blobs);
      isDone = done();
      if (!isDone) {
        world.clock.after(LOOK_MS, look);
      }
    };
    look();
    wakes += await world.clock.run(untilMs, () => isDone, settle);
    return isDone;
  };

  const findings: Finding[] = [];
  const stormy = (): boolean => ledger.ended() < rounds || world.clock.nowMs() < stormMs;
  if (!(await runUntil(rounds * ROUND_MS_MAX, () => !stormy()))) {
    findings.push({
      rule: "rounds end in the storm",
      detail: `${ledger.ended()} of ${rounds} ended; ${situation(world)}`,
    });
  }
  world.network.faulty = false;
  const merges = ledger.merges().length;
  const restful = (): boolean => ledger.merges().length > merges && isAtRest(world, ledger);
  if (!(await runUntil(REST_MS_MAX, restful))) {
    findings.push({ rule: "everything comes to rest", detail: situation(world) });
  }
  findings.push(...world.failures.map((detail) => ({ rule: "the relay never fails", detail })));
  const evidence = { ...gather(world, charter), blobs };
  findings.push(...(await examine(evidence)));
  const judged = ledger.events().filter((event) => event.type === "judged");
  const last = honest(world)[0]?.contributor.parameters() ?? world.toy.initial;
  const views = [...world.machines.values()].map(({ contributor }) => contributor.view());
  return {
    seed,
    findings,
    evidence,
    version: ledger.merges().length,
    late: lateIn(ledger.events()),
    accepted: judged.filter((event) => event.verdict.type === "accepted").length,
    refused: judged.filter((event) => event.verdict.type === "refused").length,
    kills: world.kills,
    peers: {
      bytesFetched: views.reduce((sum, { peers: { bytesFetched } }) => sum + bytesFetched, 0),
      sentences: views.map((view) => view.peers.sentence),
    },
    resumed: world.resumed,
    timeMs: world.clock.nowMs(),
    wakes,
    lossFirst: world.toy.loss(world.toy.initial),
    lossLast: world.toy.loss(last),
  };
}

/** The sample charter with short rounds; sizes of the model play no part, the toy has its own. */
export function charterOf(seed: number, uplink: UplinkConfig): Charter {
  const shards = [{ digest: digestOf(TEXT), bytes: TEXT.length }];
  const data = { name: "toy", licence: "CC0-1.0", category: "fully-open", shards } as const;
  return {
    ...sampleCharter([data], data),
    uplink,
    downlink: { keep: 4096, bits: uplink.bits, beta: 1 },
    round: {
      trainMs: 2_000,
      stepsMax: 8,
      aheadMax: seed % 2 === 0 ? 0 : 4,
      aheadShare: 1,
      graceMs: 1_500,
      quorum: 0.5,
      patience: 0.5,
      judgeMs: 1_500,
      decayRounds: 0,
      decayTo: 1,
      lateShare: seed % 3 === 1 ? 0.5 : 0,
    },
    seed,
  };
}

/** Contributions that were received one round late. */
function lateIn(events: readonly LedgerEvent[]): number {
  let [open, late] = [0, 0];
  for (const event of events) {
    if (event.type === "opened") {
      open = event.round;
    } else if (event.type === "contributed") {
      const header = decodeHeader(event.header);
      late += header.ok && header.value.round < open ? 1 : 0;
    }
  }
  return late;
}

interface LedgerView {
  events(): readonly LedgerEvent[];
  merges(): readonly Extract<LedgerEvent, { type: "merged" }>[];
  /** Rounds that ended. */
  ended(): number;
}

/** Reads the relay's disk as it grows. */
function followLedger({ relayDisk }: World): LedgerView {
  const events: LedgerEvent[] = [];
  const read = (): readonly LedgerEvent[] => {
    for (const bytes of relayDisk.entries.slice(events.length)) {
      const entry = decodeEntry(bytes);
      if (!entry.ok) {
        break; // the oracle says so
      }
      events.push(entry.value.event);
    }
    return events;
  };
  const merges = (): Extract<LedgerEvent, { type: "merged" }>[] => read().filter((event) => event.type === "merged");
  return {
    events: read,
    merges,
    ended: () => read().filter((event) => event.type === "merged" || event.type === "skipped").length,
  };
}

function honest(world: World): readonly Machine[] {
  return [...world.machines.values()].filter((machine) => machine.lie === null);
}

/** Everyone holds the head, and nobody's verdict is on its way. */
function isAtRest(world: World, ledger: LedgerView): boolean {
  const head = ledger.merges().at(-1)?.head;
  const told = new Set(world.told.map(({ contribution }) => contribution));
  const judged = new Set(ledger.events().flatMap((event) => (event.type === "judged" ? [event.contribution] : [])));
  return honest(world).every(({ contributor, process }) => {
    const { version, contributions } = contributor.view();
    const untold = contributions.some(({ id, verdict }) => verdict === null && judged.has(id) && !told.has(id));
    return process.alive && version === (head?.version ?? 0) && !untold;
  });
}

function archive({ relayDisk }: World, blobs: Map<Digest, Bytes>): void {
  for (const [digest, bytes] of relayDisk.blobs) {
    if (!blobs.has(digest)) {
      blobs.set(digest, bytes);
    }
  }
}

function gather(world: World, charter: Charter): Omit<Evidence, "blobs"> {
  const final: Replica[] = honest(world).map(({ id, contributor }) => {
    const params = contributor.parameters() ?? new Float32Array(0);
    const digest = digestOf(floatBytes(new Float32Array(params)));
    return { contributor: id, version: contributor.view().version ?? -1, digest };
  });
  return {
    disk: world.relayDisk,
    verify: world.registry.verify,
    charter,
    initial: world.toy.initial,
    told: world.told,
    used: world.used,
    diaries: world.diaries,
    final,
    liars: new Set([...world.machines.values()].filter(({ lie }) => lie !== null).map(({ id }) => id)),
  };
}

/** Where everybody stands, for the person who looks at a failing seed. */
function situation(world: World): string {
  const machines = [...world.machines.values()].map(({ lie, process, contributor }) => {
    const { status, version, sentence } = contributor.view();
    return `${process.name}${lie === null ? "" : ` (${lie})`}: ${status} at version ${version}, "${sentence}"`;
  });
  return [`relay ${world.network.listener === null ? "down" : "up"}`, ...machines].join("; ");
}
