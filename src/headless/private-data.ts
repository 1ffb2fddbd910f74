/**
 * Reads a member's private text files. What is read here goes into the training corpus in memory and nowhere else: the text has no
 * path to the store, to a message or to a log. What training makes of it has: parameters are sent and stored.
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { HeddleError, messageIn } from "../base/assert.ts";
import { createCorpus, type Corpus } from "../data/corpus.ts";
import { normaliseText } from "../data/text.ts";

/** All files together. */
export const PRIVATE_BYTES_MAX = 1_073_741_824;
const TEXT_FILE = /\.(txt|md|text|csv|tsv|json|jsonl|html|xml|tex|rst)$/i;

/** Text files of `folder` and below, in path order. Throws HeddleError "bad-input" when there is nothing to train on. */
export async function readPrivateCorpus(folder: string): Promise<Corpus> {
  const paths = await textFilesBelow(folder);
  const shards: Uint8Array[] = [];
  let total = 0;
  for (const path of paths) {
    total += (await stat(path)).size;
    if (total > PRIVATE_BYTES_MAX) {
      throw new HeddleError(
        "limit",
        `Cannot read "${folder}": its text files are larger than ${PRIVATE_BYTES_MAX} bytes together`,
      );
    }
    shards.push(normaliseText(new Uint8Array(await readFile(path)), `"${path}"`));
  }
  if (total === 0) {
    throw new HeddleError(
      "bad-input",
      `Cannot train on "${folder}": there are no text files in it (.txt, .md and the like)`,
    );
  }
  return createCorpus(shards);
}

async function textFilesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch((error: unknown) => {
    throw new HeddleError("bad-input", `Cannot read the folder "${folder}": ${messageIn(error)}`, { cause: error });
  });
  return entries
    .filter((entry) => entry.isFile() && TEXT_FILE.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}
