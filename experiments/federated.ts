/**
 * A run through the production path: coordinator host, contributors, codec and merge as they are, over the simulated network,
 * with the setting's devices and links, in one process. The referee measures every version on held-out text, as a relay's
 * does; what crosses the links is weighed. Ends with the last version, once every replica that is there holds it.
 */
import { digestOf, floatBytes, type Digest } from "../src/base/bytes.ts";
import { createRng } from "../src/base/rng.ts";
import { createCoordinatorHost, type CoordinatorHost, type Referee } from "../src/coordinator/host.ts";
import { createEvaluator, type Evaluator } from "../src/model/evaluator.ts";
import { decodeHeader } from "../src/protocol/codec.ts";
import type { LedgerEvent } from "../src/protocol/ledger.ts";
import type { RunView } from "../src/protocol/run-view.ts";
import { createVirtualClock, type VirtualClock } from "../src/sim/clock.ts";
import { createNetwork, type Network } from "../src/sim/network.ts";
import { createProcess, type Process } from "../src/sim/process.ts";
import { createMemoryDisk } from "../src/store/memory.ts";
import { createReferee, heldOutLoss } from "../src/trust/referee.ts";
import { soloCrew } from "../src/update/solo.ts";
import { loadMergeKernel } from "../src/wasm/merge.ts";
import type { Arm } from "./experiment.ts";
import type { Idle } from "./idle.ts";
import { createMachines, type Machines } from "./machines.ts";
import { NOISE_LOSSES } from "./noise.ts";
import { BrokenRun, meanTraffic, type OnPoint, type Point, type Sums } from "./record.ts";
import { createCoordinatorRng } from "./seeds.ts";
import type { Seats } from "./seats.ts";
import type { Setting } from "./setting.ts";
import { createMeter, createScale, REQUEST, type Meter } from "./wire.ts";

/** Virtual time that everyone may take to get the last version. */
const REST_MS_MAX = 600_000;
/** A run takes at most so many times the time of its rounds. */
const PATIENCE = 4;

export interface RunOptions {
  readonly setting: Setting;
  readonly seats: Seats;
  readonly idle: Idle;
  readonly onPoint: OnPoint;
}

export interface Trained {
  readonly points: readonly Point[];
  readonly sums: Sums;
}

/** Throws BrokenRun when the relay fails, a replica differs from the ledger, or the run does not come to its end. */
export async function runFederated(options: RunOptions): Promise<Trained> {
  const { setting, seats, idle, onPoint } = options;
  const { arm, charter } = setting;
  const clock = createVirtualClock();
  const book = createBook(setting);
  const meter = createMeter((contributor, blob) => book.kindOf(contributor, blob));
  const machines: Machines = createMachines({
    setting,
    clock,
    network: () => network,
    seat: (owner) => seats.take(owner),
    onReplica: (replica) => book.compare(replica),
  });
  const megabit = 125_000;
  const ratesOf = ({ upMbitPerS, downMbitPerS }: Omit<Arm["links"], "delayMs">) => ({
    upBytesPerS: upMbitPerS * megabit,
    downBytesPerS: downMbitPerS * megabit,
  });
  const { slow } = arm;
  const isSlow = (process: Process): boolean => machines.numberOf(process) < (slow?.contributors ?? 0);
  const faults = { delayMsMax: arm.links.delayMs, breakShare: 0, duplicateShare: 0, failShare: 0 };
  const network: Network = createNetwork(clock, createRng("network", setting.seed), faults, {
    ratesOf: (process) => ratesOf(slow !== undefined && isSlow(process) ? slow.links : arm.links),
    weigh: createScale(),
    request: REQUEST,
    onCrossing: (crossing) => meter.note(machines.numberOf(crossing.process), crossing),
  });
  const points: Point[] = [];
  let unsaved = false;
  const add = (point: Point): void => {
    points.push(point);
    unsaved = true;
    onPoint(point);
  };
  const host = await startRelay(options, { clock, network, machines, meter, book, add });
  machines.start();

  /** Between two moments, when nothing else is under way. */
  const settle = async (): Promise<void> => {
    await idle.settle();
    if (unsaved) {
      unsaved = false;
      await seats.save();
    }
  };
  const { trainMs, graceMs, judgeMs } = charter.round;
  const last = (): Point | undefined => points.at(-1);
  const isOver = (): boolean =>
    book.failures.length > 0 ||
    (last()?.version ?? 0) >= arm.rounds ||
    (arm.tokensMax !== null && (last()?.tokens ?? 0) >= arm.tokensMax);
  await clock.run(PATIENCE * arm.rounds * (trainMs + graceMs + judgeMs), isOver, settle);
  const idleShare = machines.idle();
  machines.finish();
  const holdsHead = ({ contributor, alive }: ReturnType<Machines["contributors"]>[number]): boolean =>
    !alive || contributor.view().version === host.head().version;
  await clock.run(clock.nowMs() + REST_MS_MAX, () => machines.contributors().every(holdsHead), settle);
  const end = points.pop();
  if (end !== undefined) {
    // The last version is sent to everyone, too.
    points.push({ ...end, ...trafficOf(meter, setting) });
  }
  for (const { number, contributor, alive } of machines.contributors()) {
    const held = contributor.parameters();
    if (alive && held !== null) {
      const version = contributor.view().version ?? -1;
      book.compare({ contributor: number, version, digest: digestOf(floatBytes(new Float32Array(held))) });
    }
  }
  if (!isOver()) {
    book.failures.push(`the run stands at version ${last()?.version} of ${arm.rounds}; ${situation(machines)}`);
  }
  if (book.failures.length > 0) {
    throw new BrokenRun(`Arm "${arm.name}", seed ${setting.seed}: ${book.failures.join("; ")}`);
  }
  const { accepted, refused, skipped, replicasCompared } = book;
  const sums = {
    steps: machines.steps(),
    accepted,
    refused,
    skipped,
    idleShare,
    vanished: machines.vanished(),
    replicasCompared,
  };
  return { points, sums };
}

