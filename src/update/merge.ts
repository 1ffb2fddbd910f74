/**
 * Merging the updates of a round: the weighted mean of all of them, in which what an update does not send is zero. So a value that
 * many send counts more than one that a single contributor's noise made large. Each update is first clipped to a
 * multiple of the round's median norm, so that one contributor cannot outweigh the others by shouting; one of more steps than the
 * median may be larger in proportion, so that a fast device is not held to what a slow one beside it comes to.
 *
 * The order is fixed by id, not by arrival, and one update alone is merged as it is. `twin.ts` is the same in plain words, with
 * the same bits.
 *
 * Updates stay packed: workers decode them as they average, each its own range, chunk by chunk of 4,096 parameters, so that sums
 * stay in the processor's cache (`range.ts`). A payload is cut into the workers' pieces by one of them, in turn. All workers together
 * hold 8 bytes a parameter, and a group of payloads.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { usualOf } from "../protocol/yardstick.ts";
import { rangesOf, type Crew, type RangeWorker } from "./crew.ts";

export interface PackedContribution {
  /** Unique in the round; decides the order of summation. */
  readonly id: string;
  /** Positive and finite, for example the number of tokens trained on. */
  readonly weight: number;
  /** Euclidean norm of the update. */
  readonly norm: number;
  /** Inner steps that made it; as many as anybody's where nothing is said. */
  readonly steps?: number;
  /** Made on data that others cannot measure: its size is no measure for others. */
  readonly privateData?: boolean;
  /** Length of the packed update. */
  readonly bytes: number;
  /** The packed update, which `unpackUpdate` has accepted before; asked for once. */
  readonly read: () => Promise<Bytes>;
}

export interface MergeOptions {
  /** P. */
  readonly parameters: number;
  /** Largest norm as a multiple of the median norm; 0 switches clipping off. */
  readonly clipToMedian: number;
  /** Whole power of the clipped norm that weights go with; 0: none. */
  readonly normPower: number;
  /** How far the merged delta is stretched from its own norm to the weighted mean norm of the clipped updates, 0 to 1. */
  readonly stretch: number;
  /** Packed updates held at a time; a larger one is held alone. */
  readonly packedBytesMax?: number;
}

/** Bytes of packed updates that are held at a time, for each parameter and at least: 200 contributions of 64 in 4,096. */
const PACKED_BYTES_PER_PARAMETER = 4;
const PACKED_BYTES_MIN = 1_048_576;

export const PAGE_BYTES = 65_536;
/** What a 32-bit memory can have. */
export const MEMORY_BYTES_MAX = 65_536 * PAGE_BYTES;
export const SUM_BYTES = 8;
const ALIGNMENT = 16;

/** A round's updates, merged: each worker that has a range holds its part of the delta, which is zero where nobody sent anything. */
export interface Merged {
  readonly workers: readonly RangeWorker[];
  /** Norms, clipped, and weights of what was merged, for `stretchFactor`. */
  readonly parts: readonly Pick<PackedContribution, "norm" | "weight">[];
}

/**
 * Merges the updates of a round. Rejects with HeddleError "integrity" when a packed update is damaged (not every damage is seen
 * here), "limit" when a worker's memory does not suffice.
 */
export async function mergePacked(
  crew: Pick<Crew, "workers">,
  contributions: readonly PackedContribution[],
  { parameters, packedBytesMax, ...counting }: Omit<MergeOptions, "stretch">,
): Promise<Merged> {
  const sorted = inOrder(contributions);
  const parts = countsOf(sorted, counting);
  const total = parts.reduce((sum, { weight }) => sum + weight, 0);
  const scaled = sorted.map((each, i): Scaled => {
    const { scale, weight } = present(parts[i], "count of an update");
    return { ...each, scale: scale * (weight / total) };
  });
  const groups = groupsOf(scaled, packedBytesMax ?? groupBytesMax(parameters));
  const ranges = rangesOf(parameters, crew.workers.length);
  const workers = crew.workers.slice(0, ranges.length);
  const payloadsMax = Math.max(...groups.map(({ length }) => length));
  const begun = await Promise.all(
    ranges.map(async (range, i) => present(workers[i], "worker of a range").begin({ ...range, payloadsMax })),
  );
  if (begun.includes(false)) {
    throw exhausted(parameters);
  }
  const starts = ranges.map(({ from }) => from);
  for (const [number, group] of groups.entries()) {
    await loadGroup(workers, group, { parameters, starts });
    const failed = await Promise.all(
      workers.map(async (worker) => worker.merge({ count: group.length, begins: number === 0 })),
    );
    const first = failed.filter((at) => at !== -1).sort((a, b) => a - b)[0];
    if (first !== undefined) {
      throw damaged(group[first]?.id ?? "");
    }
  }
  return { workers, parts };
}

interface Scaled extends PackedContribution {
  /** How many times its values count: what the clipping multiplies them by, times its share of all weights. */
  readonly scale: number;
}

