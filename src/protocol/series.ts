/**
 * A run's ledger as one record a round, in order: what was made, by whom, with what verdicts, and sums since the start, so that
 * whoever shows the run as it was at some round looks one record up and adds nothing. Folded entry by entry; what it keeps is
 * bounded, however long the ledger gets. The contributions of single rounds are not kept: they are read again from the ledger.
 */
import type { ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import { dropOldest } from "../base/newest.ts";
import type { SignedEntry } from "./chain.ts";
import { decodeHeader } from "./codec.ts";
import type { LedgerEvent } from "./ledger.ts";
import type { ContributionHeader, Losses } from "./messages.ts";
import type { Reason, Verdict } from "./verdict.ts";

/** Rounds remembered, the newest. */
export const ROUNDS_MAX = 100_000;
/** Moments remembered, the newest. */
export const MOMENTS_MAX = 10_000;
/** Devices whose program is remembered, the latest to be introduced. */
const DEVICES_KEPT = 100_000;

/** What kind of program a device runs, as it says itself. */
export const CLIENTS = ["page", "widget", "headless", "other"] as const;
export type Client = (typeof CLIENTS)[number];
export type Clients = Readonly<Record<Client, number>>;

/** Since the run began. */
export interface Totals {
  readonly accepted: number;
  /** Refused contributions by reason. */
  readonly refused: Readonly<Partial<Record<Reason, number>>>;
  readonly refusals: number;
  /** Tokens that accepted contributions were trained on. */
  readonly tokens: number;
  /** Wire bytes, all contributors together, as of the last version. */
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** Devices that were ever introduced. */
  readonly devices: Clients;
  /** Verdicts that a validator's measurement decided; the relay's referee or checks decided the others. */
  readonly judgedByValidators: number;
  /** Rounds that ended without a version. */
  readonly skipped: number;
}

/** A round that has ended; number 0 is the run's beginning. */
export interface RoundRecord {
  readonly round: number;
  /** Its entries, those since the round before among them: `from` … `to` (exclusive). */
  readonly from: number;
  readonly to: number;
  readonly openedMs: number;
  readonly endedMs: number;
  /** False where it ended without an accepted contribution. */
  readonly merged: boolean;
  /** The newest version after it. */
  readonly version: number;
  readonly digest: Digest;
  /** Of that version. */
  readonly evalLoss: number;
  /** Devices that contributed, by program; those that trained on data of their own are counted once more. */
  readonly contributors: Clients;
  readonly privateData: number;
  readonly accepted: number;
  readonly refused: number;
  /** Of accepted contributions. */
  readonly tokens: number;
  readonly tokensPerS: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly totals: Totals;
}

/** Something that happened beside the rounds. */
export interface Moment {
  readonly entry: number;
  readonly timeMs: number;
  /** The round that was open, or the next one. */
  readonly round: number;
  readonly event: Extract<
    LedgerEvent,
    { readonly type: "started" | "led" | "paused" | "resumed" | "banned" | "unbanned" }
  >;
}

/** A contribution as its round's entries tell it. */
export interface ContributionRecord {
  readonly entry: number;
  readonly contribution: ContributionId;
  readonly header: ContributionHeader;
  readonly client: Client;
  readonly norm: number;
  readonly wireBytes: number;
  /** Null until it is judged. */
  readonly judged: {
    readonly verdict: Verdict;
    readonly by: ContributorId | "relay";
    readonly losses: Losses | null;
  } | null;
}

export interface Series {
  /** Folds the next entry in. Entries that make no sense change nothing. */
  take(entry: SignedEntry): void;
  /** Takes out what was added since the last call. */
  drain(): { readonly rounds: readonly RoundRecord[]; readonly moments: readonly Moment[] };
  clientOf(contributor: ContributorId): Client;
}

const NO_CLIENTS: Clients = { page: 0, widget: 0, headless: 0, other: 0 };
const NO_TOTALS: Totals = {
  accepted: 0,
  refused: {},
  refusals: 0,
  tokens: 0,
  bytesUp: 0,
  bytesDown: 0,
  devices: NO_CLIENTS,
  judgedByValidators: 0,
  skipped: 0,
};

export function createSeries(): Series {
  let totals = NO_TOTALS;
  let from = 0;
  let round = 0;
  let openedMs = 0;
  let head = { version: 0, digest: "" as Digest, evalLoss: Number.NaN };
  let refused = 0;
  let rounds: RoundRecord[] = [];
  let moments: Moment[] = [];
  const clients = new Map<ContributorId, Client>();
  const open = new Map<ContributionId, ContributionHeader>();
  const accepted = new Set<ContributionId>();

  function end({ sequence, timeMs, event }: SignedEntry, merged: boolean): void {
    const authors = new Map([...open.values()].map(({ contributor, privateData }) => [contributor, privateData]));
    const tokens = [...open].reduce((sum, [id, header]) => sum + (accepted.has(id) ? header.tokens : 0), 0);
    const { bytesUp, bytesDown, tokensPerS } =
      event.type === "merged" ? event : { bytesUp: 0, bytesDown: 0, tokensPerS: 0 };
    totals = {
      ...totals,
      tokens: totals.tokens + tokens,
      bytesUp: totals.bytesUp + bytesUp,
      bytesDown: totals.bytesDown + bytesDown,
      skipped: totals.skipped + (merged || round === 0 ? 0 : 1),
    };
    rounds.push({
      round,
      from,
      to: sequence + 1,
      openedMs,
      endedMs: timeMs,
      merged,
      ...head,
      contributors: [...authors.keys()].reduce((all, author) => counted(all, clientOf(author)), NO_CLIENTS),
      privateData: [...authors.values()].filter(Boolean).length,
      accepted: accepted.size,
      refused,
      tokens,
      tokensPerS,
      bytesUp,
      bytesDown,
      totals,
    });
    from = sequence + 1;
    round += 1;
    refused = 0;
    open.clear();
    accepted.clear();
  }

  function clientOf(contributor: ContributorId): Client {
    return clients.get(contributor) ?? "other";
  }

  function introduce(contributor: ContributorId, agent: string): void {
    const client = readClient(agent);
    clients.delete(contributor);
    clients.set(contributor, client);
    totals = { ...totals, devices: counted(totals.devices, client) };
    dropOldest(clients, DEVICES_KEPT);
  }

  function judge({ contribution, verdict, by }: Extract<LedgerEvent, { type: "judged" }>): void {
    if (by !== "relay") {
      totals = { ...totals, judgedByValidators: totals.judgedByValidators + 1 };
    }
    if (verdict.type === "accepted") {
      accepted.add(contribution);
      totals = { ...totals, accepted: totals.accepted + 1 };
    } else {
      refused += 1;
      const { reason } = verdict;
      const reasons = { ...totals.refused, [reason]: (totals.refused[reason] ?? 0) + 1 };
      totals = { ...totals, refused: reasons, refusals: totals.refusals + 1 };
    }
  }

  function take(entry: SignedEntry): void {
    const { event, timeMs, sequence } = entry;
    switch (event.type) {
      case "started":
        head = { version: event.head.version, digest: event.head.digest, evalLoss: event.head.evalLoss };
        openedMs = timeMs;
        end(entry, false);
        moments.push({ entry: sequence, timeMs, round: 0, event });
        return;
      case "introduced":
        introduce(event.contributor, event.agent);
        return;
      case "opened":
        round = event.round;
        openedMs = timeMs;
        return;
      case "contributed": {
        const header = decodeHeader(event.header);
        if (header.ok) {
          open.set(event.contribution, header.value);
        }
        return;
      }
      case "judged":
        judge(event);
        return;
      case "closed":
        return;
      case "skipped":
        end(entry, false);
        return;
      case "merged":
        head = { version: event.head.version, digest: event.head.digest, evalLoss: event.head.evalLoss };
        end(entry, true);
        return;
      case "led":
      case "paused":
      case "resumed":
      case "banned":
      case "unbanned":
        moments.push({ entry: sequence, timeMs, round, event });
        return;
      default:
        event satisfies never;
    }
  }

  function drain(): ReturnType<Series["drain"]> {
    const added = { rounds, moments };
    rounds = [];
    moments = [];
    return added;
  }

  return { take, drain, clientOf };
}

/** The contributions of a round, from its entries in order; entries of other kinds may be among them. */
export function readContributions(
  entries: readonly SignedEntry[],
  clientOf: (contributor: ContributorId) => Client,
): readonly ContributionRecord[] {
  const found = new Map<ContributionId, ContributionRecord>();
  for (const { sequence: entry, event } of entries) {
    if (event.type === "contributed") {
      const { contribution, norm, wireBytes } = event;
      const header = decodeHeader(event.header);
      if (header.ok) {
        const client = clientOf(header.value.contributor);
        found.set(contribution, { entry, contribution, header: header.value, client, norm, wireBytes, judged: null });
      }
    } else if (event.type === "judged") {
      const known = found.get(event.contribution);
      if (known !== undefined) {
        const { verdict, by, losses } = event;
        found.set(event.contribution, { ...known, judged: { verdict, by, losses } });
      }
    }
  }
  return [...found.values()];
}

/** Contributions judged in the hour until round `at` ended, verdicts of that round among them; for an hour that began with the run. */
export function inLastHour(
  rounds: readonly RoundRecord[],
  at: number,
): { contributions: number; tokens: number; ms: number } {
  const now = rounds[at];
  const first = rounds[0];
  if (now === undefined || first === undefined) {
    return { contributions: 0, tokens: 0, ms: 0 };
  }
  const sinceMs = now.endedMs - HOUR_MS;
  let [low, high] = [0, at];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((rounds[middle] as RoundRecord).endedMs <= sinceMs) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const before = rounds[Math.max(0, low - 1)] as RoundRecord;
  const judged = ({ totals }: RoundRecord): number => totals.accepted + totals.refusals;
  return {
    contributions: judged(now) - judged(before),
    tokens: now.totals.tokens - before.totals.tokens,
    ms: Math.min(HOUR_MS, now.endedMs - first.endedMs),
  };
}

const HOUR_MS = 3_600_000;

function counted(clients: Clients, client: Client): Clients {
  return { ...clients, [client]: clients[client] + 1 };
}

function readClient(agent: string): Client {
  const name = /^(?:heddle-)?([a-z]+)/.exec(agent)?.[1];
  return CLIENTS.find((client) => client === name) ?? "other";
}