interface Parts {
  readonly clock: VirtualClock;
  readonly network: Network;
  readonly machines: Machines;
  readonly meter: Meter;
  readonly book: Book;
  readonly add: OnPoint;
}

/** The production host on the simulated network; adds a point for each version, the first included. */
async function startRelay({ setting, seats }: RunOptions, parts: Parts): Promise<CoordinatorHost> {
  const { clock, network, machines, meter, book, add } = parts;
  const { charter, seed, registry, initial } = setting;
  const disk = createMemoryDisk();
  for (const [digest, bytes] of setting.shards) {
    disk.blobs.set(digest, bytes);
  }
  const process = createProcess({ name: "relay", clock, disk, rng: createRng("disk", seed, "relay"), writeMsMax: 0 });
  const referee = await createJudge({ setting, seats, book });
  const drawing = createCoordinatorRng(seed);
  const point = ({ version, evalLoss, digest, accepted, refused }: RunView["versions"][number]): void =>
    add({
      version,
      tokens: book.tokens,
      timeMs: clock.nowMs(),
      loss: evalLoss,
      losses: book.losses.get(digest) ?? {},
      ...trafficOf(meter, setting),
      contributions: accepted + refused,
      refused,
      digest,
    });
  const host = await createCoordinatorHost({
    store: process.store,
    charter,
    clock,
    rng: drawing.rng,
    key: registry.create("relay", seed),
    verify: registry.verify,
    referee,
    openCrew: soloCrew(await loadMergeKernel()),
    initial: () => initial.slice(),
    onEntry: ({ event }) => {
      drawing.note(event);
      book.note(event);
      if (event.type === "opened") {
        machines.roundOpened(event.round);
      }
    },
    onVersion: point,
    onFailure: (error) => book.failures.push(`the relay failed: ${String(error)}`),
  });
  point(host.view().versions[0] as RunView["versions"][number]);
  network.listener = {
    process,
    attach: (link) => {
      const handlers = drawing.outside(() => host.attach(link));
      return { ...handlers, message: (bytes) => drawing.outside(() => handlers.message(bytes)) };
    },
    blob: async (digest) => (host.isPublic(digest) ? disk.blobs.get(digest) : undefined),
  };
  return host;
}

