/**
 * Judging: norms first, then losses. Each contribution that is left gets one validator, drawn after the round closed: the
 * ready contributors are put in a random circle and everyone gets the work of the one before, so nobody judges itself and
 * nobody has two. The relay's referee measures where there is no validator, where one is late or leaves, where one would
 * refuse (a refusal is always confirmed), and on a share of acceptances; where it measures, its result decides. It has as long as
 * validators had, once they are done, and measures first what these have: who sends much and judges nothing holds up no round.
 */
import { OrderedSet } from "immutable";
import type { ContributionId } from "../base/bytes.ts";
import { permutation } from "../base/rng.ts";
import type { Losses } from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { judgeLosses, judgeNorm, usualSizeOf, type UpdateFacts } from "../trust/judge.ts";
import { measureFacts, validateAssignment } from "./assignment.ts";
import { decide, noteSession, record, send, setLive, setSession, type Draft } from "./draft.ts";
import {
  NOTHING_JUDGED,
  REPORT_GRACE_MS,
  SKIP_PAUSE_MS,
  type CoordinatorState,
  type Judging,
  type Session,
  type SessionId,
} from "./live.ts";
import { amongOf, updateFacts, type Contribution } from "./state.ts";

/** Refuses contributions whose norm is out of proportion to this round's and the recent ones. */
export function judgeNorms(draft: Draft): void {
  const { charter, durable } = draft.state;
  const open = undecided(draft.state);
  const own = open.map(updateFacts);
  const usual = usualSizeOf([...durable.past.flatMap(({ accepted }) => accepted), ...own]);
  for (const [at, { id }] of open.entries()) {
    const verdict = judgeNorm(own[at] as UpdateFacts, usual, charter.trust);
    if (verdict.type === "refused") {
      decide(draft, id, { verdict, by: "relay", losses: null });
    }
  }
}

/** Does whatever is due in a closed round. */
export function advanceJudging(draft: Draft): void {
  if (draft.state.durable.stage !== "closed" || draft.state.live.merging) {
    return;
  }
  const { drawMs, unready } = draft.state.live;
  // Whoever contributed and is still here says ready a moment after; waiting for that spares the referee.
  if (drawMs !== null && (draft.nowMs >= drawMs || unready.size === 0)) {
    drawValidators(draft);
  }
  if (draft.state.live.drawMs === null) {
    callReferee(draft);
  }
  if (draft.state.durable.undecided === 0) {
    finishRound(draft);
  }
}

/** When judging next needs a look. */
export function judgingDueMs({ durable, live }: CoordinatorState): number[] {
  if (durable.stage !== "closed" || live.merging) {
    return [];
  }
  return [live.drawMs ?? Number.POSITIVE_INFINITY, live.judgeUntilMs];
}

/** A validator's measurement: it accepts, unless the referee is to look again; it never refuses alone. */
export function takeReport(
  draft: Draft,
  session: Session,
  { contribution, losses }: { readonly contribution: ContributionId; readonly losses: Losses },
): void {
  const { charter, durable } = draft.state;
  const found = durable.contributions.get(contribution);
  if (found === undefined || found.verdict !== null) {
    return; // its author was banned meanwhile, which may have ended the round
  }
  const verdict = verdictOn(draft.state, found, losses);
  const by = session.contributor;
  if (verdict.type === "accepted" && draft.rng.float() >= charter.trust.auditShare) {
    decide(draft, contribution, { verdict, by, losses });
  } else {
    startReferee(draft, contribution, { losses, by });
  }
}

/** The referee's measurement decides; where it could not measure, or has no time left, an acceptable report does. */
export function takeMeasurement(draft: Draft, contribution: ContributionId, losses: Losses | null): void {
  const found = draft.state.durable.contributions.get(contribution);
  if (draft.state.live.judging.get(contribution)?.type !== "referee" || found === undefined || found.verdict !== null) {
    return; // of a round that is over
  }
  if (losses === null) {
    judgeUnmeasured(draft, found);
  } else {
    decide(draft, contribution, { verdict: verdictOn(draft.state, found, losses), by: "relay", losses });
  }
  if (draft.nowMs >= draft.state.live.refereeUntilMs) {
    undecided(draft.state).forEach((one) => judgeUnmeasured(draft, one));
  }
}

function judgeUnmeasured(draft: Draft, found: Contribution): void {
  const judging = draft.state.live.judging.get(found.id);
  const report = judging?.type === "referee" ? judging.report : null;
  const verdict = report === null ? null : verdictOn(draft.state, found, report.losses);
  if (report !== null && verdict?.type === "accepted") {
    decide(draft, found.id, { verdict, ...report });
  } else {
    decide(draft, found.id, { verdict: { type: "refused", reason: "busy" }, by: "relay", losses: null });
  }
}

