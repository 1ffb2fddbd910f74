import { describe, expect, test } from "vitest";
import { contributorIdOf } from "../protocol/codec.ts";
import { createGate, GREETINGS_MAX, HELLO_RATE, LINK_RATE, MEMBER_SHARE } from "./gate.ts";
import { RETRY_MS_MAX } from "./tickets.ts";

const someone = contributorIdOf(new Uint8Array(32));
const from = (prefix: string | null) => ({ contributor: someone, prefix, isMember: false });

describe("createGate()", () => {
  test("lets a prefix open a burst of links, then so many a second, and tells each of the others its own time", () => {
    const gate = createGate();
    const answers = Array.from({ length: LINK_RATE.burst + 50 }, () => gate.link("192.0.2.0/24", 0, 0));
    expect(answers.slice(0, LINK_RATE.burst).every((one) => one === null)).toBe(true);
    const waits = answers.slice(LINK_RATE.burst) as number[];
    expect(new Set(waits).size).toBe(50);
    expect(waits.at(-1)).toBe((50 * 1_000) / LINK_RATE.perS);
    expect(gate.link("198.51.100.0/24", 0, 0)).toBeNull();
    expect(gate.link("192.0.2.0/24", 0, 1_000 / LINK_RATE.perS)).toBeNull();
  });

  test("has the same for hellos, and none of it for this machine's own", () => {
    const gate = createGate();
    const admitted = (prefix: string | null): number =>
      Array.from({ length: 100 }, () => gate.hello(from(prefix), 0)).filter((one) => one === null).length;
    expect([admitted("192.0.2.0/24"), admitted(null)]).toEqual([HELLO_RATE.burst, 100]);
  });

  test("never sends anybody away for longer than ten minutes", () => {
    const gate = createGate();
    const waits = Array.from({ length: 20_000 }, () => gate.hello(from("192.0.2.0/24"), 0) ?? 0);
    expect(Math.max(...waits)).toBe(RETRY_MS_MAX);
  });

  test("gives a prefix its share of the sessions, and room that was left", () => {
    const gate = createGate({ sessionsMax: 50, prefixShare: 0.2 });
    const join = (prefix: string, nowMs: number): boolean => gate.hello(from(prefix), nowMs) === null;
    const all = (prefix: string): number =>
      Array.from({ length: 15 }, (_, i) => join(prefix, i)).filter(Boolean).length;
    expect(["a", "b", "c", "d", "e", "f"].map(all)).toEqual([10, 10, 10, 10, 10, 0]);
    expect(gate.sessions).toBe(50);
    gate.left("a", 50_000);
    expect([join("b", 60_000), join("f", 60_000), join("f", 60_000)]).toEqual([false, true, false]);
  });

  test("gives out as many places as the relays of the moment have", () => {
    let relays = 1;
    const gate = createGate({ sessionsMax: 50, prefixShare: 0.2, relays: () => relays });
    const join = (): number =>
      Array.from({ length: 40 }, () => gate.hello(from("192.0.2.0/24"), 0)).filter((one) => one === null).length;
    expect(join()).toBe(10);
    relays = 2;
    expect(join()).toBe(10);
    relays = 1;
    expect(join()).toBe(0);
  });

  test("gives a prefix that names members' keys little more than its share", () => {
    const gate = createGate({ sessionsMax: 100, prefixShare: 0.2 });
    const named = { contributor: someone, prefix: "192.0.2.0/24", isMember: true };
    const admitted = Array.from({ length: 200 }, (_, i) => gate.hello(named, 500 * i)).filter((one) => one === null);
    expect(admitted.length).toBe(20 * (1 + MEMBER_SHARE));
  });

  test("takes only so many links beyond the sessions", () => {
    const gate = createGate({ sessionsMax: 10 });
    const most = 10 * (1 + MEMBER_SHARE) + GREETINGS_MAX;
    expect(gate.link(null, most - 1, 0)).toBeNull();
    expect(gate.link(null, most, 0)).toBeGreaterThan(0);
  });
});
