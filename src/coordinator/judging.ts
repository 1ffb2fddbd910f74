/**
 * Judging: norms first, then losses. Each contribution that is left gets one validator, drawn after the round closed: the
 * ready contributors are put in a random circle and everyone gets the work of the one before, so nobody judges itself and
 * nobody has two. The relay's referee measures where there is no validator, where one is late or leaves, where one would
 * refuse (a refusal is always confirmed), and on a share of acceptances; where it measures, its result decides.
 */
import type { ContributionId } from "../base/bytes.ts";
import { permutation } from "../base/rng.ts";
import type { Losses } from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { judgeLosses, judgeNorm, type UpdateFacts } from "../trust/judge.ts";
import { measureFacts, validateAssignment } from "./assignment.ts";
import { decide, record, send, setLive, setSession, type Draft } from "./draft.ts";
import {
  REPORT_GRACE_MS,
  SKIP_PAUSE_MS,
  type CoordinatorState,
  type Judging,
  type Session,
  type SessionId,
} from "./live.ts";
import { acceptedIn, inTime, type Contribution } from "./state.ts";

/** The loss falls fast at first: older rounds would ask for more than is there, and skipped ones must not stop the run. */
const ROUNDS_COMPARED = 2;

/** Refuses contributions whose norm is out of proportion to this round's and the recent ones. */
export function judgeNorms(draft: Draft): void {
  const { charter, durable } = draft.state;
  const open = undecided(draft.state);
  const own = open.map(({ norm, header }) => ({ norm, steps: header.steps + header.ahead }));
  const samples = [...durable.past.flatMap(({ accepted }) => accepted), ...own];
  for (const [at, { id }] of open.entries()) {
    const verdict = judgeNorm(own[at] as UpdateFacts, samples, charter.trust);
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
  if (draft.state.live.drawMs !== null && (draft.nowMs >= draft.state.live.drawMs || everyoneReady(draft.state))) {
    drawValidators(draft);
  }
  if (draft.state.live.drawMs === null) {
    callReferee(draft);
  }
  if (undecided(draft.state).length === 0) {
    finishRound(draft);
  }
}

/** When judging next needs a look. */
export function judgingDueMs({ durable, live }: CoordinatorState): number[] {
  if (durable.stage !== "closed" || live.merging) {
    return [];
  }
  const due = [...live.judging.values()].flatMap((one) => (one.type === "validator" ? [one.dueMs] : []));
  return live.drawMs === null ? due : [live.drawMs, ...due];
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
    setJudging(draft, contribution, null);
    decide(draft, contribution, { verdict, by, losses });
  } else {
    startReferee(draft, contribution, { losses, by });
  }
}

/** The referee's measurement decides; where it could not measure, an acceptable report does. */
export function takeMeasurement(draft: Draft, contribution: ContributionId, losses: Losses | null): void {
  const judging = draft.state.live.judging.get(contribution);
  const found = draft.state.durable.contributions.get(contribution);
  if (judging?.type !== "referee" || found === undefined || found.verdict !== null) {
    return; // of a round that is over
  }
  setJudging(draft, contribution, null);
  if (losses !== null) {
    decide(draft, contribution, { verdict: verdictOn(draft.state, found, losses), by: "relay", losses });
    return;
  }
  const { report } = judging;
  const verdict = report === null ? null : verdictOn(draft.state, found, report.losses);
  if (report !== null && verdict?.type === "accepted") {
    decide(draft, contribution, { verdict, ...report });
  } else {
    decide(draft, contribution, { verdict: { type: "refused", reason: "busy" }, by: "relay", losses: null });
  }
}

/** Compared with what this round and the two before it accepted: long enough to know what is usual, and not for long. */
function verdictOn({ charter, durable }: CoordinatorState, { norm, header }: Contribution, losses: Losses): Verdict {
  const recent = durable.past.filter(({ round }) => round >= durable.round - ROUNDS_COMPARED);
  const others = [...recent.flatMap(({ accepted }) => accepted), ...acceptedIn(durable)];
  return judgeLosses({ losses, norm, privateData: header.privateData, others, trust: charter.trust });
}

function undecided({ durable }: CoordinatorState): Contribution[] {
  return [...durable.contributions.values()].filter(({ verdict }) => verdict === null);
}

/** Whoever contributed and is still here says ready a moment after; waiting for that spares the referee. */
function everyoneReady({ durable, live }: CoordinatorState): boolean {
  const authors = new Set(inTime(durable).map(({ header }) => header.contributor));
  return [...live.sessions.values()].every(
    ({ contributor, ready }) => !authors.has(contributor) || ready === durable.head.version,
  );
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
  for (const contribution of open.filter((one) => !pairs.has(one))) {
    const author = contribution.header.contributor; // it is gone, or has another one here: any other will do
    pair(
      contribution,
      circle.find(({ id, contributor }) => !taken.has(id) && contributor !== author),
    );
  }
  setLive(draft, { drawMs: null });
  for (const [contribution, session] of pairs) {
    const assignment = validateAssignment(draft.state, contribution, draft.rng);
    const dueMs = draft.nowMs + charter.round.judgeMs + REPORT_GRACE_MS;
    setJudging(draft, contribution.id, { type: "validator", session: session.id, dueMs });
    const task = { type: "validate", assignment: assignment.id, contribution: contribution.id } as const;
    setSession(draft, session.id, { ready: null, task });
    send(draft, session.id, { type: "assign", assignment });
  }
}

/** Hands to the referee what has no validator, and what its validator left or has not measured in time. */
function callReferee(draft: Draft): void {
  for (const { id } of undecided(draft.state)) {
    const judging = draft.state.live.judging.get(id);
    if (judging === undefined) {
      startReferee(draft, id, null);
    } else if (judging.type === "validator") {
      const session = draft.state.live.sessions.get(judging.session);
      const works = session?.task?.type === "validate" && session.task.contribution === id;
      if (!works || draft.nowMs >= judging.dueMs) {
        if (works) {
          setSession(draft, judging.session, { task: null });
        }
        startReferee(draft, id, null);
      }
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
  setLive(draft, { judging: new Map(), ended: new Set(), pauseUntilMs: draft.nowMs + SKIP_PAUSE_MS });
}

function setJudging(draft: Draft, id: ContributionId, judging: Judging | null): void {
  const next = new Map(draft.state.live.judging);
  if (judging === null) {
    next.delete(id);
  } else {
    next.set(id, judging);
  }
  setLive(draft, { judging: next });
}
