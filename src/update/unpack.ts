/**
 * Unpacks and checks an update from anywhere: whatever the bytes, the answer is an update or a reason. Nothing is allocated
 * before the header is known to be within the limits and the packet long enough for what it announces, and of all packings
 * of an update only one is accepted (`format.ts` lists what that means), so that equal updates have equal digests. What the values do to the model is for others to judge.
 */
import { assert } from "../base/assert.ts";
import type { Compression } from "../protocol/charter.ts";
import type { Checked } from "../protocol/verdict.ts";
import { accept, refuse } from "../protocol/verdict.ts";
import { alignReader, type BitReader, createBitReader, overrun, takeBits, takeUnary } from "./bits.ts";
import {
  CHUNK,
  chunksOf,
  FIRST_BITS,
  FORMAT_VERSION,
  type Header,
  HEADER_BYTES,
  MAGIC,
  RICE_BITS,
  STEP_BITS,
  VALUE_BITS_MAX,
  VALUE_MAX,
  widthOf,
} from "./format.ts";
import { CLASS_MAX, CLASS_MIN, magnitudeOf } from "../tensor/magnitude.ts";
import type { PackedChunks } from "./pack.ts";
import { isBestRice } from "./rice.ts";

/** Some entries of an update [P]: `values[i]` belongs to parameter `indices[i]`; indices ascend. */
export interface SparseUpdate {
  /** P. */
  readonly parameters: number;
  readonly indices: Uint32Array<ArrayBuffer>;
  /** Float32Array for 1 to 4 bits a value, Float64Array for 64. */
  readonly values: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
}

export interface UnpackLimits {
  /** P, which the update must have exactly. */
  readonly parameters: number;
  /** Most entries in a chunk. */
  readonly keepMax: number;
  /** Longest packet; without it the other two limits bound what is allocated. */
  readonly bytesMax?: number;
  /** The form it must have, when only one is allowed. */
  readonly bits?: Compression["bits"];
}

/**
 * The update in `bytes`, or why it is refused: "oversized" (beyond the limits), "truncated", "not-finite" (a value that f32
 * cannot hold), "malformed" (anything else). Never throws; allocates at most 12 bytes an entry, at most keepMax entries a
 * chunk, and at most 8 entries for each byte received.
 */
export function unpackUpdate(bytes: Uint8Array, limits: UnpackLimits): Checked<SparseUpdate> {
  const header = readHeader(bytes, limits);
  if (!header.ok) {
    return header;
  }
  const { bits, parameters, entries, keep } = header.value;
  const tail = bits === 64 ? entries * 8 : 0;
  const [body, exact] = [bytes.subarray(0, bytes.length - tail), bytes.subarray(bytes.length - tail)];
  const chunks = readChunks(createBitReader(body, HEADER_BYTES), exact, header.value);
  if (!chunks.ok) {
    return chunks;
  }
  const { update, largest } = chunks.value;
  if (bits === 64 ? keep > parameters : largest !== keep) {
    return refuse("malformed", "Cannot unpack update: no chunk has as many entries as its header says");
  }
  return accept(update);
}

/** What `chunks` of an update say, whole ones of the form and with as many entries as told; ours, so anything else is a bug. */
export function unpackChunks({ bits, exact }: PackedChunks, form: ChunkForm): SparseUpdate {
  const chunks = readChunks(createBitReader(bits, 0), exact, form);
  assert(chunks.ok, `Cannot read back packed chunks: ${chunks.ok ? "" : chunks.detail}`);
  return chunks.value.update;
}

/** Whole chunks: how many parameters and entries they have, and the form of the update of which they are. */
export type ChunkForm = Pick<Header, "bits" | "keep" | "parameters" | "entries">;

interface Chunks {
  readonly update: SparseUpdate;
  /** The most entries of a chunk. */
  readonly largest: number;
}

function readChunks(reader: BitReader, exact: Uint8Array, form: ChunkForm): Checked<Chunks> {
  return form.bits === 64 ? unpackExact(reader, exact, form) : unpackRounded(reader, form);
}

