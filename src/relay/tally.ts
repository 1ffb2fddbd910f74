/** The ledger as sums for each contributor, for the relay's operator. */
import { HeddleError } from "../base/assert.ts";
import type { Bytes, ContributorId } from "../base/bytes.ts";
import { decodeEntry } from "../protocol/chain.ts";
import { decodeHeader } from "../protocol/codec.ts";

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
