/**
 * Which blobs a relay still needs, and the deletion of the rest. A running relay forgets by itself what a version makes
 * superfluous; what is left over after kills, failed starts and replaced data sets is found here.
 */
import { HeddleError } from "../base/assert.ts";
import type { Digest } from "../base/bytes.ts";
import { blobsOf, CHECKPOINTS_KEPT, type DurableState } from "../coordinator/state.ts";
import type { Charter } from "../protocol/charter.ts";
import { deleteBlobs, type Store } from "../store/store.ts";
import { listDatasets } from "./data.ts";

/** The blobs of the run's state with so many checkpoints, its charter and data, and of the data sets that runs could choose. */
export async function reachableBlobs(
  store: Store,
  { charter, durable, checkpoints }: Pick<PruneFacts, "charter" | "durable" | "checkpoints">,
): Promise<Set<Digest>> {
  const sets = [...charter.train, charter.evaluation, ...(await listDatasets(store))];
  const shards = sets.flatMap((set) => set.shards.map(({ digest }) => digest));
  return new Set([...blobsOf(durable, checkpoints), durable.run, ...shards]);
}

export interface PruneOptions {
  /** Whole checkpoints to keep, 1 to CHECKPOINTS_KEPT: the relay itself keeps no more. */
  readonly checkpoints: number;
  readonly dryRun: boolean;
}

export function isCheckpoints(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= CHECKPOINTS_KEPT;
}

export interface PruneReport extends PrunedBlobs {
  /** Writes that were cut off, what was left of which has been deleted. */
  readonly cutOff: number;
}

interface PruneFacts extends PruneOptions {
  readonly charter: Charter;
  readonly durable: DurableState;
  /** Of the ledger that `durable` is the fold of. */
  readonly entries: number;
}

export interface PrunedBlobs {
  readonly kept: number;
  readonly superfluous: number;
  /** Of the superfluous ones. */
  readonly bytes: number;
  readonly deleted: boolean;
}

/**
 * Finds what nothing reaches and deletes it, unless `dryRun`. The caller sees to it that nothing is on its way into the store. Throws
 * HeddleError "store" where another relay writes there: before it stores anything its ledger has grown.
 */
export async function pruneBlobs(store: Store, { dryRun, entries, ...facts }: PruneFacts): Promise<PrunedBlobs> {
  const reachable = await reachableBlobs(store, facts);
  const all = await store.blobs.list();
  const superfluous = all.filter((digest) => !reachable.has(digest));
  let bytes = 0;
  for (const digest of superfluous) {
    bytes += (await store.blobs.size(digest)) ?? 0;
  }
  if ((await store.log.length()) !== entries) {
    throw new HeddleError("store", "Cannot prune: another relay leads the run by now; nothing was deleted");
  }
  if (!dryRun) {
    await deleteBlobs(store.blobs, superfluous);
  }
  return { kept: all.length - superfluous.length, superfluous: superfluous.length, bytes, deleted: !dryRun };
}
