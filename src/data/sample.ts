/**
 * Cuts one text into a training and a held-out data set: the last twentieth is never trained on, so that the loss on it says
 * what the model learned rather than what it memorised.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { characterStart, cutShards, type DatasetRecord, describeDataset } from "./shard.ts";

/** A data set and its shards, in the record's order. */
export interface CutDataset<Category extends string> {
  readonly record: DatasetRecord<Category>;
  readonly shards: readonly Bytes[];
}

const NEWLINE = 0x0a;
/** How far behind 95 % the end of a line is looked for. */
const LINE_BYTES_MAX = 4_096;

/**
 * `text` (UTF-8) as `name` and its last twentieth as `name`-held-out, cut at the end of a line where one is near. Throws
 * HeddleError "bad-input" when the text is too short to be cut.
 */
export function cutSample<Category extends string>(
  text: Bytes,
  about: { readonly name: string; readonly licence: string; readonly category: Category },
  shardBytesMax?: number,
): { readonly train: CutDataset<Category>; readonly evaluation: CutDataset<Category> } {
  const cut = heldOutStart(text);
  if (cut === 0 || cut === text.length) {
    throw new HeddleError("bad-input", `Cannot cut "${about.name}": ${text.length} bytes are too few to hold some out`);
  }
  const part = (bytes: Bytes, name: string): CutDataset<Category> => {
    const shards = cutShards(bytes, shardBytesMax);
    return { record: describeDataset({ ...about, name }, shards), shards };
  };
  return {
    train: part(text.subarray(0, cut), about.name),
    evaluation: part(text.subarray(cut), `${about.name}-held-out`),
  };
}

/** Where the last 5 % of a text begin: behind the next line's end, or else between two characters. */
function heldOutStart(text: Uint8Array): number {
  const at = Math.floor((text.length * 19) / 20);
  const line = text.subarray(at, Math.min(at + LINE_BYTES_MAX, text.length - 1)).indexOf(NEWLINE);
  return line === -1 ? characterStart(text, at) : at + line + 1;
}
