/**
 * The ledger as bytes: each entry is canonical msgpack, signed by the relay, and holds the SHA-256 of the entry before it,
 * so that whoever has the last digest can check every word of the history and nobody can change one without it showing.
 * The signature is over the canonical encoding of the entry without its signature, under the purpose "ledger".
 */
import { digestOf, type Bytes, type ContributionId, type ContributorId, type Digest } from "../base/bytes.ts";
import { verdictReader, versionReader } from "./codec.ts";
import {
  binary,
  checked,
  digest,
  encodeValue,
  FieldError,
  integer,
  list,
  measured,
  nullable,
  oneOf,
  readCanonical,
  real,
  record,
  tagged,
  text,
  type Reader,
} from "./fields.ts";
import type { DeviceKey, VerifySignature } from "./keys.ts";
import type { LedgerEntry, LedgerEvent } from "./ledger.ts";
import {
  CONTRIBUTIONS_MAX,
  COUNT_MAX,
  ENTRY_BYTES_MAX,
  ENTRY_VALUES_MAX,
  HEADER_BYTES_MAX,
  PUBLIC_KEY_BYTES,
  SIGNATURE_BYTES_MAX,
  TEXT_CHARS_MAX,
} from "./limits.ts";
import type { Losses } from "./messages.ts";
import type { ScanLimits } from "./scan.ts";
import { refuse, type Checked, type Reason } from "./verdict.ts";

/** What the first entry holds in place of the digest of an entry before it. */
const NO_ENTRY = "0".repeat(64) as Digest;

/** An entry as it is written. */
export interface SignedEntry extends LedgerEntry {
  readonly signature: Bytes;
}

/** Where a chain ends: what the next entry must continue. */
export interface ChainHead {
  /** Entries so far. */
  readonly length: number;
  /** SHA-256 of the last entry's bytes. */
  readonly digest: Digest;
  /** The relay's public key, known from the first entry on. */
  readonly relay: Bytes | null;
}

export const EMPTY_CHAIN: ChainHead = { length: 0, digest: NO_ENTRY, relay: null };

const ENTRY_SCAN: ScanLimits = {
  depthMax: 5,
  valuesMax: ENTRY_VALUES_MAX,
  stringBytesMax: 3 * TEXT_CHARS_MAX,
  binBytesMax: HEADER_BYTES_MAX,
};
const BYTES_MAX = Number.MAX_SAFE_INTEGER;

type Of<K extends LedgerEvent["type"]> = Extract<LedgerEvent, { readonly type: K }>;

const count = integer(0, COUNT_MAX);

const lossesReader: Reader<Losses> = record<Losses>({
  assignedBefore: nullable(measured),
  assignedAfter: nullable(measured),
  randomBefore: measured,
  randomAfter: measured,
});

const byReader: Reader<ContributorId | "relay"> = (value, path) =>
  value === "relay" ? value : digest<ContributorId>()(value, path);

const eventReader: Reader<LedgerEvent> = tagged<LedgerEvent>({
  started: record<Of<"started">>({
    type: oneOf(["started"]),
    run: digest<Digest>(),
    relay: binary(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES),
    head: versionReader,
  }),
  led: record<Of<"led">>({ type: oneOf(["led"]), epoch: count }),
  introduced: record<Of<"introduced">>({
    type: oneOf(["introduced"]),
    contributor: digest<ContributorId>(),
    publicKey: binary(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES),
    agent: text(),
  }),
  opened: record<Of<"opened">>({
    type: oneOf(["opened"]),
    round: count,
    baseVersion: count,
    seed: integer(0, 2 ** 32 - 1),
  }),
  closed: record<Of<"closed">>({ type: oneOf(["closed"]), round: count }),
  contributed: record<Of<"contributed">>({
    type: oneOf(["contributed"]),
    contribution: digest<ContributionId>(),
    header: binary(1, HEADER_BYTES_MAX),
    signature: binary(1, SIGNATURE_BYTES_MAX),
    norm: real(0, Number.MAX_VALUE),
    wireBytes: integer(0, BYTES_MAX),
  }),
  judged: record<Of<"judged">>({
    type: oneOf(["judged"]),
    contribution: digest<ContributionId>(),
    verdict: verdictReader,
    by: byReader,
    losses: nullable(lossesReader),
  }),
  banned: record<Of<"banned">>({
    type: oneOf(["banned"]),
    contributor: digest<ContributorId>(),
    why: text(TEXT_CHARS_MAX, { charsMin: 1 }),
  }),
  unbanned: record<Of<"unbanned">>({ type: oneOf(["unbanned"]), contributor: digest<ContributorId>() }),
  paused: record<Of<"paused">>({ type: oneOf(["paused"]) }),
  resumed: record<Of<"resumed">>({ type: oneOf(["resumed"]) }),
  skipped: record<Of<"skipped">>({ type: oneOf(["skipped"]), round: count }),
  merged: record<Of<"merged">>({
    type: oneOf(["merged"]),
    round: count,
    head: versionReader,
    contributions: list(digest<ContributionId>(), 1, CONTRIBUTIONS_MAX),
    server: digest<Digest>(),
    bytesUp: integer(0, BYTES_MAX),
    bytesDown: integer(0, BYTES_MAX),
    tokensPerS: real(0, Number.MAX_VALUE),
    contributors: count,
    refused: count,
  }),
});

