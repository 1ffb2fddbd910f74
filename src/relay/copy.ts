/**
 * A run copied from one store into another, whatever the two are: its ledger, the keys that say what it is, and the blobs that
 * these name. What one process has for a while is left out: the lease, and contributions that are still on their way, which are
 * asked for again. The relay's own key is the caller's to bring along, since it is not in every store.
 *
 * The run may go on meanwhile. What is copied is the ledger as it was at one moment, whole up to there. Its blobs never change
 * but are deleted when later entries make them superfluous; where that was faster, a later moment is taken.
 */
import { HeddleError } from "../base/assert.ts";
import { equalBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { beginCheck, checkEntries } from "../coordinator/check.ts";
import { CHECKPOINTS_KEPT, type DurableState } from "../coordinator/state.ts";
import { UPLOADS_PREFIX } from "../coordinator/uploads.ts";
import { deleteBlobs, entriesOf, type Blobs, type Keys, type Log, type Store } from "../store/store.ts";
import { KEY_FILE, LEADER_KEY } from "./place.ts";
import { reachableBlobs } from "./prune.ts";
import { readCharter } from "./run.ts";

/** How often a later moment is taken before the run counts as too fast. */
const MOMENTS_MAX = 100;
/** Blobs that are copied beside each other, because servers take their time for each, while they have no more bytes than this together. */
const BLOBS_TOGETHER = 32;
const BYTES_TOGETHER = 64 * 1_048_576;
const ENTRIES_AT_A_TIME = 256;

export interface CopiedRun {
  readonly durable: DurableState;
  readonly blobs: number;
  readonly bytes: number;
  /** Blobs of older versions that are not whole, and were left out: the run does not need them. */
  readonly damaged: number;
}

/**
 * Copies the run in `from` into `to`: what an earlier call with the same run has copied already stays, and the ledger comes last.
 * Every blob is checked on the way, and one at a time is in memory where it is large. Throws HeddleError "bad-input" when there
 * is no run in `from`, "integrity" when something that it needs is damaged or missing, "store" when `to` holds another run.
 */
export async function copyRun(from: Store, to: Store): Promise<CopiedRun> {
  const charter = await readCharter(from);
  await checkPlace(from.log, to.log);
  /** Bytes of the blobs that `to` has by now, those of earlier moments among them. */
  const copied = new Map<Digest, number>();
  let check = beginCheck();
  let missing: Digest | null = null;
  for (let moment = 0; moment < MOMENTS_MAX; moment += 1) {
    await copyKeys(from.keys, to.keys);
    check = await checkEntries(check, entriesOf(from.log, check.chain.length), null);
    const { durable } = check;
    if (durable === null) {
      throw new HeddleError("bad-input", "Cannot copy the run: its ledger is empty");
    }
    const reach = (checkpoints: number): Promise<Set<Digest>> => reachableBlobs(to, { charter, durable, checkpoints });
    const gone = await copyBlobs(from.blobs, to.blobs, { digests: await reach(1), copied });
    if (gone === null) {
      const known = await reach(CHECKPOINTS_KEPT);
      let damaged = 0;
      for (const digest of known) {
        // Older checkpoints are good to have, and may be deleted at any time.
        await copyBlobs(from.blobs, to.blobs, { digests: new Set([digest]), copied }).catch((error: unknown) => {
          if (!(error instanceof HeddleError && error.code === "integrity")) {
            throw error;
          }
          damaged += 1;
        });
      }
      await copyLog(from.log, to.log, check.chain.length);
      const superfluous = [...copied.keys()].filter((digest) => !known.has(digest));
      await deleteBlobs(to.blobs, superfluous);
      superfluous.forEach((digest) => copied.delete(digest));
      const bytes = [...copied.values()].reduce((sum, size) => sum + size, 0);
      return { durable, blobs: copied.size, bytes, damaged };
    }
    if (gone === missing) {
      // The ledger was read again since, and still names it.
      throw new HeddleError("integrity", `Cannot copy the run: blob ${gone} is missing`);
    }
    missing = gone;
  }
  const sentence = "Cannot copy the run: it replaces its blobs faster than they are copied; pause it meanwhile";
  throw new HeddleError("store", sentence);
}

/** What `to` has of a ledger must be the beginning of this one: its last entry, which holds the digest of those before, says so. */
async function checkPlace(from: Log, to: Log): Promise<void> {
  const length = await to.length();
  if (length > 0) {
    const [[there], [here]] = await Promise.all([to.read(length - 1, 1), from.read(length - 1, 1)]);
    if (there === undefined || here === undefined || !equalBytes(there, here)) {
      throw new HeddleError("store", "Cannot copy the run: the place where it goes holds another one");
    }
  }
}

/** Keys that a store holds for as long as it is the run's place. */
async function copyKeys(from: Keys, to: Keys): Promise<void> {
  for (const key of await from.list("")) {
    const value = isPassing(key) ? undefined : await from.get(key);
    if (value !== undefined) {
      await to.set(key, value);
    }
  }
}

function isPassing(key: string): boolean {
  return key === LEADER_KEY || key === KEY_FILE || key.startsWith(UPLOADS_PREFIX);
}

interface Wanted {
  readonly digests: ReadonlySet<Digest>;
  /** Is added to. */
  readonly copied: Map<Digest, number>;
}

/** Resolves to the first blob that is not there, or null when `to` has all of them. */
async function copyBlobs(from: Blobs, to: Blobs, { digests, copied }: Wanted): Promise<Digest | null> {
  const all = [...digests].filter((digest) => !copied.has(digest));
  for (let i = 0; i < all.length; i += BLOBS_TOGETHER) {
    const page = all.slice(i, i + BLOBS_TOGETHER);
    const sizes = await Promise.all(page.map((digest) => from.size(digest)));
    const gone = sizes.indexOf(undefined);
    if (gone !== -1) {
      return page[gone] as Digest;
    }
    const bytes = sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
    const groups = bytes <= BYTES_TOGETHER ? [page] : page.map((digest) => [digest]);
    for (const group of groups) {
      const results = await Promise.all(group.map((digest) => copyBlob(from, to, digest)));
      results.forEach((size, j) => size !== null && copied.set(group[j] as Digest, size));
      const lost = results.indexOf(null);
      if (lost !== -1) {
        return group[lost] as Digest;
      }
    }
  }
  return null;
}

/** Resolves to its size when `to` has it, or null when `from` has it no more. */
async function copyBlob(from: Blobs, to: Blobs, digest: Digest): Promise<number | null> {
  const size = await to.size(digest);
  if (size !== undefined) {
    return size;
  }
  const bytes = await from.get(digest);
  if (bytes === undefined) {
    return null;
  }
  await to.put(bytes, digest);
  return bytes.length;
}

/** The first `length` entries, as far as `to` has not got them. */
async function copyLog(from: Log, to: Log, length: number): Promise<void> {
  for (let at = await to.length(); at < length;) {
    const entries: Bytes[] = await from.read(at, Math.min(ENTRIES_AT_A_TIME, length - at));
    if (!(await to.append(at, entries))) {
      throw new HeddleError("store", "Cannot copy the ledger: somebody else writes to the place where it goes");
    }
    at += entries.length;
  }
}
