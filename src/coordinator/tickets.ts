/**
 * The queue of those who want a session while there is none to be had, or more of them than can be greeted. Nobody waits on a link: each is
 * told a time to come back, one after the other in the order in which they asked, and whoever comes back at its time goes before those
 * who ask for the first time. A ticket is remembered by the device's id; what is remembered is bounded.
 */
import type { Rate } from "../base/bucket.ts";
import type { ContributorId } from "../base/bytes.ts";

/** Sessions that can be begun: each costs signatures, and a new device an entry of the ledger that is on the disk before it is welcomed. */
export const JOIN_RATE: Rate = { perS: 100, burst: 200 };
/** Nobody is told to come back later than after this. */
export const RETRY_MS_MAX = 600_000;
/** Whoever finds all sessions taken comes back no sooner than after this. */
export const FULL_MS = 30_000;
/** All sessions are taken to end in this time, where those that ended tell nothing better. */
const TURNOVER_MS = 120_000;
/** Tickets that are remembered. */
const TICKETS_MAX = 20_000;
/** A ticket is good for so long after its time, and for half of its wait besides: clients come later than they are told. */
const KEEP_MS = 60_000;
/** How much one session's end changes the estimate of the time between two. */
const LEARNING = 0.05;

export interface Tickets {
  /** Null: come in now. Else milliseconds after which to come back. */
  ask(contributor: ContributorId, hasRoom: boolean, nowMs: number): number | null;
  /** Somebody came in without asking: the others' turns come later by as much as that takes. */
  passed(nowMs: number): void;
  /** A device has its session: its ticket is used. */
  used(contributor: ContributorId): void;
  /** A session has ended. */
  freed(nowMs: number): void;
  readonly size: number;
}

interface Ticket {
  readonly turnMs: number;
  readonly untilMs: number;
}

/** `sessionsMax`: as it is at the moment. */
export function createTickets(sessionsMax: () => number): Tickets {
  const tickets = new Map<ContributorId, Ticket>(); // in the order in which they were given
  const joinMs = 1_000 / JOIN_RATE.perS;
  let freeMs = TURNOVER_MS / sessionsMax();
  let freedMs: number | null = null;
  /** The last turn that was given. */
  let lastMs = Number.NEGATIVE_INFINITY;
  const nextTurn = (nowMs: number): number => Math.max(lastMs, nowMs - JOIN_RATE.burst * joinMs) + joinMs;
  const forgetOld = (nowMs: number): void => {
    for (const [contributor, { untilMs }] of tickets) {
      if (untilMs >= nowMs && tickets.size < TICKETS_MAX) {
        return;
      }
      tickets.delete(contributor);
    }
  };
  const give = (contributor: ContributorId, turnMs: number, nowMs: number): number => {
    const waitMs = Math.ceil(turnMs - nowMs);
    forgetOld(nowMs);
    tickets.delete(contributor);
    tickets.set(contributor, { turnMs: nowMs + waitMs, untilMs: nowMs + 1.5 * waitMs + KEEP_MS });
    return waitMs;
  };
  return {
    ask: (contributor, hasRoom, nowMs) => {
      const own = tickets.get(contributor);
      const isInTime = own !== undefined && nowMs <= own.untilMs;
      if (isInTime && nowMs < own.turnMs) {
        return Math.ceil(own.turnMs - nowMs);
      }
      if (isInTime) {
        return hasRoom ? null : give(contributor, nowMs + FULL_MS, nowMs);
      }
      if (hasRoom && nextTurn(nowMs) <= nowMs) {
        lastMs = nextTurn(nowMs);
        return null;
      }
      const turnMs = hasRoom ? nextTurn(nowMs) : Math.max(lastMs, nowMs + FULL_MS) + Math.max(joinMs, freeMs);
      lastMs = Math.min(turnMs, nowMs + RETRY_MS_MAX);
      return give(contributor, lastMs, nowMs);
    },
    passed: (nowMs) => {
      lastMs = Math.min(nextTurn(nowMs), nowMs + RETRY_MS_MAX);
    },
    used: (contributor) => {
      tickets.delete(contributor);
    },
    freed: (nowMs) => {
      const gapMs = Math.min(TURNOVER_MS / sessionsMax(), freedMs === null ? Infinity : nowMs - freedMs);
      freeMs += LEARNING * (gapMs - freeMs);
      freedMs = nowMs;
    },
    get size() {
      return tickets.size;
    },
  };
}
