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
import { trainName } from "./assignment.ts";
import { arrivalOf, type Arrival } from "./late.ts";
import type { CoordinatorState, LiveState, SessionId } from "./live.ts";
import { factsOf, hasPayload, type DurableState } from "./state.ts";

export type Screened =
  | { readonly type: "passed" }
  /** As far as can be seen now it will pass once the next round is open. */
  | { readonly type: "soon" }
  /** Received before from the same contributor: its verdict, or null while it is being judged. */
  | { readonly type: "known"; readonly verdict: Verdict | null }
  /** `ends`: it was the present round's answer, so the contributor's assignment is over. */
  | { readonly type: "refused"; readonly reason: Reason; readonly ends: boolean };

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
    const recent = durable.contributions.has(id) || (charter.round.lateShare > 0 && header.round >= durable.round - 1);
    const resent = known.author === author && (recent || task?.type !== "train");
    return resent ? { type: "known", verdict: known.verdict } : refused("replayed");
  }
  if (header.contributor !== author) {
    return refused("bad-signature");
  }
  const arrival = arrivalOf(charter, durable, header.round);
  const passed: Screened = { type: arrival === "soon" ? "soon" : "passed" };
  return screenPlace(arrival, durable, live.ended, header) ?? screenContent(charter, durable, header) ?? passed;
}

/** Is it for this round or the one before, by somebody whose answer is still open, from the right base? */
function screenPlace(
  arrival: Arrival,
  durable: DurableState,
  ended: LiveState["ended"],
  header: ContributionHeader,
): Screened | null {
  const { round, contributions } = durable;
  const facts = factsOf(durable, header.round);
  if (arrival === "late") {
    return refused("late");
  }
  if (arrival === "early" || facts === null || header.assignment !== trainName(facts, header.contributor)) {
    return refused("not-assigned");
  }
  const present = header.round === round;
  if ((present && ended.has(header.contributor)) || hasAnswer(durable, header)) {
    return refused("not-assigned");
  }
  if (header.baseVersion !== facts.base.version || header.baseDigest !== facts.base.digest) {
    return refused("wrong-base", present);
  }
  return contributions.size < CONTRIBUTIONS_MAX ? null : refused("busy");
}

/** Whether its author has given the one answer that an assignment has. */
function hasAnswer({ round: present, answers, previousAnswers }: DurableState, header: ContributionHeader): boolean {
  return (header.round === present ? answers : previousAnswers).has(header.contributor);
}

/** Can what it says of itself be true, and is its content new? */
function screenContent(
  { round, inner, model }: Charter,
  durable: DurableState,
  header: ContributionHeader,
): Screened | null {
  const { steps, ahead, tokens, loss, payload } = header;
  const present = header.round === durable.round;
  if (!Number.isFinite(loss)) {
    return refused("not-finite", present);
  }
  const all = steps + ahead;
  if (ahead > round.aheadMax || all > round.stepsMax || tokens > all * inner.batch * model.time) {
    return refused("malformed", present);
  }
  return hasPayload(durable, payload.digest) ? refused("replayed", present) : null;
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