/** Compared with what this round and the two before it accepted: long enough to know what is usual, and not for long. */
function verdictOn({ charter, durable }: CoordinatorState, { norm, header }: Contribution, losses: Losses): Verdict {
  const { privateData } = header;
  const facts = { norm, privateData, among: amongOf(durable) };
  return judgeLosses({ ...facts, losses, others: durable.standards, trust: charter.trust });
}

function undecided({ durable }: CoordinatorState): Contribution[] {
  return [...durable.contributions.values()].filter(({ verdict }) => verdict === null);
}

function drawValidators(draft: Draft): void {
  const { charter, durable, live } = draft.state;
  const ready = [...live.sessions.values()].filter((one) => one.ready === durable.head.version && one.task === null);
  const circle = Array.from(permutation(ready.length, draft.rng), (i) => ready[i] as Session);
  const place = new Map(circle.map((session, i) => [session.contributor, i]));
  const taken = new Set<SessionId>();
  const pairs = new Map<Contribution, Session>();
  const pair = (contribution: Contribution, session: Session | undefined): void => {
    if (session !== undefined) {
      taken.add(session.id);
      pairs.set(contribution, session);
    }
  };
  const open = undecided(draft.state);
  for (const contribution of open) {
    const at = place.get(contribution.header.contributor);
    const next = at === undefined || circle.length < 2 ? undefined : circle[(at + 1) % circle.length];
    if (next !== undefined && !taken.has(next.id)) {
      pair(contribution, next);
    }
  }
  const free = circle.filter(({ id }) => !taken.has(id));
  for (const contribution of open.filter((one) => !pairs.has(one))) {
    // Its author is gone, or has another one here: any other will do.
    const at = free.length - (free.at(-1)?.contributor === contribution.header.contributor ? 2 : 1);
    pair(contribution, free[at]);
    free.splice(Math.max(at, 0), at < 0 ? 0 : 1);
  }
  const loose = OrderedSet(open.filter((one) => !pairs.has(one)).map(({ id }) => id));
  const judgeUntilMs = draft.nowMs + charter.round.judgeMs + REPORT_GRACE_MS;
  setLive(draft, { drawMs: null, judgeUntilMs, loose });
  for (const [contribution, session] of pairs) {
    const assignment = validateAssignment(draft.state, contribution, draft.rng);
    setJudging(draft, contribution.id, { type: "validator", session: session.id });
    const task = { type: "validate", assignment: assignment.id, contribution: contribution.id } as const;
    setSession(draft, session.id, { ready: null, task });
    send(draft, session.id, { type: "assign", assignment });
  }
}

/** Hands to the referee what has no validator, and what its validator left or has not measured in time. */
function callReferee(draft: Draft): void {
  for (const id of draft.state.live.loose) {
    startReferee(draft, id, null);
  }
  if (draft.nowMs < draft.state.live.judgeUntilMs) {
    return;
  }
  // Its time begins now, however late: this machine may have slept.
  const refereeUntilMs = draft.nowMs + draft.state.charter.round.judgeMs;
  setLive(draft, { judgeUntilMs: Number.POSITIVE_INFINITY, refereeUntilMs });
  for (const { id } of undecided(draft.state)) {
    const judging = draft.state.live.judging.get(id);
    if (judging?.type === "validator") {
      startReferee(draft, id, null);
      setSession(draft, judging.session, { task: null });
    }
  }
}

function startReferee(
  draft: Draft,
  id: ContributionId,
  report: Extract<Judging, { readonly type: "referee" }>["report"],
): void {
  const contribution = draft.state.durable.contributions.get(id) as Contribution;
  setJudging(draft, id, { type: "referee", report });
  draft.effects.push({
    type: "measure",
    contribution: id,
    facts: measureFacts(draft.state.durable, contribution, draft.rng),
    again: report !== null,
  });
}

function finishRound(draft: Draft): void {
  const { durable } = draft.state;
  const accepted = [...durable.contributions.values()].filter(({ verdict }) => verdict?.type === "accepted");
  const contributions = accepted.map(({ id }) => id).sort();
  if (contributions.length > 0) {
    setLive(draft, { merging: true });
    draft.effects.push({ type: "merge", round: durable.round, contributions });
    return;
  }
  record(draft, { type: "skipped", round: durable.round });
  const { live } = draft.state;
  setLive(draft, { ...NOTHING_JUDGED, ended: live.ended.clear(), pauseUntilMs: draft.nowMs + SKIP_PAUSE_MS });
  for (const id of live.sessions.keys()) {
    noteSession(draft, id);
  }
}

function setJudging(draft: Draft, id: ContributionId, judging: Judging): void {
  const { live } = draft.state;
  setLive(draft, { judging: live.judging.set(id, judging), loose: live.loose.delete(id) });
}
