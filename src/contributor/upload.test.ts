import { describe, expect, test } from "vitest";
import { STALL_MS, type Pending } from "./state.ts";
import { viewOf } from "./projection.ts";
import { wakeMs } from "./tick.ts";
import { counters, digest, pending, types, Walk } from "./walk.fixture.ts";

describe("an update in pieces", () => {
  const large: Pending = { ...pending, pieces: 10 };
  const offered = (rtc = false): Walk => {
    const walk = new Walk({ rtc });
    walk.settle(0, large);
    return walk;
  };
  const have = (walk: Walk, pieces: number) => walk.receive({ type: "have", contribution: large.id, pieces });
  const pieces = (from: number, to: number, lane = "ws") => [{ type: "pieces", id: large.id, lane, from, to }];

  test("is sent as far ahead of what the relay has as it may be, and no piece twice", () => {
    const walk = offered();
    expect(have(walk, 0)).toEqual(pieces(0, 3));
    expect(have(walk, 1)).toEqual(pieces(3, 4));
    expect(have(walk, 2)).toEqual(pieces(4, 5));
    expect(have(walk, 5)).toEqual(pieces(5, 8));
    expect(have(walk, 8)).toEqual(pieces(8, 10));
    expect(have(walk, 9)).toEqual([]);
    expect(viewOf(walk.state, counters)).toMatchObject({
      status: "uploading",
      sentence: "Sending the update; 90 % of it has arrived.",
    });
    expect(have(walk, 10)).toEqual([]);
    expect(viewOf(walk.state, counters).status).toBe("waiting");
    expect(walk.receive({ type: "have", contribution: digest("d") as never, pieces: 0 })).toEqual([]);
  });

  test("goes on on a new link where the relay says, and repeats what was damaged", () => {
    const walk = offered();
    have(walk, 0);
    have(walk, 3);
    walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "cut" });
    expect(types(walk.connect())).toContain("upload");
    expect(have(walk, 4)).toEqual(pieces(4, 7));
    expect(have(walk, 4)).toEqual(pieces(4, 7)); // asked for again
    expect(have(walk, 5)).toEqual(pieces(7, 8));
  });

  test("goes back to what the relay has lost, also where it had all of it, and one that went whole becomes a piece", () => {
    const walk = offered();
    have(walk, 0);
    have(walk, 7);
    expect(have(walk, 1)).toEqual(pieces(1, 4));
    expect(have(walk, 2)).toEqual(pieces(4, 5));
    have(walk, 10);
    expect(have(walk, 9)).toEqual(pieces(9, 10));
    expect(viewOf(walk.state, counters).status).toBe("uploading");
    const other = new Walk();
    other.settle(0, pending);
    const haveWhole = (held: number) => other.receive({ type: "have", contribution: pending.id, pieces: held });
    expect(haveWhole(1)).toEqual([]);
    expect(haveWhole(0)).toEqual([{ type: "pieces", id: pending.id, lane: "ws", from: 0, to: 1 }]);
    expect(haveWhole(1)).toEqual([]);
  });

  test("is not stalled while the relay confirms, however long it takes", () => {
    const walk = offered();
    for (let held = 0; held < 8; held += 1) {
      expect(types(have(walk, held))).toEqual(["pieces"]);
      walk.on({ type: "woke" }, STALL_MS - 5_000);
    }
    have(walk, 7); // no progress
    walk.on({ type: "woke" }, 4_990);
    walk.receive({ type: "pong" });
    expect(types(walk.on({ type: "woke" }, 10))).toContain("hangUp");
  });

  test("is not stalled while its lane brings frames over, and only that lane and link", () => {
    const walk = offered();
    have(walk, 0);
    const { dial } = walk.state;
    for (let i = 0; i < 8; i += 1) {
      expect(types(walk.on({ type: "carried", dial, lane: "ws" }, STALL_MS - 1))).not.toContain("hangUp");
      walk.receive({ type: "pong" });
    }
    walk.on({ type: "carried", dial, lane: "rtc" }, STALL_MS - 3);
    walk.on({ type: "carried", dial: dial - 1, lane: "ws" });
    expect(walk.state.upload?.movedMs).toBe(walk.nowMs + 1 - STALL_MS);
    expect(types(walk.effects)).not.toContain("hangUp");
    expect(types(walk.on({ type: "woke" }))).toContain("hangUp");
  });

  test("that is there waits for its verdict no longer because its lane is busy", () => {
    const walk = offered();
    have(walk, 10);
    const before = walk.state.upload;
    walk.on({ type: "carried", dial: walk.state.dial, lane: "ws" });
    expect(walk.state.upload).toEqual(before);
  });

  test("is offered again when a relay without room says", () => {
    const walk = offered();
    walk.receive({ type: "refused", reason: "busy", retryMs: 4_000 });
    const waitMs = walk.state.uploadMs - walk.nowMs;
    expect(waitMs).toBeGreaterThanOrEqual(4_000);
    walk.on({ type: "woke" }, waitMs - 1);
    expect(types(walk.effects)).not.toContain("upload");
    expect(wakeMs(walk.state, walk.nowMs)).toBe(walk.nowMs + 1);
    expect(types(walk.on({ type: "woke" }, 1))).toContain("upload");
  });
});
