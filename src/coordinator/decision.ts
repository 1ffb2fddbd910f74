/**
 * What a tick is to decide, as the host takes it: many that wait are prepared beside each other, decided one after the other, and made
 * durable together, in one write of the ledger. Only then is anybody told.
 */
import type { Rng } from "../base/rng.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { deleteBlobs, type Blobs } from "../store/store.ts";
import type { CoordinatorEvent, CoordinatorState, Effect } from "./live.ts";
import { tick } from "./tick.ts";

export interface Decision {
  /** That are held until it is done; none when absent. */
  readonly bytes?: number;
  /** What takes time before: checks of keys and bytes, storing. The state is another by the time of the decision. */
  readonly prepare?: () => Promise<void>;
  /** What has happened, in the light of the state; null when that is nothing. */
  readonly event: (state: CoordinatorState) => CoordinatorEvent | null;
  /** It is durable, and what it asks for has been done. */
  readonly done?: () => Promise<void> | void;
}

/**
 * Decisions that are made durable together. Each time has its two writes, and threads that check signatures to be woken and waited for,
 * which take about as long as deciding so many.
 */
export const DECISIONS_MAX = 128;
/** Bytes that these may hold; one that holds more is made alone. */
export const DECISION_BYTES_MAX = 64 * 1_048_576;

/** The first of those that wait: as many as are made together. */
export function batchOf(waiting: readonly Decision[]): readonly Decision[] {
  let held = 0;
  const end = waiting.slice(0, DECISIONS_MAX).findIndex(({ bytes = 0 }, i) => {
    held += bytes;
    return i > 0 && held > DECISION_BYTES_MAX;
  });
  return waiting.slice(0, end === -1 ? DECISIONS_MAX : end);
}

/** Deletes what effects say that nobody needs any more: a round may have thousands of payloads. */
export function forgetBlobs(blobs: Blobs, effects: readonly Effect[]): Promise<void> {
  return deleteBlobs(
    blobs,
    effects.flatMap((effect) => (effect.type === "forget" ? effect.blobs : [])),
  );
}

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
