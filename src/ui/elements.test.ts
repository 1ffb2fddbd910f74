import * as fc from "fast-check";
import { afterAll, describe, expect, test, vi } from "vitest";

// Element classes extend HTMLElement, which Node lacks; only their pure parts are tested here, the rest in a browser.
vi.stubGlobal("HTMLElement", EventTarget);
const stubNode = { setAttribute: () => undefined, append: () => undefined };
vi.stubGlobal("document", { createElement: () => stubNode, createElementNS: () => stubNode });
afterAll(() => vi.unstubAllGlobals());
const { laneOwners } = await import("./threads.ts");
const { clampDuty } = await import("./power.ts");
const { thin } = await import("./chart.ts");
const { tracePath } = await import("./meter.ts");
const { peersSentence } = await import("./peers.ts");
const { consentParts } = await import("./consent-parts.ts");

describe("elements", () => {
  test("clampDuty() gives whole steps of five percent between 5 and 100 for any number", () => {
    expect(clampDuty(Number.NaN)).toBe(0.05);
    expect(clampDuty(0)).toBe(0.05);
    expect(clampDuty(0.52)).toBe(0.5);
    expect(clampDuty(7)).toBe(1);
    fc.assert(
      fc.property(fc.double(), (duty) => {
        const clamped = clampDuty(duty);
        expect(clamped).toBeGreaterThanOrEqual(0.05);
        expect(clamped).toBeLessThanOrEqual(1);
        expect((clamped * 20) % 1).toBeCloseTo(0);
      }),
    );
  });

  test("peersSentence() says what is shown to whom, and what went and came once it is on", () => {
    const view = { able: true, on: true, bytesServed: 2e6, bytesFetched: 0, serving: 1, sentence: "Some words." };
    expect(peersSentence(null)).toMatch(/see this device’s IP address, until you untick this\.$/);
    expect(peersSentence(view)).toContain(
      "Sent to others 2\u00a0MB, sending now; got from others 0\u00a0B. Some words.",
    );
    expect(peersSentence({ ...view, on: false })).toBe(peersSentence(null));
  });

  test("laneOwners() gives each contributor one lane and moves nobody when one joins", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 3, max: 60 }),
        fc.integer({ min: 0, max: 80 }),
        fc.boolean(),
        (lanes, connected, taking) => {
          const owners = laneOwners(lanes, connected, taking);
          expect(owners.size).toBeLessThanOrEqual(lanes);
          expect([...owners.values()].filter((owner) => owner === "mine").length).toBe(taking ? 1 : 0);
          const more = laneOwners(lanes, connected + 1, taking);
          for (const [lane, owner] of owners) {
            expect(more.get(lane)).toBe(owner);
          }
        },
      ),
    );
    expect(laneOwners(20, 7, true).size).toBe(7);
    expect(laneOwners(20, 7, false).size).toBe(7);
  });

  test("thin() keeps the first and the last point and never more than it may", () => {
    const points = Array.from({ length: 5_000 }, (_, i) => i);
    const kept = thin(points, 100);
    expect(kept.length).toBe(100);
    expect([kept[0], kept.at(-1)]).toEqual([0, 4_999]);
    expect(thin([1, 2], 100)).toEqual([1, 2]);
  });

  test("tracePath() is a path for none, one and many readings", () => {
    for (const readings of [[], [3], [0, 0, 0], [1, 5, 2]]) {
      expect(tracePath(readings)).toMatch(/^M[\d. ]+[HL]/);
    }
  });

  test("consentParts() names power, memory, traffic, what is sent, the IP address and how to stop", () => {
    const terms = {
      name: "n",
      purpose: "p",
      downloadBytes: 5e6,
      round: { upBytes: 2e5, downBytes: 1.04e5, ms: 60_000 },
      memoryBytes: 3e8,
      lasts: "24 hours",
      duty: 0.2,
    } as const;
    const text = consentParts(terms).flat().join(" ");
    for (const word of [
      "20\u00a0%",
      "300\u00a0MB",
      "5\u00a0MB",
      "200\u00a0kB up",
      "100\u00a0kB down",
      "18\u00a0MB an hour",
      "electricity",
      "Never your files",
      "IP address",
      "Stop",
      "24 hours",
    ]) {
      expect(text).toContain(word);
    }
  });
});
