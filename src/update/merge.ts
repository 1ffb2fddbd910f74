/**
 * Merging the updates of a round: per parameter the weighted mean over those who sent it. Dividing by the senders rather
 * than by all contributors is what the shipped SparseLoCo code does and what makes sparse updates work: few indices are
 * sent twice, and dividing them by everybody would shrink the step by their number. Each update is first clipped to a
 * multiple of the round's median norm, so that one contributor cannot outweigh the others by shouting.
 *
 * The order is fixed by id, not by arrival, and the mean is updated sender by sender, so that a parameter with one sender
 * gets exactly the value sent. `twin.ts` is the same in plain words, with the same bits.
 *
 * Updates stay packed: a kernel decodes them as it averages, chunk by chunk of 4,096 parameters, so that sums stay in the
 * processor's cache. Its memory holds 8 bytes a parameter and a group of payloads; where they do not fit in one group, 8
 * bytes more for the weights that one group leaves to the next.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { CHUNK, chunksOf } from "./format.ts";
import type { MergeKernel } from "./kernel.ts";

export interface PackedContribution {
  /** Unique in the round; decides the order of summation. */
  readonly id: string;
  /** Positive and finite, for example the number of tokens trained on. */
  readonly weight: number;
  /** Euclidean norm of the update. */
  readonly norm: number;
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
  /** Whether the merged delta is stretched to the weighted mean norm of the clipped updates. */
  readonly radial: boolean;
  /** Packed updates held at a time; a larger one is held alone. */
  readonly packedBytesMax?: number;
}

/** Bytes of packed updates that are held at a time, for each parameter and at least: 200 contributions of 64 in 4,096. */
const PACKED_BYTES_PER_PARAMETER = 4;
const PACKED_BYTES_MIN = 1_048_576;

const PAGE_BYTES = 65_536;
/** What a 32-bit memory can have. */
const MEMORY_BYTES_MAX = 65_536 * PAGE_BYTES;
const MEAN_BYTES = 8;
/** A mean and its weight. */
const PAIR_BYTES = 16;
const ALIGNMENT = 16;
/** Room for what is not as large as the model: the module, cursors, a chunk's pairs, padding. */
const OTHER_BYTES = 16 * 1_048_576;

/**
 * The merged delta [P]; zero where nobody sent anything. It lies in the kernel's memory until that merges again, and a kernel
 * merges one round at a time. Rejects with HeddleError "integrity" when a packed update is damaged (not every damage is seen
 * here), "limit" when the memory does not suffice.
 */
export async function mergePacked(
  kernel: MergeKernel,
  contributions: readonly PackedContribution[],
  { parameters, clipToMedian, radial, packedBytesMax }: MergeOptions,
): Promise<Float64Array<ArrayBuffer>> {
  const sorted = inOrder(contributions);
  const scales = clipScales(
    sorted.map(({ norm }) => norm),
    clipToMedian,
  );
  const packedMax = packedBytesMax ?? groupBytesMax(parameters);
  const groups = groupsOf(sorted, packedMax);
  const { pairs, stride, mean, cursors, payloads } = layOut(kernel, groups, parameters);
  let merged = 0;
  for (const [number, group] of groups.entries()) {
    let payload = payloads;
    for (const [i, { id, bytes, weight, read }] of group.entries()) {
      const packed = await read();
      const cursor = cursors + i * kernel.CURSOR_BYTES.value;
      const scale = present(scales[merged + i], "scale");
      if (packed.length === bytes) {
        new Uint8Array(kernel.memory.buffer, payload, bytes).set(packed);
      }
      if (packed.length !== bytes || kernel.open(cursor, payload, bytes, parameters, weight, scale) === 0) {
        throw damaged(id);
      }
      payload += roomOf(bytes);
    }
    const ends = number === groups.length - 1;
    const failed = kernel.merge(cursors, group.length, parameters, pairs, stride, mean, number === 0, ends);
    if (failed !== -1) {
      throw damaged(group[failed]?.id ?? "");
    }
    merged += group.length;
  }
  const delta = new Float64Array(kernel.memory.buffer, mean, parameters);
  if (radial) {
    const clipped = sorted.map(({ norm, weight }, i) => ({ norm: norm * (scales[i] as number), weight }));
    stretch(delta, clipped);
  }
  return delta;
}

