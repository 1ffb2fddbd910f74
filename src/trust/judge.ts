/**
 * The rules by which a contribution is accepted or refused, as pure functions of what was measured. Norms are compared with
 * what others sent lately, losses with the charter's limits (after the loss scores of Gauntlet, arXiv 2505.21684, reduced to
 * what one validator can measure in one round). What a validator says is no verdict yet: the coordinator decides whom it asks.
 */
import type { TrustConfig } from "../protocol/charter.ts";
import type { Losses } from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";

/** What a norm is judged by. */
export interface NormSample {
  /** Euclidean norm of the decoded update. */
  readonly norm: number;
  /** Inner steps that the author reports. */
  readonly steps: number;
}

/** Fewer norms than this are no measure of what is usual; losses decide alone then. */
const NORM_SAMPLES_MIN = 3;

const ACCEPTED: Verdict = { type: "accepted" };

/**
 * Refuses as "norm-too-large" what exceeds `normMax` times the median of `samples` (this round's contributions and those
 * accepted in recent rounds). A contribution of more steps than the median may be larger in proportion: a fast device moves
 * further in one round than a slow one and is no attacker for it. A `normMax` of 0 switches the rule off.
 */
export function judgeNorm(sample: NormSample, samples: readonly NormSample[], { normMax }: TrustConfig): Verdict {
  if (!Number.isFinite(sample.norm)) {
    return { type: "refused", reason: "not-finite" };
  }
  if (normMax === 0 || samples.length < NORM_SAMPLES_MIN) {
    return ACCEPTED;
  }
  const usual = lowerMedian(samples.map(({ norm }) => norm));
  const usualSteps = Math.max(1, lowerMedian(samples.map(({ steps }) => steps)));
  const allowed = normMax * usual * Math.max(1, sample.steps / usualSteps);
  return sample.norm > allowed ? { type: "refused", reason: "norm-too-large" } : ACCEPTED;
}

/**
 * Refuses as "harmful" what worsens the loss on random data by more than `harmMax`, or makes any loss no number; as
 * "no-improvement" what does not improve the loss on its own assigned data by `improvementMin`. Private data cannot be
 * measured by others, so only the first rule applies to it; for open data a missing measurement counts as no improvement.
 */
export function judgeLosses(losses: Losses, privateData: boolean, trust: TrustConfig): Verdict {
  const { assignedBefore, assignedAfter, randomBefore, randomAfter } = losses;
  const harmful = !(randomAfter <= randomBefore * (1 + trust.harmMax)) || !Number.isFinite(randomAfter);
  if (harmful || (assignedAfter !== null && !Number.isFinite(assignedAfter))) {
    return { type: "refused", reason: "harmful" };
  }
  if (privateData) {
    return ACCEPTED;
  }
  if (assignedBefore === null || assignedAfter === null || !(assignedBefore > 0)) {
    return { type: "refused", reason: "no-improvement" };
  }
  const improvement = (assignedBefore - assignedAfter) / assignedBefore;
  return improvement >= trust.improvementMin ? ACCEPTED : { type: "refused", reason: "no-improvement" };
}

/** The median, of two middle values the smaller, so that one of two cannot raise it; 0 for none. */
function lowerMedian(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? 0;
}
