/**
 * How learning rates change over a run: in a straight line over the charter's rounds. It follows the round and not a
 * contributor's own steps, so that a fast device, a slow one and one that joins late train at the same rate, and it takes
 * only additions, products and quotients, which every JavaScript engine rounds alike: a replay sees the same numbers.
 */
import type { RoundConfig } from "./charter.ts";

/** Share of the charter's learning rate in `round` (counted from 1), 0 … 1. */
export function rateShare(
  { decayRounds, decayTo }: Pick<RoundConfig, "decayRounds" | "decayTo">,
  round: number,
): number {
  if (decayRounds === 0) {
    return 1;
  }
  return 1 - (1 - decayTo) * Math.min(1, (round - 1) / decayRounds);
}