/** Bytes of packed updates held at a time: one group where weights and sums of several do not fit the memory. */
function groupBytesMax(parameters: number): number {
  const all = packedBytesMaxOf(parameters);
  return all < Infinity ? all : Math.max(PACKED_BYTES_MIN, parameters * PACKED_BYTES_PER_PARAMETER);
}

/** Bytes that all packed updates of a round may have together; infinite where they are merged in groups. */
export function packedBytesMaxOf(parameters: number): number {
  const grouped = parameters * (PAIR_BYTES + PACKED_BYTES_PER_PARAMETER) + OTHER_BYTES <= MEMORY_BYTES_MAX;
  return grouped ? Number.POSITIVE_INFINITY : MEMORY_BYTES_MAX - parameters * MEAN_BYTES - OTHER_BYTES;
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

/** What to multiply updates by so that their norms are at most `clipToMedian` times the median norm; 1 when that is 0. */
export function clipScales(norms: readonly number[], clipToMedian: number): number[] {
  const normMax = clipToMedian * medianNorm(norms);
  return norms.map((norm) => (normMax > 0 && norm > normMax ? normMax / norm : 1));
}

/** Multiplies `delta` [P] by what gives it the weighted mean of the norms; a delta of zeros stays. */
export function stretch(delta: Float64Array, parts: readonly Pick<PackedContribution, "norm" | "weight">[]): void {
  const weights = parts.reduce((sum, { weight }) => sum + weight, 0);
  const wanted = parts.reduce((sum, { norm, weight }) => sum + norm * (weight / weights), 0);
  const has = Math.sqrt(delta.reduce((sum, value) => sum + value * value, 0));
  if (has > 0) {
    const factor = wanted / has;
    for (let i = 0; i < delta.length; i += 1) {
      delta[i] = (delta[i] as number) * factor;
    }
  }
}

/**
 * The median of the norms that are not zero, of two middle ones the smaller: with two contributors the quieter one counts.
 * 0 when there is none.
 */
export function medianNorm(norms: readonly number[]): number {
  const sorted = norms.filter((norm) => norm > 0).sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? 0;
}

/** Cut in order so that each group's payloads have room in `packedMax` bytes; at least one group, which may be empty. */
function groupsOf(sorted: readonly PackedContribution[], packedMax: number): PackedContribution[][] {
  let group: PackedContribution[] = [];
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

function roomOf(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Addresses of all that a merge needs, in a memory that is large enough. */
function layOut(kernel: MergeKernel, groups: readonly PackedContribution[][], parameters: number) {
  const slots = chunksOf(parameters) * CHUNK;
  const mean = roomOf(kernel.heapBegin());
  // The pairs of one chunk, used anew for each, or those of all, in whose place the means come in the end.
  const alone = groups.length === 1;
  const pairs = alone ? mean + slots * MEAN_BYTES : mean;
  const stride = alone ? 0 : CHUNK * PAIR_BYTES;
  const cursors = pairs + (alone ? CHUNK : slots) * PAIR_BYTES;
  const payloads = cursors + Math.max(...groups.map(({ length }) => length)) * kernel.CURSOR_BYTES.value;
  const packed = groups.map((group) => group.reduce((sum, { bytes }) => sum + roomOf(bytes), 0));
  const end = payloads + Math.max(...packed) + kernel.READ_AHEAD.value;
  const missing = end - kernel.memory.buffer.byteLength;
  try {
    assert(end <= MEMORY_BYTES_MAX, `its addresses end at ${MEMORY_BYTES_MAX}`);
    if (missing > 0) {
      kernel.memory.grow(Math.ceil(missing / PAGE_BYTES));
    }
  } catch (error) {
    throw new HeddleError(
      "limit",
      `Cannot merge updates of ${parameters} parameters: it takes ${end} bytes of memory, which are not there`,
      { cause: error },
    );
  }
  return { pairs, stride, mean, cursors, payloads };
}

function damaged(id: string): HeddleError {
  return new HeddleError("integrity", `Cannot merge updates: the payload of "${id}" is damaged`);
}
