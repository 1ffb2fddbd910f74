/**
 * Verdicts on contributions and refusals of messages: a closed list of reasons, each with one plain sentence for people.
 * Nothing a participant sends makes the relay throw: it is accepted, or refused with one of these.
 */

export const REASONS = {
  malformed: "The message or update could not be read: its bytes do not have the form the protocol describes.",
  truncated: "The update ends before its own length says it should.",
  oversized: "The update is larger than this run allows.",
  "bad-signature": "The signature does not match the device key it claims to come from.",
  "unknown-contributor": "This device has not introduced itself in this session.",
  "wrong-run": "The contribution is for another run.",
  "wrong-base": "The update was computed from a version of the shared base that is not the one assigned.",
  "not-assigned": "This work was not assigned to this device, or the assignment has ended.",
  replayed: "This contribution, or one with the same content, has been received before.",
  late: "The round closed before the update arrived.",
  "not-finite": "The update contains values that are not finite numbers.",
  "norm-too-large": "The update is far larger than the updates of other contributors in this round.",
  harmful: "With this update the model predicts text worse than without it.",
  "no-improvement": "The update does not improve the model on the very data it was trained on.",
  busy: "The relay cannot take more work right now; please come back later.",
  banned: "The operator of this run has excluded this device.",
  "wrong-version": "This client speaks another version of the protocol; please reload or update it.",
} as const;

export type Reason = keyof typeof REASONS;

export type Verdict = { readonly type: "accepted" } | { readonly type: "refused"; readonly reason: Reason };

/** What a check returns: the value, or why it was refused. `detail` is for logs and developers, never for decisions. */
export type Checked<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: Reason; readonly detail: string };

export function accept<T>(value: T): Checked<T> {
  return { ok: true, value };
}

export function refuse(
  reason: Reason,
  detail: string,
): { readonly ok: false; readonly reason: Reason; readonly detail: string } {
  return { ok: false, reason, detail };
}

export function isReason(value: unknown): value is Reason {
  return typeof value === "string" && Object.hasOwn(REASONS, value);
}

/** The verdict in words, for the page, the terminal and the widget. */
export function verdictSentence(verdict: Verdict): string {
  switch (verdict.type) {
    case "accepted":
      return "Accepted: it is part of the next version of the shared base.";
    case "refused":
      return REASONS[verdict.reason];
    default:
      return verdict satisfies never;
  }
}
