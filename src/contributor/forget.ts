/**
 * Forgets what earlier runs have left in a contributor's store: their notebooks, and every blob that the present run has no use for. A
 * browser's store is that of one relay, and so of one run at a time. A folder may be used at several relays in turn, so each run's
 * notebook says where it was met, and only what was met at the same place is over. While another run's notebook is left, blobs may be its
 * own, and a store that holds more than a contributor's, such as a relay's, is left as it is.
 */
import type { Digest } from "../base/bytes.ts";
import { decode, encode } from "../data/text.ts";
import { deleteBlobs, type Store } from "../store/store.ts";
import { notebookKey } from "./notebook.ts";

export interface Present {
  readonly run: Digest;
  /** Where the relay is reached; empty where the store is that of one relay. */
  readonly origin: string;
  /** What the run's notebook and charter name. */
  readonly blobs: ReadonlySet<Digest>;
}

/** Keys of contributors: a run's notebook, what was agreed to, and how a GPU is tuned. */
const OWN = /^(contributor|tuning)\//;
const OF_RUN = /^contributor\/([0-9a-f]{64})\//;

/** Killed at any moment, it goes on at the next call. */
export async function forgetEarlierRuns(store: Store, { run, origin, blobs }: Present): Promise<void> {
  const { keys } = store;
  const all = await keys.list("");
  if ((await store.log.length()) > 0 || !all.every((key) => OWN.test(key))) {
    return;
  }
  const metAt = async (one: Digest): Promise<string> => decode((await keys.get(originKey(one))) ?? []);
  if ((await metAt(run)) !== origin) {
    await keys.set(originKey(run), encode(origin));
  }
  let others = 0;
  for (const other of new Set(all.map((key) => OF_RUN.exec(key)?.[1] as Digest | undefined))) {
    if (other === undefined || other === run) {
      continue;
    }
    if ((await metAt(other)) !== origin) {
      others += 1;
      continue;
    }
    const its = all.filter((key) => key.startsWith(notebookKey(other)));
    for (const key of [...its, originKey(other)]) {
      await keys.delete(key); // where it was met last: what is left of a run must still be known as over
    }
  }
  if (others === 0) {
    const left = await store.blobs.list();
    await deleteBlobs(
      store.blobs,
      left.filter((digest) => !blobs.has(digest)),
    );
  }
}

function originKey(run: Digest): string {
  return `contributor/${run}/origin`;
}