/** Reads a group's payloads, as many at a time as there are workers: each cuts every so-many-th one for all of them. */
async function loadGroup(
  workers: readonly RangeWorker[],
  group: readonly Scaled[],
  { parameters, starts }: { readonly parameters: number; readonly starts: readonly number[] },
): Promise<void> {
  const lane = async (cutter: RangeWorker, own: number): Promise<void> => {
    for (let number = own; number < group.length; number += workers.length) {
      const { id, bytes, read, scale } = present(group[number], "contribution");
      const payload = await read();
      if (payload.length !== bytes) {
        throw damaged(id);
      }
      const place = { number, scale };
      const pieces = await cutter.cut(payload, { parameters, starts, own }, place);
      if (typeof pieces === "string") {
        throw pieces === "limit" ? exhausted(parameters) : damaged(id);
      }
      const loaded = await Promise.all(
        workers.map(async (worker, i) => i === own || worker.load(present(pieces[i], "piece"), place)),
      );
      if (loaded.includes(false)) {
        throw exhausted(parameters);
      }
    }
  };
  // All of them end before anybody is told, so that no worker is at work on what was given up.
  const lanes = await Promise.allSettled(workers.map(lane));
  for (const each of lanes) {
    if (each.status === "rejected") {
      throw each.reason;
    }
  }
}

/** Bytes of packed updates that are held at a time. */
export function groupBytesMax(parameters: number): number {
  return Math.max(PACKED_BYTES_MIN, parameters * PACKED_BYTES_PER_PARAMETER);
}

/** By id, after a look at ids and weights. */
export function inOrder<T extends Pick<PackedContribution, "id" | "weight">>(contributions: readonly T[]): T[] {
  const sorted = contributions.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  for (const [at, { id, weight }] of sorted.entries()) {
    assert(at === 0 || sorted[at - 1]?.id !== id, `Cannot merge updates: id "${id}" occurs twice`);
    assert(
      weight > 0 && weight < Infinity,
      `Cannot merge updates: the weight of "${id}" is ${weight}, need more than 0`,
    );
  }
  return sorted;
}

/** How an update counts among its round's. */
interface Count {
  /** What its clipping multiplies it by. */
  readonly scale: number;
  /** After that. */
  readonly norm: number;
  /** What it is given, times a power of this norm: as a share of the largest, which nothing overflows. */
  readonly weight: number;
}

export function countsOf(
  updates: readonly Pick<PackedContribution, "norm" | "weight" | "steps" | "privateData">[],
  { clipToMedian, normPower }: Pick<MergeOptions, "clipToMedian" | "normPower">,
): Count[] {
  const scales = clipScales(updates, clipToMedian);
  const norms = updates.map(({ norm }, i) => norm * (scales[i] as number));
  const most = norms.reduce((largest, norm) => Math.max(largest, norm), 0);
  return updates.map(({ weight }, i): Count => {
    const norm = norms[i] as number;
    const share = most > 0 ? norm / most : 1;
    let power = 1;
    for (let n = 0; n < normPower; n += 1) {
      power *= share; // `**` may round differently elsewhere
    }
    return { scale: scales[i] as number, norm, weight: weight * power };
  });
}

/**
 * What to multiply updates by so that their norms are at most `clipToMedian` times the usual norm, or in proportion more where their
 * steps are more than usual; 1 when that is 0.
 */
export function clipScales(
  parts: readonly Pick<PackedContribution, "norm" | "steps" | "privateData">[],
  clipToMedian: number,
): number[] {
  const moving = parts.filter(({ norm }) => norm > 0); // with two contributors the quieter one counts, and nothing is no measure
  const median = clipToMedian * usualOf(moving, ({ norm }) => norm);
  const usual = usualOf(parts, ({ steps = 1 }) => steps);
  return parts.map(({ norm, steps = 1 }) => {
    const normMax = median * Math.max(1, steps / usual);
    return normMax > 0 && norm > normMax ? normMax / norm : 1;
  });
}

/** What leads a delta with this sum of `squares` by `stretch` of the way to the weighted mean of the norms of its `parts`; 1 for a delta of zeros. */
export function stretchFactor(squares: number, parts: Merged["parts"], stretch: number): number {
  const weights = parts.reduce((sum, { weight }) => sum + weight, 0);
  const wanted = parts.reduce((sum, { norm, weight }) => sum + norm * (weight / weights), 0);
  const has = Math.sqrt(squares);
  return has > 0 ? stretch * (wanted / has) + (1 - stretch) : 1;
}

/** Cut in order so that each group's payloads have room in `packedMax` bytes; at least one group, which may be empty. */
function groupsOf(sorted: readonly Scaled[], packedMax: number): Scaled[][] {
  let group: Scaled[] = [];
  const groups = [group];
  let used = 0;
  for (const contribution of sorted) {
    const room = roomOf(contribution.bytes);
    if (group.length > 0 && used + room > packedMax) {
      group = [];
      groups.push(group);
      used = 0;
    }
    group.push(contribution);
    used += room;
  }
  return groups;
}

/** Bytes that `bytes` take where others follow. */
export function roomOf(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function damaged(id: string): HeddleError {
  return new HeddleError("integrity", `Cannot merge updates: the payload of "${id}" is damaged`);
}

function exhausted(parameters: number): HeddleError {
  const why = `a worker's memory does not suffice, or would have to be larger than ${MEMORY_BYTES_MAX} bytes`;
  return new HeddleError("limit", `Cannot merge updates of ${parameters} parameters: ${why}`);
}
