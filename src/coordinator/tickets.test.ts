import { describe, expect, test } from "vitest";
import type { ContributorId } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { createGate, MEMBER_SHARE } from "./gate.ts";
import { createTickets, FULL_MS, JOIN_RATE, RETRY_MS_MAX } from "./tickets.ts";

const idOf = (i: number): ContributorId => i.toString(16).padStart(64, "0") as ContributorId;

describe("createTickets()", () => {
  test("lets in a burst at once, and gives the others turns as fast as sessions can be begun", () => {
    const tickets = createTickets(() => 5_000);
    const waits = Array.from({ length: 1_200 }, (_, i) => tickets.ask(idOf(i), true, 0));
    expect(waits.slice(0, JOIN_RATE.burst).every((wait) => wait === null)).toBe(true);
    const later = waits.slice(JOIN_RATE.burst) as number[];
    expect(later).toEqual(later.map((_, i) => ((i + 1) * 1_000) / JOIN_RATE.perS));
  });

  test("lets in whoever comes at its turn before those who ask for the first time", () => {
    const tickets = createTickets(() => 5_000);
    Array.from({ length: JOIN_RATE.burst + 100 }, (_, i) => tickets.ask(idOf(i), true, 0));
    const own = idOf(JOIN_RATE.burst + 50);
    expect(tickets.ask(own, true, 100)).toBe(410); // too early: its turn stays
    expect(tickets.ask(idOf(9_999), true, 510)).toBeGreaterThan(0);
    expect(tickets.ask(own, true, 510)).toBeNull();
  });

  test("remembers a bounded number of tickets, and forgets those that nobody came for", () => {
    const tickets = createTickets(() => 10);
    const waits = Array.from({ length: 50_000 }, (_, i) => tickets.ask(idOf(i), false, i) ?? 0);
    expect(waits.every((wait) => wait > 0 && wait <= RETRY_MS_MAX)).toBe(true);
    expect(tickets.size).toBeLessThanOrEqual(20_000);
    tickets.ask(idOf(0), false, 1e8);
    expect(tickets.size).toBe(1);
  });
});

describe("a surge of 20 times the sessions within a minute", () => {
  interface Someone {
    readonly arrivedMs: number;
    servedMs: number | null;
    asks: number;
  }

  /** Each stays for a while, leaves, and never comes again. `stayMs` is the mean. */
  function surge(sessionsMax: number, stayMs: number) {
    const rng = createRng("surge");
    const gate = createGate({ sessionsMax });
    const people: Someone[] = Array.from({ length: 20 * sessionsMax }, () => {
      return { arrivedMs: rng.float() * 60_000, servedMs: null, asks: 0 };
    });
    /** What happens at each tenth of a second. */
    const agenda = new Map<number, (() => void)[]>();
    const at = (ms: number, act: () => void): void => {
      const slot = Math.ceil(ms / 100);
      agenda.set(slot, [...(agenda.get(slot) ?? []), act]);
    };
    const asksOf: number[] = [];
    let most = 0;
    let waitMost = 0;
    const ask = (someone: Someone, i: number, nowMs: number): void => {
      someone.asks += 1;
      asksOf[Math.floor(nowMs / 1_000)] = (asksOf[Math.floor(nowMs / 1_000)] ?? 0) + 1;
      const wait = gate.hello({ contributor: idOf(i), prefix: null, isMember: false }, nowMs);
      if (wait === null) {
        gate.proven(idOf(i));
        someone.servedMs = nowMs;
        most = Math.max(most, gate.sessions);
        const endMs = nowMs + stayMs * (0.5 + rng.float());
        at(endMs, () => gate.left(null, endMs));
      } else {
        waitMost = Math.max(waitMost, wait);
        at(nowMs + wait * (1 + rng.float() / 2), () => ask(someone, i, clock * 100));
      }
    };
    people.forEach((someone, i) => at(someone.arrivedMs, () => ask(someone, i, clock * 100)));
    let clock = 0;
    for (; clock < 10 * 36_000 && people.some(({ servedMs }) => servedMs === null); clock += 1) {
      agenda.get(clock)?.forEach((act) => act());
      agenda.delete(clock);
    }
    return { people, asksOf, most, waitMost, gate, endMs: clock * 100 };
  }

  test("ends with everyone served, nobody waiting for longer than told, never more than there is room for", () => {
    const sessionsMax = 200;
    const { people, most, waitMost, asksOf, endMs } = surge(sessionsMax, 30_000);
    expect(people.every(({ servedMs }) => servedMs !== null)).toBe(true);
    expect(most).toBeLessThanOrEqual(sessionsMax);
    expect(waitMost).toBeLessThanOrEqual(RETRY_MS_MAX);
    // Twenty generations of half a minute are the least; turns that nobody takes and jitter cost the rest.
    expect(endMs).toBeLessThan(4 * 20 * 30_000);
    // After the minute in which all come they return spread out: no second has as many as the mean one of that minute.
    const returns = Array.from(asksOf.slice(60 + FULL_MS / 1_000), (asks) => asks ?? 0);
    expect(Math.max(...returns)).toBeLessThan((20 * sessionsMax) / 60);
    const asks = people.map((someone) => someone.asks).toSorted((a, b) => a - b);
    expect(asks[Math.floor(asks.length / 2)]).toBeLessThanOrEqual(6);
  });

  test("serves them roughly in the order in which they came", () => {
    const { people } = surge(200, 30_000);
    const byArrival = people.toSorted((a, b) => a.arrivedMs - b.arrivedMs);
    const quarter = people.length / 4;
    const means = [0, 1, 2, 3].map((q) => {
      const some = byArrival.slice(q * quarter, (q + 1) * quarter);
      return some.reduce((sum, { servedMs }) => sum + (servedMs ?? 0), 0) / quarter;
    });
    expect(means).toEqual(means.toSorted((a, b) => a - b));
  });

  test("keeps room for members, who come in though all is taken", () => {
    const gate = createGate({ sessionsMax: 50 });
    const join = (i: number, isMember: boolean): boolean =>
      gate.hello({ contributor: idOf(i), prefix: null, isMember }, 0) === null;
    expect(Array.from({ length: 60 }, (_, i) => join(i, false)).filter(Boolean).length).toBe(50);
    const members = Array.from({ length: 60 }, (_, i) => join(100 + i, true)).filter(Boolean).length;
    expect(members).toBe(50 * MEMBER_SHARE);
  });
});
