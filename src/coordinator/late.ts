/**
 * Contributions that arrive after their round. One that is a round late is merged with the next round's, for a share of its
 * weight, where the charter says so (`round.lateShare`): most of what it says of the base still holds. It is judged like the
 * others, on the present base with the batches of its own round, and nobody waits for it. What this file says is all that
 * relays, those who do a merge again and the simulation's oracle know of lateness. (Buffered asynchronous averaging weighs what
 * is stale the same way: FedBuff, Nguyen et al., 2022.)
 */
import type { Charter } from "../protocol/charter.ts";
import type { ContributionHeader } from "../protocol/messages.ts";
import type { DurableState } from "./state.ts";

/** Whether a contribution that was made in a round is taken in: now, once the next round is open, no more, or not yet. */
export type Arrival = "now" | "soon" | "late" | "early";

export function arrivalOf(
  { round: { lateShare } }: Charter,
  { round: present, stage, previous }: DurableState,
  round: number,
): Arrival {
  if (round === present) {
    const after = lateShare > 0 ? "soon" : "late";
    return stage === "idle" ? "early" : stage === "open" ? "now" : after;
  }
  if (round > present) {
    return "early";
  }
  if (lateShare === 0 || round !== previous?.round || stage === "closed") {
    return "late";
  }
  return stage === "open" ? "now" : "soon";
}

/** What a contribution weighs in the merge of `round`: its tokens or, where it came late, a share of them. */
export function weightIn(round: number, { round: made, tokens }: ContributionHeader, charter: Charter): number {
  return made === round ? tokens : tokens * charter.round.lateShare;
}
