/**
 * The ledger outside its store: as a file that anybody can check (`npm run admin -- ledger export`), as what a check of it
 * tells, and as sums for each contributor. A file is a line that names the format, then each entry as it was written, with
 * its length in front (four bytes, the highest first).
 */
import { AssertionError, HeddleError } from "../base/assert.ts";
import { concatBytes, equalBytes, toHex, type Bytes, type ContributorId, type Digest } from "../base/bytes.ts";
import { applyEvent, type DurableState } from "../coordinator/state.ts";
import { verifySignature } from "../net/device-key.ts";
import { decodeEntry, EMPTY_CHAIN, verifyChain } from "../protocol/chain.ts";
import { decodeHeader } from "../protocol/codec.ts";
import { ENTRY_BYTES_MAX } from "../protocol/limits.ts";

const FORMAT = new TextEncoder().encode("heddle ledger 1\n");
const LENGTH_BYTES = 4;
/** Entries written or checked at a time. */
const PAGE_ENTRIES = 256;

/** `entries` as a file's pieces. */
export async function* writeLedger(entries: AsyncIterable<Bytes>): AsyncGenerator<Bytes> {
  yield FORMAT;
  let page: Uint8Array[] = [];
  for await (const entry of entries) {
    const length = new Uint8Array(LENGTH_BYTES);
    new DataView(length.buffer).setUint32(0, entry.length);
    page.push(length, entry);
    if (page.length >= 2 * PAGE_ENTRIES) {
      yield concatBytes(page);
      page = [];
    }
  }
  yield concatBytes(page);
}

/** The entries of a file, from its pieces. Throws HeddleError "bad-input" for what is no ledger file, or not a whole one. */
export async function* readLedger(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Bytes> {
  let rest: Bytes = new Uint8Array();
  let begun = false;
  let entries = 0;
  for await (const piece of pieces) {
    rest = concatBytes([rest, piece]);
    let at = 0;
    if (!begun) {
      if (rest.length < FORMAT.length) {
        continue;
      }
      if (!equalBytes(rest.subarray(0, FORMAT.length), FORMAT)) {
        break;
      }
      begun = true;
      at = FORMAT.length;
    }
    while (rest.length - at >= LENGTH_BYTES) {
      const length = new DataView(rest.buffer, rest.byteOffset + at).getUint32(0);
      if (length < 1 || length > ENTRY_BYTES_MAX) {
        const got = `entry ${entries} is said to have ${length} bytes, need 1 to ${ENTRY_BYTES_MAX}`;
        throw new HeddleError("bad-input", `Cannot read the ledger file: ${got}`);
      }
      if (rest.length - at - LENGTH_BYTES < length) {
        break;
      }
      yield rest.slice(at + LENGTH_BYTES, at + LENGTH_BYTES + length);
      at += LENGTH_BYTES + length;
      entries += 1;
    }
    rest = rest.slice(at);
  }
  if (!begun) {
    throw new HeddleError("bad-input", 'Cannot read the ledger file: it does not begin with "heddle ledger 1"');
  }
  if (rest.length > 0) {
    throw new HeddleError("bad-input", `Cannot read the ledger file: it ends in the middle of entry ${entries}`);
  }
}

/** What a ledger that holds together says. */
export interface CheckedLedger {
  readonly entries: number;
  /** SHA-256 of the last entry: whoever knows it from elsewhere knows that nothing is missing. */
  readonly digest: Digest;
  /** The public key that signed it all, as hexadecimal digits. */
  readonly relay: string;
  readonly durable: DurableState;
}

/** Checks numbers, digests, signatures and that no event contradicts those before. Throws HeddleError "integrity". */
export async function checkLedger(entries: AsyncIterable<Bytes>): Promise<CheckedLedger> {
  let chain = EMPTY_CHAIN;
  let durable: DurableState | null = null;
  const check = async (page: readonly Bytes[]): Promise<void> => {
    const verified = await verifyChain(page, { verify: verifySignature, chain });
    if (!verified.ok) {
      throw new HeddleError("integrity", verified.detail);
    }
    for (const { event, timeMs, sequence } of verified.value.entries) {
      try {
        durable = applyEvent(durable, event, timeMs);
      } catch (error) {
        if (!(error instanceof AssertionError)) {
          throw error;
        }
        throw new HeddleError("integrity", `Cannot read ledger: entry ${sequence}: ${error.message}`, { cause: error });
      }
    }
    chain = verified.value.chain;
  };
  let page: Bytes[] = [];
  for await (const entry of entries) {
    page.push(entry);
    if (page.length === PAGE_ENTRIES) {
      await check(page);
      page = [];
    }
  }
  await check(page);
  if (durable === null || chain.relay === null) {
    throw new HeddleError("integrity", "Cannot read ledger: it has no entries");
  }
  return { entries: chain.length, digest: chain.digest, relay: toHex(chain.relay), durable };
}

/** What the ledger says of one device. */
export interface Tally {
  readonly contributor: ContributorId;
  /** Its client's name for itself, when it was introduced last. */
  agent: string;
  introducedMs: number;
  /** When its last contribution was received; null when there is none. */
  lastMs: number | null;
  accepted: number;
  refused: number;
  /** Reports on others' work that decided. */
  judged: number;
  /** Wire bytes of its contributions. */
  bytesUp: number;
  /** Why the operator has excluded it; null where it is not. */
  banned: string | null;
}

/** Sums for each device of the ledger, in the order of their introduction. Throws HeddleError "integrity" for unreadable entries. */
export async function tallyContributors(entries: AsyncIterable<Bytes>): Promise<Tally[]> {
  const tallies = new Map<ContributorId, Tally>();
  const authors = new Map<string, ContributorId>();
  const of = (contributor: ContributorId, timeMs: number): Tally => {
    const known = tallies.get(contributor);
    if (known !== undefined) {
      return known;
    }
    const zero = { lastMs: null, accepted: 0, refused: 0, judged: 0, bytesUp: 0, banned: null };
    const tally: Tally = { contributor, agent: "", introducedMs: timeMs, ...zero };
    tallies.set(contributor, tally);
    return tally;
  };
  for await (const bytes of entries) {
    const entry = decodeEntry(bytes);
    if (!entry.ok) {
      throw new HeddleError("integrity", entry.detail);
    }
    const { event, timeMs } = entry.value;
    if (event.type === "introduced") {
      of(event.contributor, timeMs).agent = event.agent;
    } else if (event.type === "banned" || event.type === "unbanned") {
      of(event.contributor, timeMs).banned = event.type === "banned" ? event.why : null;
    } else if (event.type === "contributed") {
      const header = decodeHeader(event.header);
      if (header.ok) {
        const tally = of(header.value.contributor, timeMs);
        tally.lastMs = timeMs;
        tally.bytesUp += event.wireBytes;
        authors.set(event.contribution, tally.contributor);
      }
    } else if (event.type === "judged") {
      const author = authors.get(event.contribution);
      if (author !== undefined) {
        of(author, timeMs)[event.verdict.type] += 1;
        authors.delete(event.contribution);
      }
      if (event.by !== "relay") {
        of(event.by, timeMs).judged += 1;
      }
    }
  }
  return [...tallies.values()];
}
