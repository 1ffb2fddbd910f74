/**
 * The rules by which a contribution is accepted or refused, as pure functions of what was measured. Norms are compared with
 * what others sent lately, losses with the charter's limits (after the loss scores of Gauntlet, arXiv 2505.21684, reduced to
 * what one validator can measure in one round). What a validator says is no verdict yet: the coordinator decides whom it asks.
 */
import { insert, lowerMedian, sortedOf, type Sorted } from "../base/sorted.ts";
import type { TrustConfig } from "../protocol/charter.ts";
import type { Losses } from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { usualOf } from "../protocol/yardstick.ts";

/** What is known of an update before, and of others' updates after, its losses are judged. */
export interface UpdateFacts {
  /** Euclidean norm of the decoded update. */
  readonly norm: number;
  /** Inner steps that the author reports. */
  readonly steps: number;
  /** The author trained on data that nobody else can measure. */
  readonly privateData: boolean;
}

/** An accepted update, to compare others with. */
export interface AcceptedUpdate extends UpdateFacts {
  /** Relative improvement of the loss on its assigned data; null where it was not measured. */
  readonly improvement: number | null;
}

/** Accepted updates whose improvement was measured, as others are compared with them. */
export interface Standards {
  readonly norms: Sorted;
  readonly improvements: Sorted;
}

/** What is usual among updates whose norms are looked at: medians. */
export interface UsualSize {
  readonly samples: number;
  readonly norm: number;
  readonly steps: number;
}

/** Fewer norms than this are no measure of what is usual; losses decide alone then. */
const NORM_SAMPLES_MIN = 3;

const ACCEPTED: Verdict = { type: "accepted" };

export function standardsOf(updates: readonly AcceptedUpdate[]): Standards {
  const measured = updates.flatMap(({ norm, improvement }) => (improvement === null ? [] : [{ norm, improvement }]));
  return {
    norms: sortedOf(measured.map(({ norm }) => norm)),
    improvements: sortedOf(measured.map(({ improvement }) => improvement)),
  };
}

/** The standards with one more update among them: with its norm, too, only where its improvement is, or small updates would owe what large ones do. */
export function withUpdate(standards: Standards, { norm, improvement }: AcceptedUpdate): Standards {
  const { norms, improvements } = standards;
  return improvement === null
    ? standards
    : { norms: insert(norms, norm), improvements: insert(improvements, improvement) };
}

export function usualSizeOf(updates: readonly UpdateFacts[]): UsualSize {
  return {
    samples: updates.length,
    norm: usualOf(updates, ({ norm }) => norm),
    steps: usualOf(updates, ({ steps }) => steps),
  };
}

/**
 * Refuses as "norm-too-large" what exceeds `normMax` times what is usual (among this round's contributions and those
 * accepted in recent rounds). A contribution of more steps than the median may be larger in proportion: a fast device moves
 * further in one round than a slow one and is no attacker for it. A `normMax` of 0 switches the rule off.
 */
export function judgeNorm(
  sample: Pick<UpdateFacts, "norm" | "steps">,
  usual: UsualSize,
  { normMax }: TrustConfig,
): Verdict {
  if (!Number.isFinite(sample.norm)) {
    return { type: "refused", reason: "not-finite" };
  }
  if (normMax === 0 || usual.samples < NORM_SAMPLES_MIN) {
    return ACCEPTED;
  }
  const allowed = normMax * usual.norm * Math.max(1, sample.steps / Math.max(1, usual.steps));
  return sample.norm > allowed ? { type: "refused", reason: "norm-too-large" } : ACCEPTED;
}

export interface LossJudgement extends Pick<UpdateFacts, "norm" | "privateData"> {
  readonly losses: Losses;
  /** The loss on assigned data is measured with the update as one of so many in a mean. */
  readonly among: number;
  /** Updates accepted in the rounds just before, and in this one so far. */
  readonly others: Standards;
  readonly trust: TrustConfig;
}

/**
 * Refuses as "harmful" what worsens the loss on random data by more than `harmMax`, or makes any loss no number; as
 * "no-improvement" what improves the loss on its own assigned data by less than `improvementMin`, or by less than
 * `improvementShare` of what others' updates lately did. That share is what tells noise from work: a random direction of the
 * same norm improves almost nothing, but more than nothing half the time. An update of a smaller norm than the others' owes
 * less in proportion. What it improves is measured as one of so many in a mean, and counts so many times: a single update of one bit
 * a value is mostly noise, and may alone improve nothing that it improves in the mean. Harm is what all of it does, for colluders, or
 * one who is left alone when the others are refused, are the whole mean. Private data cannot be measured by others, so only the first
 * rule applies to it; for open data a missing measurement counts as no improvement.
 */
export function judgeLosses({ losses, norm, privateData, among, others, trust }: LossJudgement): Verdict {
  const { assignedAfter, randomBefore, randomAfter } = losses;
  const harmful = !(randomAfter <= randomBefore * (1 + trust.harmMax)) || !Number.isFinite(randomAfter);
  if (harmful || (assignedAfter !== null && !Number.isFinite(assignedAfter))) {
    return { type: "refused", reason: "harmful" };
  }
  if (privateData) {
    return ACCEPTED;
  }
  const improvement = improvementOf(losses, among);
  const share = trust.improvementShare;
  // Nothing is owed of what is not there: 0 · −∞ is no number, and everything would be refused.
  const owed = Math.max(trust.improvementMin, share === 0 ? -Infinity : share * usualImprovement(norm, others));
  return improvement !== null && improvement >= owed ? ACCEPTED : { type: "refused", reason: "no-improvement" };
}

/** among · (before − after) / before on assigned data; null where it was not measured or makes no sense. */
export function improvementOf({ assignedBefore, assignedAfter }: Losses, among: number): number | null {
  if (assignedBefore === null || assignedAfter === null || !(assignedBefore > 0)) {
    return null;
  }
  return (among * (assignedBefore - assignedAfter)) / assignedBefore;
}

/** What others' updates improved, scaled down for one of smaller norm; negative infinity where there are none. */
function usualImprovement(norm: number, { norms, improvements }: Standards): number {
  if (improvements.size === 0) {
    return Number.NEGATIVE_INFINITY;
  }
  const usualNorm = lowerMedian(norms);
  return lowerMedian(improvements) * (usualNorm > 0 ? Math.min(1, norm / usualNorm) : 1);
}
