/**
 * What a tick is to decide, as the host takes it: many that wait are prepared beside each other, decided one after the other, and made
 * durable together, in one write of the ledger. Only then is anybody told.
 */
import type { Rng } from "../base/rng.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { CoordinatorEvent, CoordinatorState, Effect } from "./live.ts";
import { tick } from "./tick.ts";

export interface Decision {
  /** What takes time before: checks of keys and bytes, storing. The state is another by the time of the decision. */
  readonly prepare?: () => Promise<void>;
  /** What has happened, in the light of the state; null when that is nothing. */
  readonly event: (state: CoordinatorState) => CoordinatorEvent | null;
  /** It is durable, and what it asks for has been done. */
  readonly done?: () => Promise<void> | void;
}

/** Decisions that are made durable together: a write takes the disk about as long as checking so many. */
export const DECISIONS_MAX = 64;

/** What `decisions` come to, one after the other; effects are listed by decision. */
export function decide(
  decisions: readonly Decision[],
  before: CoordinatorState,
  nowMs: number,
  rng: Rng,
): {
  readonly state: CoordinatorState;
  readonly events: readonly LedgerEvent[];
  readonly effects: readonly (readonly Effect[])[];
} {
  let state = before;
  const events: LedgerEvent[] = [];
  const effects = decisions.map(({ event: eventIn }) => {
    const event = eventIn(state);
    if (event === null) {
      return [];
    }
    const ticked = tick(state, event, nowMs, rng);
    state = ticked.state;
    events.push(...ticked.events);
    return ticked.effects;
  });
  return { state, events, effects };
}
