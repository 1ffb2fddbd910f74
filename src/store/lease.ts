/**
 * Which one of several processes that share a store leads: elected by compare-and-set on one key, which the holder renews and
 * the others watch. Who sees it unchanged for LEASE_MS takes it, with an epoch one higher. Only the watcher's own clock counts,
 * and a holder does not give up by the clock: a store that is away for a while stops both.
 *
 * The lease says who should lead, not who can write: a holder that was held up may not know yet that it was deposed. What makes
 * that harmless is the epoch in the ledger (`coordinator/journal.ts`), entered before anything else is done; appends of an
 * earlier holder expect a shorter log and are refused.
 */
import { HeddleError, messageIn } from "../base/assert.ts";
import { equalBytes, isDigest, type Bytes, type Digest } from "../base/bytes.ts";
import { sleep, type Clock } from "../base/clock.ts";
import { createStop, type StopSignal } from "../base/stop.ts";
import type { Keys } from "./store.ts";

/** Without a renewal for so long, the lease is anyone's. */
export const LEASE_MS = 2_000;
const RENEW_MS = 400;
const POLL_MS = 400;
/** An answer of the store that took longer says nothing about the holder, who waited too. */
const LATE_MS = LEASE_MS / 2;
const RELEASE_MS_MAX = 1_000;
const HOLDER_CHARS_MAX = 200;

export interface LeaseOptions {
  readonly keys: Keys;
  readonly key: string;
  readonly clock: Clock;
  /** Names this process to people. */
  readonly holder: string;
  /** Called when another process holds the lease, and when yet another does. */
  readonly onWait?: (holder: string) => void;
  /** Nobody waits any more. */
  readonly stop?: StopSignal;
}

export interface Lease {
  /** Higher than that of every holder before; from 1. */
  readonly epoch: number;
  /** Resolves with a sentence when another process has taken the lease, or the store failed. */
  readonly lost: Promise<string>;
  /** Gives the lease to whoever waits; what is lost already stays with its new holder. */
  release(): Promise<void>;
}

interface LeaseRecord {
  readonly epoch: number;
  /** null: released. */
  readonly holder: string | null;
  /** Grows with every renewal, so that the record changes. */
  readonly beat: number;
}

interface ClosedRecord {
  /** The store is to hold a ledger that ends with this entry. */
  readonly filledTo: Digest;
}

/**
 * Waits until this process holds the lease. Rejects with HeddleError "store" when it is closed, or stopped before it has it,
 * "integrity" when the key holds something else.
 */
export async function acquireLease(options: LeaseOptions): Promise<Lease> {
  const { keys, key, clock, holder, onWait, stop } = options;
  let seen: { readonly bytes: Bytes; readonly holder: string; readonly sinceMs: number } | undefined;
  for (;;) {
    const askedMs = clock.nowMs();
    const bytes = await keys.get(key);
    const nowMs = clock.nowMs();
    const record = bytes === undefined ? undefined : readRecord(bytes, key);
    if (record !== undefined && "filledTo" in record) {
      throw new HeddleError("store", `Cannot lead the run: ${whyClosed(record)}`);
    }
    if (stop?.aborted === true) {
      throw new HeddleError("store", "Cannot lead the run: this process ends");
    }
    const other = record?.holder ?? null;
    const same = seen !== undefined && equalBytes(seen.bytes, bytes ?? new Uint8Array()) && nowMs - askedMs < LATE_MS;
    if (other === null || (same && seen !== undefined && nowMs - seen.sinceMs >= LEASE_MS)) {
      const mine = { epoch: (record?.epoch ?? 0) + 1, holder: holder.slice(0, HOLDER_CHARS_MAX), beat: 0 };
      if (await keys.compareAndSet(key, bytes, encodeRecord(mine))) {
        return hold(options, mine);
      }
    } else if (!same && bytes !== undefined) {
      if (seen?.holder !== other) {
        onWait?.(other);
      }
      seen = { bytes, holder: other, sinceMs: nowMs };
    }
    await sleep(clock, POLL_MS, stop);
  }
}