const entryFields = {
  sequence: count,
  timeMs: real(0, Number.MAX_SAFE_INTEGER),
  previous: digest<Digest>(),
  event: eventReader,
};
const entryReader: Reader<LedgerEntry> = record<LedgerEntry>(entryFields);
const signedReader: Reader<SignedEntry> = record<SignedEntry>({
  ...entryFields,
  signature: binary(1, SIGNATURE_BYTES_MAX),
});

/** The canonical bytes that the relay signs under the purpose "ledger". */
export function encodeEntry(entry: LedgerEntry): Bytes {
  return encodeValue(entryReader, entry, "ledger entry");
}

/** The entry that continues `chain` with `event`: its bytes as they are written, and the chain after it. */
export async function appendEntry(
  chain: ChainHead,
  event: LedgerEvent,
  { timeMs, key }: { readonly timeMs: number; readonly key: DeviceKey },
): Promise<{ readonly entry: SignedEntry; readonly bytes: Bytes; readonly chain: ChainHead }> {
  const unsigned: LedgerEntry = { sequence: chain.length, timeMs, previous: chain.digest, event };
  const entry: SignedEntry = { ...unsigned, signature: await key.sign("ledger", encodeEntry(unsigned)) };
  const bytes = encodeValue(signedReader, entry, "ledger entry");
  return { entry, bytes, chain: continueChain(chain, entry, bytes) };
}

/** Reads one entry as it was written; says nothing about its place or signature. */
export function decodeEntry(bytes: Uint8Array): Checked<SignedEntry> {
  if (bytes.length > ENTRY_BYTES_MAX) {
    return refuse("oversized", `Cannot read ledger entry: got ${bytes.length} bytes, need at most ${ENTRY_BYTES_MAX}`);
  }
  return checked(() => readCanonical(signedReader, bytes, "ledger entry", ENTRY_SCAN));
}

/** Reads one entry and checks that it continues `chain`, all but its signature. */
export function linkEntry(
  chain: ChainHead,
  bytes: Uint8Array,
): Checked<{ readonly entry: SignedEntry; readonly chain: ChainHead }> {
  const read = decodeEntry(bytes);
  if (!read.ok) {
    return read;
  }
  const entry = read.value;
  return checked(() => {
    if (entry.sequence !== chain.length || entry.previous !== chain.digest) {
      throw new FieldError("it does not continue the one before");
    }
    if ((entry.event.type === "started") !== (chain.length === 0)) {
      throw new FieldError(`it is "${entry.event.type}"; the first entry, and no other, is "started"`);
    }
    return { entry, chain: continueChain(chain, entry, bytes) };
  });
}

/**
 * Entries that continue a chain, and the chain after them; or the number of the one where it ends and why, and those before it that
 * are vouched for: none where the last signature, which was to vouch for all, is not the relay's.
 */
export type VerifiedChain =
  | { readonly ok: true; readonly value: { readonly entries: readonly SignedEntry[]; readonly chain: ChainHead } }
  | {
      readonly ok: false;
      readonly before: readonly SignedEntry[];
      readonly entry: number;
      readonly reason: Reason;
      readonly detail: string;
    };

export interface VerifyChainOptions {
  readonly verify: VerifySignature | null;
  readonly signatures?: "each" | "last";
  /** What the first of the entries continues; the beginning where absent. */
  readonly chain?: ChainHead;
}

/**
 * Checks that `entries` continue `chain`: numbers, digests and signatures (these not where `verify` is null). Of the signatures
 * `each` one, as whoever judges a ledger does, or only the `last`, which vouches for the bytes of all before it, their digests being
 * in what it signs. Trust in a whole ledger comes from knowing its relay's key, or its last digest, from elsewhere.
 */
export async function verifyChain(
  entries: readonly Uint8Array[],
  { verify, signatures = "each", chain = EMPTY_CHAIN }: VerifyChainOptions,
): Promise<VerifiedChain> {
  const linked: { readonly entry: SignedEntry; readonly chain: ChainHead }[] = [];
  let head = chain;
  let broken: { readonly reason: Reason; readonly detail: string } | null = null;
  for (const bytes of entries) {
    const next = linkEntry(head, bytes);
    if (!next.ok) {
      broken = next;
      break;
    }
    linked.push(next.value);
    head = next.value.chain;
  }
  const read = linked.map(({ entry }) => entry);
  const toVerify = verify === null ? [] : signatures === "each" ? linked : linked.slice(-1);
  const signed = await Promise.all(
    toVerify.map(async ({ entry: { signature, ...unsigned }, chain: { relay } }) =>
      relay === null ? false : await verify?.(relay, "ledger", encodeEntry(unsigned), signature),
    ),
  );
  const unsigned = signed.indexOf(false);
  if (unsigned !== -1) {
    const entry = chain.length + linked.length - toVerify.length + unsigned;
    const before = signatures === "each" ? read.slice(0, unsigned) : [];
    return { ok: false, before, entry, reason: "bad-signature", detail: "its signature is not that of the relay" };
  }
  return broken === null
    ? { ok: true, value: { entries: read, chain: head } }
    : { ok: false, before: read, entry: head.length, reason: broken.reason, detail: broken.detail };
}

function continueChain(chain: ChainHead, entry: SignedEntry, bytes: Uint8Array): ChainHead {
  const relay = entry.event.type === "started" ? entry.event.relay : chain.relay;
  return { length: chain.length + 1, digest: digestOf(bytes), relay };
}
