/**
 * What a run's largest blobs take, from its charter alone. A charter whose blobs do not fit what carries them is none: each
 * contributor would fail at its first update, or the relay at its first merge, for good. The layouts are those of `model/layout.ts`,
 * `update/format.ts` and `update/outer.ts`; `capacity.test.ts` holds these numbers against what they make.
 */
import { gapBitsMax } from "../base/rice.ts";
import { keepMaxOf, type Charter, type Compression, type ModelConfig } from "./charter.ts";
import { BLOB_BYTES_MAX, CONTRIBUTION_BYTES_MAX } from "./limits.ts";

/** A blob of a run that would be too large. */
export interface Excess {
  /** The charter's setting that makes it so large. */
  readonly setting: string;
  readonly sentence: string;
}

/** The first blob of the charter's run that can be larger than what carries it; null where all fit. */
export function excessOf(charter: Charter): Excess | null {
  const { model, uplink, downlink, outer } = charter;
  const parameters = parametersOf(model);
  const keep = keepMaxOf(charter);
  const most = keep === uplink.keep ? "uplink.keep" : keep === uplink.together ? "uplink.together" : "newcomers.keep";
  const state = (vectors: 1 | 2): Sized => {
    const what = vectors === 1 ? "the outer state" : "the outer state with momentum";
    return { what, bytes: serverBytesOf(parameters, vectors), bytesMax: BLOB_BYTES_MAX };
  };
  const update = (form: Form, bytesMax: number): Sized => {
    const what = `an update with ${form.keep} of ${CHUNK} values at ${form.bits} ${form.bits === 1 ? "bit" : "bits"}`;
    return { what, bytes: packedBytesMax(parameters, form), bytesMax };
  };
  const blobs: readonly (readonly [setting: string, Sized])[] = [
    ["model", state(1)],
    ["outer.momentum", state(outer.momentum === 0 ? 1 : 2)],
    [most, update({ keep, bits: uplink.bits }, CONTRIBUTION_BYTES_MAX)],
    ["downlink", update(downlink, BLOB_BYTES_MAX)],
  ];
  for (const [setting, { what, bytes, bytesMax }] of blobs) {
    if (bytes > bytesMax) {
      const sentence = `of ${parameters} parameters ${what} can have ${bytes} bytes, at most ${bytesMax} fit`;
      return { setting, sentence };
    }
  }
  return null;
}

interface Sized {
  readonly what: string;
  readonly bytes: number;
  readonly bytesMax: number;
}

type Form = Pick<Compression, "keep" | "bits">;

/** Elements at whose multiples each of a model's tensors begins (`tensor/program.ts`). */
const ALIGNMENT = 64;

/** Parameters P of a Llama-family decoder, padding included. */
export function parametersOf(model: ModelConfig): number {
  const { vocabulary, channels, layers, heads, kvHeads, hidden, tied } = model;
  const padded = (elements: number): number => Math.ceil(elements / ALIGNMENT) * ALIGNMENT;
  const attention = 2 * padded(channels * channels) + 2 * padded((channels / heads) * kvHeads * channels);
  const block = attention + 3 * padded(channels * hidden) + 2 * padded(channels);
  return (tied ? 1 : 2) * padded(vocabulary * channels) + layers * block + padded(channels);
}

/** Parameters of a chunk, and bytes in front of the first. */
const CHUNK = 4_096;
const UPDATE_HEADER_BYTES = 20;

/** Bytes that a packed update of P parameters can have; with 64 bits and whole chunks it always has as many. */
export function packedBytesMax(parameters: number, form: Form): number {
  const rest = parameters % CHUNK;
  const whole = Math.floor(parameters / CHUNK) * chunkBitsMax(CHUNK, form);
  return UPDATE_HEADER_BYTES + Math.ceil((whole + (rest === 0 ? 0 : chunkBitsMax(rest, form))) / 8);
}

/** In the order of the layout. With 1 to 4 bits zeros are not sent: a whole chunk needs no gaps, but one with a single zero does. */
function chunkBitsMax(length: number, { keep, bits }: Form): number {
  const count = Math.min(keep, length);
  const gaps = 4 + gapBitsMax({ count, sum: length - count });
  if (bits === 64) {
    return 1 + (count === length ? 0 : gaps) + 64 * count;
  }
  return 1 + (32 - Math.clz32(keep)) + gaps + 16 + bits * count;
}

export const SERVER_HEADER_BYTES = 16;

/** Bytes of an outer state of one vector, the residual, or of two. */
export function serverBytesOf(parameters: number, vectors: 1 | 2): number {
  return SERVER_HEADER_BYTES + vectors * parameters * 8;
}
