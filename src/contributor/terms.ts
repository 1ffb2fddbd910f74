/**
 * What a member asks of a run before its own texts are trained on for it. An update after one step in which every value is exact is the
 * gradient of a few private windows, and texts can be read off that. So values have to be coarse, and a contribution has to be made of
 * many steps and tokens, whatever charter and assignments say. That bounds nothing; it rules out the worst.
 */
import { keepMaxOf, type Charter } from "../protocol/charter.ts";
import type { TrainAssignment } from "../protocol/messages.ts";

export interface Terms {
  /** Of a contribution, at least. */
  readonly steps: number;
  readonly tokens: number;
}

export const PRIVATE_TERMS: Terms = { steps: 8, tokens: 2_048 };

/** Why no private text is trained on under this charter; null where it may be. */
export function objectionToCharter({ model, inner, uplink, round }: Charter, terms: Terms): string | null {
  if (uplink.bits === 64) {
    return "The run wants exact values, from which private texts could be read.";
  }
  return tooLittle({ steps: round.stepsMax, tokens: round.stepsMax * inner.batch * model.time }, terms);
}

/** Why no private text is trained on for this assignment; null where it may be. */
export function objectionToAssignment(
  { stepsMax, keep }: TrainAssignment,
  charter: Charter,
  terms: Terms,
): string | null {
  const { inner, model } = charter;
  if (keep > keepMaxOf(charter)) {
    return `The relay wants ${keep} values of a chunk, more than the run's charter says anybody sends.`;
  }
  return tooLittle({ steps: stepsMax, tokens: stepsMax * inner.batch * model.time }, terms);
}

/** Why a contribution of so much does not leave; null where it may. */
export function tooLittle({ steps, tokens }: Terms, terms: Terms): string | null {
  return steps >= terms.steps && tokens >= terms.tokens
    ? null
    : `A contribution of ${steps} steps and ${tokens} tokens says too much about private texts: ${terms.steps} steps and ${terms.tokens} tokens are the least.`;
}
