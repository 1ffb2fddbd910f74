/**
 * Which blobs a relay still needs, and the deletion of the rest. A running relay forgets by itself what a version makes
 * superfluous; what is left over after kills, failed starts and replaced data sets is found here.
 */
import type { Digest } from "../base/bytes.ts";
import { blobsOf, type DurableState } from "../coordinator/state.ts";
import type { Charter } from "../protocol/charter.ts";
import type { Store } from "../store/store.ts";
import { listDatasets } from "./data.ts";

/** The blobs of the run's state, charter and data, and of the data sets that other runs could choose. */
export async function reachableBlobs(store: Store, charter: Charter, durable: DurableState): Promise<Set<Digest>> {
  const sets = [...charter.train, charter.evaluation, ...(await listDatasets(store))];
  const shards = sets.flatMap((set) => set.shards.map(({ digest }) => digest));
  return new Set([...blobsOf(durable), durable.run, ...shards]);
}

export interface PruneReport {
  readonly kept: number;
  readonly superfluous: number;
  /** Of the superfluous ones. */
  readonly bytes: number;
  readonly deleted: boolean;
}

/** Finds what nothing reaches and deletes it, unless `dryRun`. The caller sees to it that nothing is on its way into the store. */
export async function pruneBlobs(
  store: Store,
  { charter, durable, dryRun }: { readonly charter: Charter; readonly durable: DurableState; readonly dryRun: boolean },
): Promise<PruneReport> {
  const reachable = await reachableBlobs(store, charter, durable);
  const all = await store.blobs.list();
  const superfluous = all.filter((digest) => !reachable.has(digest));
  let bytes = 0;
  for (const digest of superfluous) {
    bytes += (await store.blobs.size(digest)) ?? 0;
    if (!dryRun) {
      await store.blobs.delete(digest);
    }
  }
  return { kept: all.length - superfluous.length, superfluous: superfluous.length, bytes, deleted: !dryRun };
}
