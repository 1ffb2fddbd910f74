import { expect, test } from "vitest";
import { decodeEntry } from "../protocol/chain.ts";
import { PIECE_BYTES } from "../protocol/limits.ts";
import { soloCrew } from "../update/solo.ts";
import { loadMergeKernel } from "../wasm/merge.ts";
import { CALM, charterOf } from "./simulation.ts";
import { createWorld } from "./world.ts";

const SESSIONS_MAX = 4;
const MINUTE_MS = 60_000;

test.each([
  ["", 0],
  [", though the relay is killed twice meanwhile", 2],
])(
  "20 times the sessions come within a minute: all are served, no accepted result is lost%s",
  async (_, relayKills) => {
    const world = createWorld({
      seed: 20 + relayKills,
      contributors: 20 * SESSIONS_MAX,
      parameters: 64,
      charter: charterOf(20, { keep: 32, bits: 2, beta: 0.95, together: 0, carry: false }),
      faults: { ...CALM, relayKills },
      pieceBytes: PIECE_BYTES,
      openCrew: soloCrew(await loadMergeKernel()),
      stormMs: MINUTE_MS,
      gate: { sessionsMax: SESSIONS_MAX },
      arriveMs: MINUTE_MS,
    });
    world.start();
    const served = new Set<number>();
    let most = 0;
    /** Everyone leaves once it knows what became of a contribution, and makes room. */
    const look = (): void => {
      most = Math.max(most, world.relay?.view().connected ?? 0);
      for (const [number, { contributor }] of world.machines) {
        const { accepted, refused } = contributor.view();
        if (accepted + refused > 0 && !served.has(number)) {
          served.add(number);
          void contributor.stop();
        }
      }
      world.clock.after(200, look);
    };
    look();
    const all = (): boolean => served.size === 20 * SESSIONS_MAX && world.relay?.view().phase === "gathering";
    await world.clock.run(60 * MINUTE_MS, all, () => new Promise((resolve) => setImmediate(resolve)));
    expect(served.size).toBe(20 * SESSIONS_MAX);
    expect(world.clock.nowMs()).toBeLessThan(30 * MINUTE_MS);
    expect(most).toBeLessThanOrEqual(SESSIONS_MAX + 1); // one place is kept for members
    expect(world.failures).toEqual([]);

    const events = world.relayDisk.entries.flatMap((bytes) => {
      const entry = decodeEntry(bytes);
      return entry.ok ? [entry.value.event] : [];
    });
    const accepted = events.flatMap((event) =>
      event.type === "judged" && event.verdict.type === "accepted" ? [event.contribution] : [],
    );
    const merged = new Set(events.flatMap((event) => (event.type === "merged" ? event.contributions : [])));
    expect(accepted.length).toBeGreaterThan(5 * SESSIONS_MAX);
    expect(accepted.filter((id) => !merged.has(id))).toEqual([]);
    const heard = world.told.filter(({ verdict }) => verdict.type === "accepted");
    expect(heard.filter(({ contribution, written }) => !written || !merged.has(contribution))).toEqual([]);
  },
);
