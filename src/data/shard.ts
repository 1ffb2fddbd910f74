/**
 * Cuts text into content-addressed shards and describes them as a data set. A shard is what is stored, served and fetched;
 * its digest is its name. Cuts fall between UTF-8 characters, so that every shard is text by itself.
 */
import { assert, HeddleError } from "../base/assert.ts";
import { type Bytes, type Digest, digestOf } from "../base/bytes.ts";
import { isContinuation } from "./text.ts";

/** Length at which texts are cut by default: small enough to fetch in one go, large enough to keep charters short. */
export const SHARD_BYTES_MAX = 1_048_576;
/** Most shards of one data set. */
export const DATASET_SHARDS_MAX = 1_024;
/** Names are part of keys, flags and URLs. */
export const DATASET_NAME_CHARS_MAX = 64;
const NAME = /^[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?$/;
const LICENCE_CHARS_MAX = 200;

/** The form of the charter's `Dataset`, whatever its categories are called. */
export interface DatasetRecord<Category extends string> {
  readonly name: string;
  /** SPDX identifier or a plain sentence. */
  readonly licence: string;
  readonly category: Category;
  readonly shards: readonly { readonly digest: Digest; readonly bytes: number }[];
}

/**
 * Views of `text` (UTF-8), each of at most `shardBytesMax` (≥ 4) bytes, as long as a cut between characters allows; together
 * they are the text. An empty text has none.
 */
export function cutShards(text: Bytes, shardBytesMax: number = SHARD_BYTES_MAX): Bytes[] {
  assert(shardBytesMax >= 4, `Cannot cut shards: ${shardBytesMax} bytes may not hold a character, need at least 4`);
  const shards: Bytes[] = [];
  let start = 0;
  while (start < text.length) {
    const end = characterStart(text, Math.min(start + shardBytesMax, text.length));
    assert(end > start, `Cannot cut shards: there is no UTF-8 character at byte ${start}`);
    shards.push(text.subarray(start, end));
    start = end;
  }
  return shards;
}

/** The last place at or before `at` where a character begins (or the text ends). */
export function characterStart(text: Uint8Array, at: number): number {
  let start = at;
  while (start > 0 && start < text.length && isContinuation(text[start] as number)) {
    start -= 1;
  }
  return start;
}

/** Whether a text can name a data set: 1 to 64 lower-case letters, digits and inner . _ - */
export function isDatasetName(name: string): boolean {
  return name.length <= DATASET_NAME_CHARS_MAX && NAME.test(name);
}

/**
 * Describes shards as a data set. Throws HeddleError "bad-input" for a name that is not made of lower-case letters, digits
 * and inner . _ -, for an empty licence, or for no shards; "limit" for too many.
 */
export function describeDataset<Category extends string>(
  about: { readonly name: string; readonly licence: string; readonly category: Category },
  shards: readonly Uint8Array[],
): DatasetRecord<Category> {
  const { name, licence, category } = about;
  if (!isDatasetName(name)) {
    throw new HeddleError(
      "bad-input",
      `Cannot name a data set "${name}": a name has 1 to 64 lower-case letters, digits, ".", "_" or "-" and begins and ends with a letter or digit`,
    );
  }
  if (licence.trim() === "" || licence.length > LICENCE_CHARS_MAX) {
    throw new HeddleError(
      "bad-input",
      `Cannot describe "${name}": its licence must have 1 to ${LICENCE_CHARS_MAX} characters`,
    );
  }
  if (shards.length === 0) {
    throw new HeddleError("bad-input", `Cannot describe "${name}": it has no text`);
  }
  if (shards.length > DATASET_SHARDS_MAX) {
    throw new HeddleError(
      "limit",
      `Cannot describe "${name}": it has ${shards.length} shards, need at most ${DATASET_SHARDS_MAX}`,
    );
  }
  return { name, licence, category, shards: shards.map((shard) => ({ digest: digestOf(shard), bytes: shard.length })) };
}
