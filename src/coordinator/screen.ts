/**
 * The first look at a contribution: everything that its header and the state decide, before a signature is checked, a byte
 * unpacked or anything stored. Cheap, so that a flood of contributions costs little.
 */
import type { ContributionId, ContributorId } from "../base/bytes.ts";
import { recall } from "../base/recent.ts";
import type { Charter } from "../protocol/charter.ts";
import { CONTRIBUTIONS_MAX } from "../protocol/limits.ts";
import type { ContributionHeader } from "../protocol/messages.ts";
import type { Reason, Verdict } from "../protocol/verdict.ts";
import { packedBytesMaxOf } from "../update/merge.ts";
import { trainName } from "./assignment.ts";
import type { CoordinatorState, LiveState, SessionId } from "./live.ts";
import { hasPayload, type DurableState } from "./state.ts";

export type Screened =
  | { readonly type: "passed" }
  /** Received before from the same contributor: its verdict, or null while it is being judged. */
  | { readonly type: "known"; readonly verdict: Verdict | null }
  /** `ends`: it was this round's answer, so the contributor's assignment is over. */
  | { readonly type: "refused"; readonly reason: Reason; readonly ends: boolean };

const PASSED: Screened = { type: "passed" };

/** Looks at a contribution that arrived in `session`. */
export function screen(
  { charter, durable, live }: CoordinatorState,
  session: SessionId,
  id: ContributionId,
  header: ContributionHeader,
): Screened {
  const author = live.sessions.get(session)?.contributor;
  if (author === undefined) {
    return refused("unknown-contributor");
  }
  if (header.run !== durable.run) {
    return refused("wrong-run");
  }
  const known = findKnown(durable, id, author);
  if (known !== null) {
    // A resend of what is being judged, or of what was when the link broke, is no replay: it gets the same answer again.
    const task = live.sessions.get(session)?.task;
    const resent = known.author === author && (header.round === durable.round || task?.type !== "train");
    return resent ? { type: "known", verdict: known.verdict } : refused("replayed");
  }
  if (header.contributor !== author) {
    return refused("bad-signature");
  }
  return screenPlace(durable, live.ended, header) ?? screenContent(charter, durable, header) ?? PASSED;
}

/** Is it for this round, by somebody whose answer is still open, from the right base? */
function screenPlace(durable: DurableState, ended: LiveState["ended"], header: ContributionHeader): Screened | null {
  const { round, stage, head, contributions, answers } = durable;
  if (header.round < round || (header.round === round && stage === "closed")) {
    return refused("late");
  }
  if (header.round > round || stage !== "open" || header.assignment !== trainName(durable, header.contributor)) {
    return refused("not-assigned");
  }
  if (ended.has(header.contributor) || answers.has(header.contributor)) {
    return refused("not-assigned");
  }
  if (header.baseVersion !== head.version || header.baseDigest !== head.digest) {
    return refused("wrong-base", true);
  }
  const bytes = durable.payloadBytes + header.payload.bytes;
  const room = contributions.size < CONTRIBUTIONS_MAX && bytes <= packedBytesMaxOf(head.checkpointBytes / 4);
  return room ? null : refused("busy");
}

/** Can what it says of itself be true, and is its content new? */
function screenContent(
  { round, inner, model }: Charter,
  durable: DurableState,
  header: ContributionHeader,
): Screened | null {
  const { steps, ahead, tokens, loss, payload } = header;
  if (!Number.isFinite(loss)) {
    return refused("not-finite", true);
  }
  const all = steps + ahead;
  if (ahead > round.aheadMax || all > round.stepsMax || tokens > all * inner.batch * model.time) {
    return refused("malformed", true);
  }
  return hasPayload(durable, payload.digest) ? refused("replayed", true) : null;
}

function findKnown(
  durable: DurableState,
  id: ContributionId,
  sender: ContributorId,
): { readonly author: ContributorId; readonly verdict: Verdict | null } | null {
  const present = durable.contributions.get(id);
  if (present !== undefined) {
    return { author: present.header.contributor, verdict: present.verdict };
  }
  const owedTo = (author: ContributorId): Verdict | undefined =>
    recall(durable.verdicts, author)?.find((one) => one.contribution === id)?.verdict;
  const author = durable.past.map((round) => round.authors.get(id)).find((one) => one !== undefined);
  if (author === undefined) {
    // Its round may be forgotten while its author still does not know the verdict.
    const verdict = owedTo(sender);
    return verdict === undefined ? null : { author: sender, verdict };
  }
  return { author, verdict: owedTo(author) ?? { type: "refused", reason: "late" } };
}

function refused(reason: Reason, ends = false): Screened {
  return { type: "refused", reason, ends };
}