/** A packed update's header, or why there is none within the limits that belongs to `bytes`: as `unpackUpdate` refuses. */
export function readHeader(bytes: Uint8Array, limits: UnpackLimits): Checked<Header> {
  if (limits.bytesMax !== undefined && bytes.length > limits.bytesMax) {
    return refuse("oversized", `Cannot unpack update: got ${bytes.length} bytes, need at most ${limits.bytesMax}`);
  }
  if (bytes.length < HEADER_BYTES) {
    return refuse("truncated", `Cannot unpack update: got ${bytes.length} bytes, need ${HEADER_BYTES} for the header`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  const bits = view.getUint8(5);
  const isForm = (bits >= 1 && bits <= VALUE_BITS_MAX) || bits === 64;
  if (view.getUint32(0, true) !== MAGIC || view.getUint8(4) !== FORMAT_VERSION || !isForm) {
    return refuse("malformed", "Cannot unpack update: it does not begin like one of this version");
  }
  if (limits.bits !== undefined && bits !== limits.bits) {
    return refuse("malformed", `Cannot unpack update: it has ${bits} bits a value, need ${limits.bits}`);
  }
  const header: Header = {
    bits,
    keep: view.getUint16(6, true),
    parameters: view.getUint32(8, true),
    entries: view.getUint32(12, true),
    bytes: view.getUint32(16, true),
  };
  if (header.parameters !== limits.parameters) {
    const reason = header.parameters > limits.parameters ? "oversized" : "malformed";
    return refuse(reason, `Cannot unpack update: it is for ${header.parameters} parameters, need ${limits.parameters}`);
  }
  if (header.keep > Math.min(limits.keepMax, CHUNK)) {
    return refuse(
      "oversized",
      `Cannot unpack update: it keeps ${header.keep} of a chunk, need at most ${limits.keepMax}`,
    );
  }
  if (bytes.length !== header.bytes) {
    const reason = bytes.length < header.bytes ? "truncated" : "malformed";
    return refuse(reason, `Cannot unpack update: got ${bytes.length} bytes, need ${header.bytes}`);
  }
  const chunks = chunksOf(header.parameters);
  if (header.entries > Math.min(header.parameters, chunks * header.keep)) {
    return refuse("malformed", `Cannot unpack update: ${header.entries} entries are more than its chunks can have`);
  }
  // A chunk takes at least one bit, an entry at least one bit or its 64.
  const least = bits === 64 ? chunks / 8 + header.entries * 8 : (chunks + header.entries) / 8;
  if (bytes.length < HEADER_BYTES + least) {
    return refuse("malformed", `Cannot unpack update: ${bytes.length} bytes cannot hold ${header.entries} entries`);
  }
  return accept(header);
}

function unpackRounded(reader: BitReader, header: ChunkForm): Checked<Chunks> {
  const indices = new Uint32Array(header.entries);
  const values = new Float32Array(header.entries);
  const gaps = new Uint16Array(header.keep);
  let entries = 0;
  let largest = 0;
  for (let start = 0; start < header.parameters; start += CHUNK) {
    const length = Math.min(CHUNK, header.parameters - start);
    const { count, rice } = takeShape(reader, length, header.keep);
    if (count < 0 || entries + count > header.entries) {
      return malformed(reader, "a chunk has more entries than it may");
    }
    largest = Math.max(largest, count);
    if (count === 0) {
      continue;
    }
    const first = takeBits(reader, FIRST_BITS);
    const step = takeBits(reader, STEP_BITS);
    if (first < CLASS_MIN) {
      return malformed(reader, "a chunk's lowest level is not a normal number");
    }
    if (step > 0 && header.bits === 1) {
      return malformed(reader, "a chunk announces levels that 1 bit cannot tell apart");
    }
    const wide = step === 0 ? 0 : 1 << (step - 1);
    const valueBits = step === 0 ? 1 : header.bits;
    let lowest = false;
    let used = 0;
    let highest = 0;
    let index = -1;
    for (let i = 0; i < count; i += 1) {
      const gap = count < length ? takeGap(reader, rice) : 0;
      index += gap + 1;
      if (gap < 0 || index >= length) {
        return malformed(reader, "an index is beyond its chunk");
      }
      gaps[i] = gap;
      const value = takeBits(reader, valueBits);
      const level = value >>> 1;
      lowest ||= level === 0;
      used |= level;
      highest = Math.max(highest, level);
      // What is beyond the classes is refused below.
      const magnitude = magnitudeOf(Math.min(CLASS_MAX, first + level * wide));
      indices[entries + i] = start + index;
      values[entries + i] = (value & 1) === 1 ? -magnitude : magnitude;
    }
    if (first + highest * wide > CLASS_MAX) {
      return overrun(reader)
        ? malformed(reader, "")
        : refuse("not-finite", "Cannot unpack update: a level stands for infinity");
    }
    if (step > 0 && (!lowest || (used & 1) === 0)) {
      return malformed(reader, "a chunk's levels could begin higher or lie farther apart");
    }
    if (count < length && !isBestRice(gaps, count, rice)) {
      return malformed(reader, "a chunk's Rice parameter is not the best one");
    }
    entries += count;
  }
  if (overrun(reader)) {
    return malformed(reader, "");
  }
  if (alignReader(reader) !== reader.bytes.length || entries !== header.entries) {
    return malformed(reader, "it does not end where or contain what its header says");
  }
  return accept({ update: { parameters: header.parameters, indices, values }, largest });
}

function unpackExact(reader: BitReader, exact: Uint8Array, header: ChunkForm): Checked<Chunks> {
  const indices = new Uint32Array(header.entries);
  const gaps = new Uint16Array(header.keep);
  let entries = 0;
  for (let start = 0; start < header.parameters; start += CHUNK) {
    const length = Math.min(CHUNK, header.parameters - start);
    const { count, rice } = takeShape(reader, length, header.keep);
    if (count < 1 || count < Math.min(header.keep, length)) {
      return malformed(reader, "a chunk has fewer exact values than the others");
    }
    if (entries + count > header.entries) {
      return malformed(reader, "a chunk has more entries than it may");
    }
    let index = -1;
    for (let i = 0; i < count; i += 1) {
      const gap = count < length ? takeGap(reader, rice) : 0;
      index += gap + 1;
      if (gap < 0 || index >= length) {
        return malformed(reader, "an index is beyond its chunk");
      }
      gaps[i] = gap;
      indices[entries + i] = start + index;
    }
    if (count < length && !isBestRice(gaps, count, rice)) {
      return malformed(reader, "a chunk's Rice parameter is not the best one");
    }
    entries += count;
  }
  if (overrun(reader)) {
    return malformed(reader, "");
  }
  if (alignReader(reader) !== reader.bytes.length || entries !== header.entries) {
    return malformed(reader, "it does not end where or contain what its header says");
  }
  const values = new Float64Array(header.entries);
  new Uint8Array(values.buffer).set(exact);
  for (let i = 0; i < values.length; i += 1) {
    if (!(Math.abs(values[i] as number) <= VALUE_MAX)) {
      return refuse("not-finite", `Cannot unpack update: entry ${i} is ${values[i]}`);
    }
  }
  return accept({ update: { parameters: header.parameters, indices, values }, largest: header.keep });
}

/** Reads a chunk's count (−1: not one that `pack.ts` writes) and Rice parameter. */
function takeShape(reader: BitReader, length: number, keep: number): { count: number; rice: number } {
  const full = Math.min(keep, length);
  let count = full;
  if (takeBits(reader, 1) === 0) {
    count = takeBits(reader, widthOf(keep));
    if (count >= full) {
      return { count: -1, rice: 0 };
    }
  }
  return { count, rice: count > 0 && count < length ? takeBits(reader, RICE_BITS) : 0 };
}

/** Reads a gap; −1 when it is none. */
function takeGap(reader: BitReader, rice: number): number {
  const high = takeUnary(reader, (CHUNK - 1) >>> rice);
  return high < 0 ? -1 : (high << rice) | takeBits(reader, rice);
}

/** What went wrong inside the bit section, unless it is that the section has ended. */
function malformed(reader: BitReader, what: string): Checked<never> {
  return refuse("malformed", `Cannot unpack update: ${overrun(reader) ? "its bits end too early" : what}`);
}
