/**
 * One range's share of a step, whoever does it on whatever thread: decoding and averaging in the kernel (`kernel.ts`), then the
 * outer step, the broadcast's bits and the next base. `crew.ts` says in which order the methods are called.
 *
 * The kernel's memory holds 8 bytes a parameter of the range and the pieces of a group of payloads. A payload that is cut lies behind
 * them for a moment.
 */
import { assert, present } from "../base/assert.ts";
import { concatBytes, type Bytes } from "../base/bytes.ts";
import type { Compression } from "../protocol/charter.ts";
import type { Base, Cuts, MergeTask, Piece, Place, RangeWorker, StepTask, Trouble } from "./crew.ts";
import { applyTo } from "./delta.ts";
import { settle } from "./feedback.ts";
import { CHUNK, chunksOf, HEADER_BYTES, type Header } from "./format.ts";
import type { MergeKernel } from "./kernel.ts";
import { MEMORY_BYTES_MAX, PAGE_BYTES, roomOf, SUM_BYTES } from "./merge.ts";
import { advanceOuter } from "./outer.ts";
import { countEntries, packChunks, type Counted, type PackedChunks } from "./pack.ts";
import { readHeader, unpackChunks } from "./unpack.ts";

/** Addresses in the kernel's memory. */
interface Layout {
  readonly task: MergeTask;
  readonly sums: number;
  readonly cursors: number;
  readonly payloads: number;
}

/** What `pack` needs of `advance`. */
interface Advanced {
  readonly residual: Float64Array;
  readonly before: Float32Array;
  readonly params: Float32Array;
  readonly downlink: Compression;
  readonly entries: number;
}

export class RangeWork implements RangeWorker {
  readonly #kernel: MergeKernel;
  #layout: Layout | null = null;
  /** The first address behind the pieces that are loaded. */
  #end = 0;
  #advanced: Advanced | null = null;

  constructor(kernel: MergeKernel) {
    this.#kernel = kernel;
  }

  begin(task: MergeTask): boolean {
    const { from, to, payloadsMax } = task;
    const sums = roomOf(this.#kernel.heapBegin());
    const cursors = sums + chunksOf(to - from) * CHUNK * SUM_BYTES;
    const payloads = cursors + payloadsMax * this.#kernel.CURSOR_BYTES.value;
    this.#layout = { task, sums, cursors, payloads };
    this.#end = payloads;
    this.#advanced = null;
    return this.#reserve(payloads);
  }

  cut(payload: Bytes, { parameters, starts, own }: Cuts, place: Place): readonly (Piece | null)[] | Trouble {
    const header = readHeader(payload, { parameters, keepMax: CHUNK });
    if (!header.ok) {
      return "damaged";
    }
    const marks = this.#findMarks(payload, header.value, starts);
    if (typeof marks === "string") {
      return marks;
    }
    const pieces = marks.slice(1).map((end, i) => pieceOf(payload, header.value, { begin: marks[i] as Mark, end }));
    if (!this.load(present(pieces[own], "piece of its own"), place)) {
      return "limit";
    }
    return pieces.map((piece, i) => (i === own ? null : piece));
  }

  /** Where the ranges begin in the payload's bits, and where the last one ends. */
  #findMarks(payload: Bytes, header: Header, starts: readonly number[]): Mark[] | Trouble {
    const kernel = this.#kernel;
    const { entries, keep, bits } = header;
    const bodyBits = (payload.length - tailBytes(header)) * 8;
    const first = HEADER_BYTES * 8;
    const [begin, last] = [
      { bit: first, left: entries },
      { bit: bodyBits, left: 0 },
    ];
    if (starts.length === 1) {
      return [begin, last];
    }
    const cursor = this.#end;
    const place = cursor + kernel.CURSOR_BYTES.value;
    if (!this.#reserve(place + payload.length)) {
      return "limit";
    }
    new Uint8Array(kernel.memory.buffer, place, payload.length).set(payload);
    kernel.open(cursor, place + HEADER_BYTES, 0, bodyBits - first, place, entries, keep, bits, 1);
    const marks: Mark[] = [begin];
    for (let i = 1; i < starts.length; i += 1) {
      if (kernel.skip(cursor, ((starts[i] as number) - (starts[i - 1] as number)) / CHUNK) === 0) {
        return "damaged";
      }
      marks.push({ bit: kernel.bitOf(cursor) - place * 8, left: kernel.leftOf(cursor) });
    }
    return [...marks, last];
  }