/**
 * How it is with a lease: nobody has had it, some process had it and gave it up, or `holder` has it or was killed; or it is closed
 * while the store is filled, which `why` says to people.
 */
export type LeaseSeen =
  | { readonly type: "new" | "released" }
  | { readonly type: "held"; readonly holder: string }
  | ({ readonly type: "closed"; readonly why: string } & ClosedRecord);

/** Rejects with HeddleError "integrity" when the key holds something else. */
export async function lookAtLease(keys: Keys, key: string): Promise<LeaseSeen> {
  const bytes = await keys.get(key);
  if (bytes === undefined) {
    return { type: "new" };
  }
  const record = readRecord(bytes, key);
  if ("filledTo" in record) {
    return { type: "closed", why: whyClosed(record), ...record };
  }
  return record.holder === null ? { type: "released" } : { type: "held", holder: record.holder };
}

function whyClosed({ filledTo }: ClosedRecord): string {
  return `the restore of a backup, whose last ledger entry is ${filledTo}, is under way here or was interrupted; run again, it goes on`;
}

/**
 * Keeps every process from a lease that nobody has had, until `openLease`, however this one ends: the store is being filled with a
 * ledger whose last entry is `filledTo`. Resolves to false where somebody was faster.
 */
export function closeLease(keys: Keys, key: string, filledTo: Digest): Promise<boolean> {
  return keys.compareAndSet(key, undefined, encodeRecord({ filledTo }));
}

/** Lets processes have the lease that was closed so, from `epoch` + 1 on. Resolves to false where it is closed no more. */
export function openLease(
  keys: Keys,
  key: string,
  { filledTo, epoch }: { readonly filledTo: Digest; readonly epoch: number },
): Promise<boolean> {
  return keys.compareAndSet(key, encodeRecord({ filledTo }), encodeRecord({ epoch, holder: null, beat: 0 }));
}

function hold({ keys, key, clock }: LeaseOptions, first: LeaseRecord): Lease {
  const stop = createStop();
  const { promise: lost, resolve: lose } = Promise.withResolvers<string>();
  let record = first;
  /** Resolves to whether the lease was still ours. */
  const change = async (next: LeaseRecord): Promise<boolean> => {
    const held = await keys.compareAndSet(key, encodeRecord(record), encodeRecord(next));
    record = next;
    return held;
  };
  const renewing = (async (): Promise<boolean> => {
    for (;;) {
      await sleep(clock, RENEW_MS, stop);
      if (stop.aborted) {
        return true;
      }
      try {
        if (!(await change({ ...record, beat: record.beat + 1 }))) {
          lose(`another process leads this run now; epoch ${first.epoch} is over`);
          return false;
        }
      } catch (error) {
        lose(messageIn(error));
        return false;
      }
    }
  })();
  return {
    epoch: first.epoch,
    lost,
    release: async () => {
      stop.abort();
      const handOver = renewing.then((ours) => ours && change({ ...record, holder: null }));
      // A store that is away is not waited for: whoever watches takes the lease when it has run out.
      await Promise.race([handOver.catch(() => false), sleep(clock, RELEASE_MS_MAX)]);
    },
  };
}

function encodeRecord(record: LeaseRecord | ClosedRecord): Bytes {
  return new TextEncoder().encode(JSON.stringify(record));
}

function readRecord(bytes: Bytes, key: string): LeaseRecord | ClosedRecord {
  let record: Partial<Record<keyof (LeaseRecord & ClosedRecord), unknown>> | null;
  try {
    record = JSON.parse(new TextDecoder().decode(bytes)) as typeof record;
  } catch {
    record = null;
  }
  const { epoch, holder, beat, filledTo } = record ?? {};
  if (isDigest(filledTo)) {
    return { filledTo };
  }
  if (!isCount(epoch) || !isCount(beat) || !(holder === null || typeof holder === "string")) {
    throw new HeddleError("integrity", `Cannot wait for the lease: the key "${key}" does not hold one`);
  }
  return { epoch, holder, beat };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
