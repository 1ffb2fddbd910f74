/**
 * Who makes a step from a version to the next: workers, each with a contiguous range of whole chunks of 4,096 parameters. A relay
 * has threads (`relay/merge-crew.ts`); whoever has time enough, the same work on the thread it has (`solo.ts`). The bits of a
 * step do not depend on how many workers there are.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import type { Compression } from "../protocol/charter.ts";
import { CHUNK, chunksOf } from "./format.ts";
import type { OuterSettings, ServerState } from "./outer.ts";
import type { Counted, PackedChunks } from "./pack.ts";

/** Workers of a crew. */
export const WORKERS_MAX = 16;

/** Parameters `from` … `to` (exclusive) of P: whole chunks, but for the model's last. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** The shared base: parameters [P] and the outer optimiser's state. */
export interface Base {
  readonly params: Float32Array;
  readonly server: ServerState;
}

/** What a packed update has of a range: the bits of its chunks, and behind them their exact values. */
export interface Piece {
  readonly bytes: Bytes;
  /** The first bit, 0 … 7, and how many they are; the update's last piece has the padding, too. */
  readonly from: number;
  readonly bitLength: number;
  /** Where in `bytes` the exact values are. */
  readonly exactAt: number;
  readonly entries: number;
  /** Of the update's header. */
  readonly keep: number;
  readonly bits: number;
}

/** Why a worker cannot go on: the payload is damaged, or its memory does not suffice. */
export type Trouble = "damaged" | "limit";

/** How a payload is merged: which of its group it is, counting from 0, and how many times its values count. */
export interface Place {
  readonly number: number;
  readonly scale: number;
}

/** P and the first parameters of all ranges, of which the worker's own is number `own`. */
export interface Cuts {
  readonly parameters: number;
  readonly starts: readonly number[];
  readonly own: number;
}

export interface MergeTask extends Range {
  /** Payloads that are merged at a time, at most. */
  readonly payloadsMax: number;
}

export interface StepTask {
  readonly before: Base;
  /** The arrays of the next version, into which each worker writes its range. */
  readonly next: Base;
  readonly outer: OuterSettings;
  readonly downlink: Compression;
  /** The merged delta counts this many times. */
  readonly factor: number;
}

/**
 * What a worker does of a step, in this order: `begin`; for each group of payloads `cut` of its share of them and `load` of its
 * pieces of the others, then `merge`; `squares` where it is asked for; `advance`; `pack`.
 */
export interface RangeWorker {
  /** Takes over a range. False: its memory does not suffice. */
  begin(task: MergeTask): Async<boolean>;
  /** Cuts a packed update, loads its own piece and returns those of the others, null in place of its own. */
  cut(payload: Bytes, cuts: Cuts, place: Place): Async<readonly (Piece | null)[] | Trouble>;
  /** Takes its piece of a payload. False: its memory does not suffice. */
  load(piece: Piece, place: Place): Async<boolean>;
  /** Merges the group of `count` payloads; returns −1, or the number of one that is damaged. */
  merge(group: { readonly count: number; readonly begins: boolean }): Async<number>;
  /** `sum` and the squares of the range's merged deltas, added to it one after the other. */
  squares(sum: number): Async<number>;
  /** The outer step; says what the broadcast will send of the range. */
  advance(task: StepTask): Async<Counted>;
  /** The range's part of a broadcast whose fullest chunk has `keep` entries; it is applied to the next base, and settled. */
  pack(keep: number): Async<PackedChunks>;
}

type Async<T> = T | Promise<T>;

/** Memory that all workers of a crew see. */
export interface Memory {
  /** So many bytes, of any content. Throws HeddleError "limit". */
  take(bytes: number): ArrayBufferLike;
  /** Nobody reads these any more. */
  give(buffer: ArrayBufferLike): void;
}

/** Bytes to be stored, and their digest where it is known. */
export interface Sealed {
  readonly bytes: Bytes;
  readonly digest?: Digest;
}

/** A crew makes one step at a time. */
export interface Crew {
  /** 1 to WORKERS_MAX. */
  readonly workers: readonly RangeWorker[];
  readonly memory: Memory;
  /** A whole buffer of the memory as bytes that can be stored. */
  seal(bytes: Uint8Array): Async<Sealed>;
}

/** Each call gives a crew of its own, or one that nobody else uses. */
export type OpenCrew = () => Crew;

/** What `allocate` gives; HeddleError "limit" where the machine has not so many `bytes`. */
export function taken<B extends ArrayBufferLike>(bytes: number, allocate: () => B): B {
  try {
    return allocate();
  } catch (error) {
    throw new HeddleError("limit", `Cannot merge updates: ${bytes} bytes of memory are not there`, { cause: error });
  }
}

/** Cuts P `parameters` into at most `count` ranges of about as many chunks. */
export function rangesOf(parameters: number, count: number): Range[] {
  const chunks = chunksOf(parameters);
  const ranges = Math.min(count, chunks);
  const end = (i: number): number => Math.min(parameters, Math.floor((i * chunks) / ranges) * CHUNK);
  return Array.from({ length: ranges }, (_, i) => ({ from: end(i), to: end(i + 1) }));
}
