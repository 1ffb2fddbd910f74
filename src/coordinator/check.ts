/**
 * Checking a ledger as anybody can who has its entries: that they continue each other, that the relay signed them, that no event
 * contradicts those before, that each contribution carries its author's signature, and that each version was merged from the
 * accepted contributions of its round and from no other. What the blobs say is for `replay.ts`. A ledger is checked in pages and
 * what is kept of it is bounded, however long it is.
 */
import { AssertionError, HeddleError } from "../base/assert.ts";
import { toHex, type Bytes, type ContributionId, type ContributorId, type Digest } from "../base/bytes.ts";
import { dropOldest } from "../base/newest.ts";
import { EMPTY_CHAIN, verifyChain, type ChainHead, type SignedEntry } from "../protocol/chain.ts";
import { contributorIdOf } from "../protocol/codec.ts";
import type { VerifySignature } from "../protocol/keys.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { UPDATES_KEPT } from "../protocol/limits.ts";
import { applyEvent, type Contribution, type DurableState } from "./state.ts";

/** Entries checked at a time: between two looks at the rest of the world. */
export const PAGE_ENTRIES = 256;
/** Public keys remembered, the newest. */
const KEYS_KEPT = 100_000;

type Of<K extends LedgerEvent["type"]> = Extract<LedgerEvent, { readonly type: K }>;

/** A merge as the ledger tells it, and what went into it. */
export interface MergeRecord {
  /** Number of the entry that says so. */
  readonly entry: number;
  readonly event: Of<"merged">;
  /** In the order of the event, each with the number of its entry. */
  readonly contributions: readonly (Contribution & { readonly entry: number })[];
}

/** What is known of a ledger after some of its entries. Given on to the next page and never looked at again. */
export interface LedgerCheck {
  readonly chain: ChainHead;
  readonly durable: DurableState | null;
  /** Contributions whose author's signature holds. */
  readonly signed: number;
  /** Contributions of authors whose key is not among those remembered. */
  readonly unknown: number;
  /** The merges of the newest versions, oldest first: as many as have updates that are still kept. */
  readonly merges: readonly MergeRecord[];
  readonly keys: Map<ContributorId, Bytes>;
  /** Entries of the open round's contributions. */
  readonly entryOf: Map<ContributionId, number>;
}

/** The first entry that does not hold, and why. */
export interface LedgerFault {
  readonly entry: number;
  readonly detail: string;
}

export type LedgerChecked =
  | { readonly ok: true; readonly value: LedgerCheck }
  | { readonly ok: false; readonly fault: LedgerFault };

export function beginCheck(): LedgerCheck {
  const nothing = { chain: EMPTY_CHAIN, durable: null, signed: 0, unknown: 0, merges: [] };
  return { ...nothing, keys: new Map(), entryOf: new Map() };
}

/**
 * Checks that `page` continues what `check` knows; `check` is used up. Without `verify` no signature is looked at. Of several
 * faults the first entry's is told.
 */
export async function checkPage(
  check: LedgerCheck,
  page: readonly Bytes[],
  verify: VerifySignature | null,
): Promise<LedgerChecked> {
  const verified = await verifyChain(page, { verify, chain: check.chain });
  let next = check;
  const signatures: Promise<LedgerFault | null>[] = [];
  for (const entry of verified.ok ? verified.value.entries : verified.before) {
    const applied = apply(next, entry);
    if (!applied.ok) {
      return (await firstFault(signatures)) ?? applied;
    }
    next = applied.value;
    if (entry.event.type === "contributed") {
      const { author, publicKey } = authorOf(next, entry.event);
      if (publicKey === undefined && next.keys.size < KEYS_KEPT) {
        const detail = `device ${author} contributes and was never introduced`;
        return (await firstFault(signatures)) ?? { ok: false, fault: { entry: entry.sequence, detail } };
      }
      if (publicKey === undefined) {
        next = { ...next, unknown: next.unknown + 1 };
      } else if (verify !== null) {
        next = { ...next, signed: next.signed + 1 };
        signatures.push(verifyContribution(entry, entry.event, { author, publicKey, verify }));
      }
    }
  }
  const fault = await firstFault(signatures);
  if (fault !== null) {
    return fault;
  }
  return verified.ok ? { ok: true, value: { ...next, chain: verified.value.chain } } : { ok: false, fault: verified };
}

function authorOf(
  { durable, keys }: LedgerCheck,
  { contribution }: Of<"contributed">,
): { readonly author: ContributorId | undefined; readonly publicKey: Bytes | undefined } {
  const author = durable?.contributions.get(contribution)?.header.contributor;
  return { author, publicKey: author === undefined ? undefined : keys.get(author) };
}