  load(piece: Piece, { number, scale }: Place): boolean {
    const { cursors } = this.#begun();
    const { bytes, from, bitLength, exactAt, entries, keep, bits } = piece;
    const place = this.#end;
    const end = place + roomOf(bytes.length);
    if (!this.#reserve(end)) {
      return false;
    }
    new Uint8Array(this.#kernel.memory.buffer, place, bytes.length).set(bytes);
    const cursor = cursors + number * this.#kernel.CURSOR_BYTES.value;
    this.#kernel.open(cursor, place, from, bitLength, place + exactAt, entries, keep, bits, scale);
    this.#end = end;
    return true;
  }

  merge({ count, begins }: { readonly count: number; readonly begins: boolean }): number {
    const { task, sums, cursors, payloads } = this.#begun();
    assert(count <= task.payloadsMax, `Cannot merge updates: got ${count} at once, need at most ${task.payloadsMax}`);
    const failed = this.#kernel.merge(cursors, count, task.to - task.from, sums, begins);
    this.#end = payloads;
    return failed;
  }

  /** The range's merged deltas; they lie in the kernel's memory until it merges again. */
  means(): Float64Array {
    const { task, sums } = this.#begun();
    return new Float64Array(this.#kernel.memory.buffer, sums, task.to - task.from);
  }

  squares(sum: number): number {
    let total = sum;
    for (const value of this.means()) {
      total += value * value;
    }
    return total;
  }

  advance({ before, next, outer, downlink, factor }: StepTask): Counted {
    const { from, to } = this.#begun().task;
    const merged = this.means();
    advanceOuter(partOf(before, from, to), partOf(next, from, to), merged, { outer, beta: downlink.beta, factor });
    const residual = next.server.residual.subarray(from, to);
    const counted = countEntries(residual, downlink);
    this.#advanced = {
      residual,
      before: before.params.subarray(from, to),
      params: next.params.subarray(from, to),
      downlink,
      entries: counted.entries,
    };
    return counted;
  }

  pack(keep: number): PackedChunks {
    const { residual, before, params, downlink, entries } = present(this.#advanced, "an outer step taken");
    const { bits } = downlink;
    const part = packChunks(residual, { keep, bits });
    const update = unpackChunks(part, { parameters: residual.length, keep, bits, entries });
    settle(residual, update);
    params.set(before);
    applyTo(params, update);
    this.#advanced = null;
    return part;
  }

  #begun(): Layout {
    return present(this.#layout, "a merge that has begun");
  }

  /** Makes the memory as large as `end` needs; false where it is not there. */
  #reserve(end: number): boolean {
    const { memory, READ_AHEAD } = this.#kernel;
    const need = end + READ_AHEAD.value;
    const missing = need - memory.buffer.byteLength;
    if (need > MEMORY_BYTES_MAX) {
      return false;
    }
    try {
      if (missing > 0) {
        memory.grow(Math.ceil(missing / PAGE_BYTES));
      }
      return true;
    } catch (error) {
      assert(error instanceof RangeError, `Cannot grow the merge's memory: ${String(error)}`);
      return false;
    }
  }
}

/** A place in a payload: the next bit, counted from its first byte, and the entries that follow. */
interface Mark {
  readonly bit: number;
  readonly left: number;
}

/** What lies between two marks; a copy where bits and exact values are not next to each other. */
function pieceOf(payload: Bytes, header: Header, { begin, end }: { readonly begin: Mark; readonly end: Mark }): Piece {
  const { bits, keep, entries } = header;
  const [first, last] = [Math.floor(begin.bit / 8), Math.ceil(end.bit / 8)];
  const exact = payload.length - tailBytes(header);
  const valueBytes = bits === 64 ? 8 : 0;
  const [valuesFrom, valuesTo] = [begin, end].map(({ left }) => exact + (entries - left) * valueBytes);
  const bytes =
    valuesFrom === last
      ? payload.subarray(first, valuesTo)
      : concatBytes([payload.subarray(first, last), payload.subarray(valuesFrom, valuesTo)]);
  const [from, bitLength] = [begin.bit % 8, end.bit - begin.bit];
  return { bytes, from, bitLength, exactAt: last - first, entries: begin.left - end.left, keep, bits };
}

/** Bytes of exact values at the end of a packed update. */
function tailBytes({ bits, entries }: Header): number {
  return bits === 64 ? entries * 8 : 0;
}

/** The range's part of the outer state. */
function partOf({ server: { residual, momentum } }: Base, from: number, to: number) {
  return { residual: residual.subarray(from, to), momentum: momentum?.subarray(from, to) ?? null };
}
