/**
 * Who may open a link and begin a session now, and when the others are to come back. Counts per network prefix, in bounded memory; this
 * machine's own connections have no prefix and are not counted (a proxy in front is trusted to name the real one, or none). Those who
 * have work unanswered here come before all others, and find room kept for them.
 */
import type { ContributorId } from "../base/bytes.ts";
import { createBuckets, type Rate } from "../base/bucket.ts";
import { createCounts } from "../base/counts.ts";
import { SESSIONS_MAX } from "../protocol/limits.ts";
import { createTickets, FULL_MS, RETRY_MS_MAX } from "./tickets.ts";

/** New links of one prefix, and hellos, each of which costs signatures. */
export const LINK_RATE: Rate = { perS: 5, burst: 100 };
export const HELLO_RATE: Rate = { perS: 2, burst: 50 };
/** Prefixes that are told apart at a time. */
export const PREFIXES_MAX = 20_000;
/** Links beyond the sessions: those that shake hands. */
export const GREETINGS_MAX = 500;
/** Share of all sessions that one prefix may have, unless configured. */
export const PREFIX_SHARE = 0.2;
/** Sessions beyond the limit, and beyond a prefix's, that are kept for members, as a share of it. */
export const MEMBER_SHARE = 0.1;
/** How long those wait who find no room without being told a turn, each a little longer than the one before. */
const FULL_RATE: Rate = { perS: 10, burst: 1 };

export interface GateOptions {
  /** Of one relay. */
  readonly sessionsMax?: number;
  /** That serve the run at the moment; default: one. */
  readonly relays?: () => number;
  readonly prefixShare?: number;
}

export interface Joiner {
  /** As it says; proven later. */
  readonly contributor: ContributorId;
  readonly prefix: string | null;
  /** It has work here that is not answered, or a session. */
  readonly isMember: boolean;
}

/** Each answer is null, or milliseconds after which to come back. */
export interface Gate {
  /** A new link; `links` are open already. */
  link(prefix: string | null, links: number, nowMs: number): number | null;
  /** A hello; who gets in is counted until `left`. */
  hello(joiner: Joiner, nowMs: number): number | null;
  /** Who got in has proven its key. */
  proven(contributor: ContributorId): void;
  left(prefix: string | null, nowMs: number): void;
  /** Counted now. */
  readonly sessions: number;
}

export function createGate(options: GateOptions = {}): Gate {
  const { sessionsMax = SESSIONS_MAX, relays = () => 1, prefixShare = PREFIX_SHARE } = options;
  const allMax = (): number => sessionsMax * relays();
  /** With the room that is kept for members. */
  const withMembers = (max: number): number => max + Math.ceil(max * MEMBER_SHARE);
  const prefixMax = (): number => Math.max(1, Math.floor(allMax() * prefixShare));
  const linkBuckets = createBuckets(LINK_RATE, PREFIXES_MAX);
  const helloBuckets = createBuckets(HELLO_RATE, PREFIXES_MAX);
  const waits = createBuckets(FULL_RATE, PREFIXES_MAX);
  const tickets = createTickets(allMax);
  const sessionsOf = createCounts();
  let sessions = 0;
  const later = (waitMs: number): number => Math.ceil(Math.min(RETRY_MS_MAX, waitMs));
  const whenFull = (key: string, nowMs: number): number => later(FULL_MS + waits.take(key, nowMs));
  const mayJoin = ({ contributor, prefix, isMember }: Joiner, nowMs: number): number | null => {
    const waitMs = prefix === null ? 0 : helloBuckets.take(prefix, nowMs);
    if (waitMs > 0) {
      return later(waitMs);
    }
    const own = sessionsOf.of(prefix);
    // Whose key it is is not proven yet, and members' keys are public.
    if (isMember && sessions < withMembers(allMax()) && own < withMembers(prefixMax())) {
      tickets.passed(nowMs);
      return null;
    }
    return own >= prefixMax() ? whenFull(prefix ?? "", nowMs) : tickets.ask(contributor, sessions < allMax(), nowMs);
  };
  return {
    link: (prefix, links, nowMs) => {
      const waitMs = prefix === null ? 0 : linkBuckets.take(prefix, nowMs);
      if (waitMs > 0) {
        return later(waitMs);
      }
      return links >= withMembers(allMax()) + GREETINGS_MAX ? whenFull("", nowMs) : null;
    },
    hello: (joiner, nowMs) => {
      const retryMs = mayJoin(joiner, nowMs);
      if (retryMs === null) {
        sessions += 1;
        sessionsOf.add(joiner.prefix);
      }
      return retryMs;
    },
    proven: (contributor) => tickets.used(contributor),
    left: (prefix, nowMs) => {
      sessions -= 1;
      tickets.freed(nowMs);
      sessionsOf.remove(prefix);
    },
    get sessions() {
      return sessions;
    },
  };
}
