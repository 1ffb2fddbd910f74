import { describe, expect, test } from "vitest";
import type { ContributionId } from "../base/bytes.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { ANSWER_MS, type Pending } from "./state.ts";
import { digest, head, pending, train, types, Walk } from "./walk.fixture.ts";

const made = (assignment: string, of: Pending) =>
  ({ type: "finished", assignment, result: { type: "contribution", pending: of } }) as const;
const verdict = ({ id: contribution }: Pending, of: Verdict = { type: "accepted" }) =>
  ({ type: "verdict", contribution, verdict: of }) as const;
const refused: Verdict = { type: "refused", reason: "late" };
const have = ({ id: contribution, pieces }: Pending) => ({ type: "have", contribution, pieces }) as const;
const next: Pending = { ...pending, id: digest("9") as string as ContributionId, round: 1, baseVersion: 1 };

/** Its contribution to round 0 is on its way while the next version comes. */
function walked(lateShare = 0.5): Walk {
  const walk = new Walk();
  walk.lateShare = lateShare;
  walk.settle();
  walk.receive({ type: "assign", assignment: train("t0", 0) });
  walk.on(made("t0", pending));
  walk.receive({ type: "version", head: head(1) });
  return walk;
}

describe("a contribution that is still on its way when its round is over", () => {
  test("goes on while the next one is made, which is sent after it; each is settled by its own verdict", () => {
    const walk = walked();
    expect(types(walk.on({ type: "fetched", version: 1, digest: digest("1") }))).toEqual(["ready"]);
    expect(types(walk.receive({ type: "assign", assignment: train("t1", 1) }))).toEqual(["work"]);
    expect(types(walk.on(made("t1", next)))).toEqual(["ready"]); // as one that may validate
    expect(walk.state).toMatchObject({ pending: next, late: pending, upload: { id: pending.id } });
    expect(walk.receive(have(pending))).toMatchObject([{ type: "upload", id: next.id }]);
    walk.receive(have(next));
    expect(walk.receive(verdict(next))).toMatchObject([{ type: "settle", id: next.id, outcome: "accepted" }]);
    expect(walk.state).toMatchObject({ pending: null, late: pending, upload: { id: pending.id } });
    expect(types(walk.receive(verdict(pending)))).toEqual(["settle"]);
    expect(walk.state).toMatchObject({ pending: null, late: null, upload: null, accepted: 2 });
  });

  test("keeps a third from being made until its verdict is here", () => {
    const walk = walked();
    walk.on({ type: "fetched", version: 1, digest: digest("1") });
    walk.receive({ type: "assign", assignment: train("t1", 1) });
    walk.on(made("t1", next));
    walk.receive({ type: "version", head: head(2) });
    expect(types(walk.on({ type: "fetched", version: 2, digest: digest("2") }))).toEqual([]);
    expect(types(walk.receive(verdict(pending, refused)))).toEqual(["settle", "upload", "ready"]);
    expect(types(walk.receive({ type: "assign", assignment: train("t2", 2) }))).toEqual(["work"]);
  });

  test("is sent anew on a new link, the older one first, and is the same after a restart", () => {
    const walk = walked();
    walk.on({ type: "fetched", version: 1, digest: digest("1") });
    walk.receive({ type: "assign", assignment: train("t1", 1) });
    walk.on(made("t1", next));
    walk.receive(have(pending));
    walk.on({ type: "linkEnded", dial: walk.state.dial, reason: "cut" });
    expect(walk.connect(1).filter(({ type }) => type === "upload")).toMatchObject([{ id: pending.id }]);
    const again = new Walk();
    again.lateShare = 0.5;
    again.connect(1);
    const effects = again.on({ type: "prepared", pending: next, late: pending });
    expect(effects.filter(({ type }) => type === "upload")).toMatchObject([{ id: pending.id }]);
    expect(again.receive(have(pending)).filter(({ type }) => type === "upload")).toMatchObject([{ id: next.id }]);
    again.receive(verdict(pending));
    expect(again.state).toMatchObject({ pending: next, late: null, accepted: 1 });
  });

  test("is given up a while after the version that no round of it leads to, and not before", () => {
    const walk = walked();
    walk.on({ type: "fetched", version: 1, digest: digest("1") });
    walk.receive(have(pending));
    expect(types(walk.on({ type: "woke" }, 2 * ANSWER_MS))).not.toContain("settle");
    walk.receive({ type: "version", head: head(2) });
    expect(types(walk.on({ type: "woke" }, ANSWER_MS - 2))).not.toContain("settle");
    expect(walk.on({ type: "woke" }, 2)).toMatchObject([{ type: "settle", id: pending.id, outcome: "kept" }]);
  });

  test("is waited for where the charter takes nothing late", () => {
    const walk = walked(0);
    expect(types(walk.on({ type: "fetched", version: 1, digest: digest("1") }))).toEqual([]);
    expect(types(walk.receive({ type: "assign", assignment: train("t1", 1) }))).toEqual([]);
    expect(types(walk.receive(verdict(pending, refused)))).toEqual(["settle", "work"]);
  });
});