/** The relay's referee; it notes the losses of each source, too. */
async function createJudge({
  setting,
  seats,
  book,
}: Pick<RunOptions, "setting" | "seats"> & Pick<Parts, "book">): Promise<Referee> {
  const { arm, charter, train, evaluation } = setting;
  if (arm.work === "noise") {
    return { measure: async () => NOISE_LOSSES, evaluate: async () => NOISE_LOSSES.randomAfter };
  }
  const evaluator = await createEvaluator(seats.take("relay"), { model: charter.model, batch: charter.inner.batch });
  const referee = createReferee({ evaluator, charter, train, evaluation });
  return {
    measure: referee.measure,
    evaluate: async (params) => {
      book.losses.set(digestOf(floatBytes(params)), await lossesOf(evaluator, setting, params));
      return referee.evaluate(params);
    },
  };
}

function trafficOf(meter: Meter, { contributors }: Setting): Pick<Point, "up" | "down"> {
  return { up: meanTraffic(meter.up(), contributors.length), down: meanTraffic(meter.down(), contributors.length) };
}

/** The held-out loss of each source, where there are several. */
export async function lossesOf(
  evaluator: Evaluator,
  { charter, sources }: Setting,
  params: Float32Array,
): Promise<Record<string, number>> {
  const losses: Record<string, number> = {};
  for (const { name, heldOut } of sources.length > 1 ? sources : []) {
    losses[name] = await heldOutLoss(evaluator, { charter, evaluation: heldOut, params });
  }
  return losses;
}

/** What the ledger says, as it grows. */
interface Book {
  tokens: number;
  accepted: number;
  readonly refused: Record<string, number>;
  skipped: number;
  replicasCompared: number;
  readonly failures: string[];
  /** By digest of the version's parameters. */
  readonly losses: Map<Digest, Record<string, number>>;
  note(event: LedgerEvent): void;
  /** What a blob that a contributor asks for is to it: the second time, texts and checkpoints are a round's traffic. */
  kindOf(contributor: number, blob: Digest): "joining" | "updates" | "judging";
  compare(replica: { readonly contributor: number; readonly version: number; readonly digest: Digest }): void;
}

function createBook({ shards }: Setting): Book {
  const tokens = new Map<string, number>();
  const versions: Digest[] = [];
  const [checkpoints, updates] = [new Set<Digest>(), new Set<Digest>()];
  /** What each contributor has had: its texts, and "checkpoint" for the first of these. */
  const had = new Map<number, Set<Digest | "checkpoint">>();
  const book: Book = {
    tokens: 0,
    accepted: 0,
    refused: {},
    skipped: 0,
    replicasCompared: 0,
    failures: [],
    losses: new Map(),
    note: (event) => {
      switch (event.type) {
        case "started":
        case "merged":
          versions[event.head.version] = event.head.digest;
          checkpoints.add(event.head.digest);
          if (event.head.update !== null) {
            updates.add(event.head.update.digest);
          }
          if (event.type === "merged") {
            book.tokens += event.contributions.reduce((sum, id) => sum + (tokens.get(id) ?? 0), 0);
            book.accepted += event.contributions.length;
            tokens.clear();
          }
          return;
        case "contributed": {
          const header = decodeHeader(event.header);
          tokens.set(event.contribution, header.ok ? header.value.tokens : 0);
          return;
        }
        case "judged":
          if (event.verdict.type === "refused") {
            const { reason } = event.verdict;
            book.refused[reason] = (book.refused[reason] ?? 0) + 1;
          }
          return;
        case "skipped":
          book.skipped += 1;
          return;
        default:
      }
    },
    kindOf: (contributor, blob) => {
      if (!shards.has(blob) && !checkpoints.has(blob)) {
        return updates.has(blob) ? "updates" : "judging";
      }
      const own = had.get(contributor) ?? new Set();
      had.set(contributor, own);
      const what = checkpoints.has(blob) ? "checkpoint" : blob;
      const again = own.has(what);
      own.add(what);
      return again ? "updates" : "joining";
    },
    compare: ({ contributor, version, digest }) => {
      book.replicasCompared += 1;
      if (versions[version] !== digest) {
        book.failures.push(
          `contributor ${contributor} holds ${digest} as version ${version}, not ${versions[version]}`,
        );
      }
    },
  };
  return book;
}

/** Where everybody stands, for the person who looks at a run that went wrong. */
function situation(machines: Machines): string {
  return machines
    .contributors()
    .map(({ number, contributor, alive }) => {
      const { status, version, sentence } = contributor.view();
      return `contributor ${number}${alive ? "" : " (away)"}: ${status} at version ${version}, "${sentence}"`;
    })
    .join("; ");
}
