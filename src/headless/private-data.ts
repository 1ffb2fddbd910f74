/**
 * Reads a member's private text files. What is read here goes into the training corpus in memory and nowhere else: the text has no
 * path to the store, to a message or to a log. What training makes of it has: parameters are sent and stored.
 */
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { HeddleError, messageIn } from "../base/assert.ts";
import { createCorpus, type Corpus } from "../data/corpus.ts";
import { normaliseText } from "../data/text.ts";

/** All files together. */
export const PRIVATE_BYTES_MAX = 1_073_741_824;
const TEXT_FILE = /\.(txt|md|text|csv|tsv|json|jsonl|html|xml|tex|rst)$/i;

/**
 * Text files of `folder` and below, in path order, one a shard. Links are followed: whoever put one there means what it leads to. Throws
 * HeddleError "bad-input" when there is nothing to train on.
 */
export async function readPrivateCorpus(folder: string): Promise<Corpus> {
  const failed = (error: unknown): never => {
    throw new HeddleError("bad-input", `Cannot read the folder "${folder}": ${messageIn(error)}`, { cause: error });
  };
  const root = await realpath(folder).catch(failed);
  const files = await textFilesBelow(folder, new Set([root])).catch(failed);
  const shards: Uint8Array[] = [];
  let total = 0;
  for (const { path, bytes } of files) {
    total += bytes;
    if (total > PRIVATE_BYTES_MAX) {
      throw new HeddleError(
        "bad-input",
        `Cannot read "${folder}": its text files are larger than ${PRIVATE_BYTES_MAX} bytes together`,
      );
    }
    shards.push(normaliseText(new Uint8Array(await readFile(path).catch(failed)), `"${path}"`));
  }
  if (total === 0) {
    throw new HeddleError(
      "bad-input",
      `Cannot train on "${folder}": there are no text files in it (.txt, .md and the like)`,
    );
  }
  return createCorpus(shards);
}

interface TextFile {
  readonly path: string;
  readonly bytes: number;
}

/** `seen`: real paths of the folders and files that were found already; links may lead back to them. */
async function textFilesBelow(folder: string, seen: Set<string>): Promise<TextFile[]> {
  const found: TextFile[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    const isText = TEXT_FILE.test(name);
    const about = await stat(path).catch((error: unknown) => {
      if (isText) {
        throw error; // a text that is not there, such as one that is still to be fetched, is not left out unsaid
      }
    });
    if (about?.isDirectory() !== true && !(isText && about?.isFile() === true)) {
      continue;
    }
    const real = await realpath(path);
    if (!seen.has(real)) {
      seen.add(real);
      found.push(...(about.isDirectory() ? await textFilesBelow(path, seen) : [{ path, bytes: about.size }]));
    }
  }
  return found;
}