async function verifyContribution(
  { sequence: entry }: SignedEntry,
  { header, signature }: Of<"contributed">,
  { author, publicKey, verify }: { author: ContributorId | undefined; publicKey: Bytes; verify: VerifySignature },
): Promise<LedgerFault | null> {
  const holds = await verify(publicKey, "contribution", header, signature);
  return holds ? null : { entry, detail: `the contribution's signature is not that of its author, device ${author}` };
}

async function firstFault(
  signatures: readonly Promise<LedgerFault | null>[],
): Promise<{ readonly ok: false; readonly fault: LedgerFault } | null> {
  const fault = (await Promise.all(signatures)).find((found) => found !== null);
  return fault === undefined ? null : { ok: false, fault };
}

/** Folds one entry in, with a look at what the coordinator itself need not ask when it reads its own ledger. */
function apply(check: LedgerCheck, { sequence: entry, event, timeMs }: SignedEntry): LedgerChecked {
  const fault = (detail: string): LedgerChecked => ({ ok: false, fault: { entry, detail } });
  let merges = check.merges;
  if (event.type === "introduced") {
    if (contributorIdOf(event.publicKey) !== event.contributor) {
      return fault(`device ${event.contributor} is introduced with another device's key`);
    }
    check.keys.delete(event.contributor); // once more the newest
    check.keys.set(event.contributor, event.publicKey);
    dropOldest(check.keys, KEYS_KEPT);
  } else if (event.type === "contributed") {
    check.entryOf.set(event.contribution, entry);
  } else if (event.type === "merged" && check.durable !== null) {
    const record = recordMerge(check, entry, event);
    if (typeof record === "string") {
      return fault(record);
    }
    merges = [...merges, record].slice(-UPDATES_KEPT);
  }
  if (event.type === "merged" || event.type === "skipped") {
    check.entryOf.clear();
  }
  try {
    return { ok: true, value: { ...check, merges, durable: applyEvent(check.durable, event, timeMs) } };
  } catch (error) {
    if (!(error instanceof AssertionError)) {
      throw error;
    }
    return fault(error.message);
  }
}

/** The merge with what went into it, or why it cannot be one of its round. */
function recordMerge({ durable, entryOf }: LedgerCheck, entry: number, event: Of<"merged">): MergeRecord | string {
  const round = durable?.contributions ?? new Map<ContributionId, Contribution>();
  const accepted = [...round.values()].filter(({ verdict }) => verdict?.type === "accepted").map(({ id }) => id);
  if (accepted.toSorted().join() !== event.contributions.join()) {
    return `version ${event.head.version} is not merged from the ${accepted.length} accepted contributions of its round`;
  }
  const contributions = event.contributions.flatMap((id) => {
    const [contribution, at] = [round.get(id), entryOf.get(id)];
    return contribution === undefined || at === undefined ? [] : [{ ...contribution, entry: at }];
  });
  return { entry, event, contributions };
}

/** What a ledger that holds together says. */
export interface CheckedLedger {
  readonly entries: number;
  /** SHA-256 of the last entry: whoever knows it from elsewhere knows that nothing is missing. */
  readonly digest: Digest;
  /** The public key that signed it all, as hexadecimal digits. */
  readonly relay: string;
  /** Contributions that carry their author's signature, and those of devices whose keys are not remembered any more. */
  readonly signed: number;
  readonly unknown: number;
  readonly durable: DurableState;
}

/** Checks a whole ledger. Throws HeddleError "integrity", which names the first entry that does not hold. */
export async function checkLedger(entries: AsyncIterable<Bytes>, verify: VerifySignature): Promise<CheckedLedger> {
  const { chain, durable, signed, unknown } = await checkEntries(beginCheck(), entries, verify);
  if (durable === null || chain.relay === null) {
    throw new HeddleError("integrity", "Cannot read ledger: it has no entries");
  }
  return { entries: chain.length, digest: chain.digest, relay: toHex(chain.relay), signed, unknown, durable };
}

/** Checks that `entries` continue what `check` knows, as `checkPage` does. Throws HeddleError "integrity" like `checkLedger`. */
export async function checkEntries(
  check: LedgerCheck,
  entries: AsyncIterable<Bytes>,
  verify: VerifySignature | null,
): Promise<LedgerCheck> {
  let next = check;
  const take = async (page: readonly Bytes[]): Promise<void> => {
    const checked = await checkPage(next, page, verify);
    if (!checked.ok) {
      const { entry, detail } = checked.fault;
      throw new HeddleError("integrity", `Cannot read ledger: entry ${entry}: ${detail}`);
    }
    next = checked.value;
  };
  let page: Bytes[] = [];
  for await (const entry of entries) {
    page.push(entry);
    if (page.length === PAGE_ENTRIES) {
      await take(page);
      page = [];
    }
  }
  await take(page);
  return next;
}
