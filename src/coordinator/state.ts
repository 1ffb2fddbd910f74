/**
 * The durable state of a run: the fold of its ledger and nothing else, so that a relay that was killed reads its log and
 * stands where it stood. Everything in it is bounded by a named number, however long the ledger gets.
 */
import { assert, present } from "../base/assert.ts";
import type { Bytes, ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import { dropOldest } from "../base/newest.ts";
import { contributionIdOf, decodeHeader } from "../protocol/codec.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { UPDATES_KEPT } from "../protocol/limits.ts";
import type { ContributionHeader, VersionInfo } from "../protocol/messages.ts";
import type { VersionView } from "../protocol/run-view.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { improvementOf, type AcceptedUpdate } from "../trust/judge.ts";

/** Rounds whose contributions are remembered: their ids and payloads against replays, their norms for comparison. */
export const ROUNDS_KEPT = 8;
/** Versions whose checkpoint and outer state can still be fetched: whoever has both can do the merges after them again. */
export const CHECKPOINTS_KEPT = 3;
/** Versions in the public record. */
const VERSIONS_SHOWN_MAX = 10_000;
/** Verdicts remembered for a contributor, and contributors for whom any are, the latest first. */
const VERDICTS_KEPT = 8;
const CONTRIBUTORS_KEPT = 10_000;
/** Devices that can be excluded at a time. */
export const BANS_MAX = 10_000;

export interface Contribution {
  readonly id: ContributionId;
  readonly header: ContributionHeader;
  readonly norm: number;
  readonly verdict: Verdict | null;
  /** Relative improvement on its assigned data, once it is judged by its losses. */
  readonly improvement: number | null;
}

interface PastRound {
  readonly round: number;
  readonly contributions: readonly {
    readonly id: ContributionId;
    readonly author: ContributorId;
    /** That it was made in: this one or, where it came late, the one before. */
    readonly round: number;
    readonly payload: Digest;
  }[];
  readonly accepted: readonly AcceptedUpdate[];
}

/** What a round's assignments follow from. */
export interface RoundFacts {
  readonly round: number;
  readonly seed: number;
  /** That its contributors train from. */
  readonly base: Pick<VersionInfo, "version" | "digest">;
}

export interface DurableState {
  readonly run: Digest;
  readonly relay: Bytes;
  /** Of the process that leads; 0 where only one ever could. */
  readonly epoch: number;
  readonly head: VersionInfo;
  /** Blobs of the outer optimiser's state after the newest versions, oldest first; none before the first merge. */
  readonly servers: readonly Digest[];
  /** The newest versions, oldest first. */
  readonly heads: readonly VersionInfo[];
  /** The round that is open or closed, or else the next one. */
  readonly round: number;
  readonly stage: "idle" | "open" | "closed";
  /** Of the open or closed round. */
  readonly seed: number;
  readonly openedMs: number;
  /** The round before, for what comes late; null in the first. */
  readonly previous: RoundFacts | null;
  readonly contributions: ReadonlyMap<ContributionId, Contribution>;
  /** Newest last. */
  readonly past: readonly PastRound[];
  readonly verdicts: ReadonlyMap<
    ContributorId,
    readonly { readonly contribution: ContributionId; readonly verdict: Verdict }[]
  >;
  readonly introduced: ReadonlySet<ContributorId>;
  /** Whom the operator has excluded, and why. */
  readonly banned: ReadonlyMap<ContributorId, string>;
  /** No new round is opened. */
  readonly paused: boolean;
  readonly versions: readonly VersionView[];
  /** Contributions refused by a verdict since the last version. */
  readonly refused: number;
}

/** The state after `event`, which was written at `timeMs`. A ledger that contradicts itself is a bug or damage and throws. */
export function applyEvent(state: DurableState | null, event: LedgerEvent, timeMs: number): DurableState {
  if (event.type === "started") {
    assert(state === null, "Cannot apply event: the run has started already");
    return begin(event, timeMs);
  }
  const before = present(state, "the ledger's start");
  switch (event.type) {
    case "led":
      assert(event.epoch > before.epoch, `Cannot apply event: epoch ${event.epoch} comes after ${before.epoch}`);
      return { ...before, epoch: event.epoch };
    case "introduced":
      return { ...before, introduced: withLatest(before.introduced, event.contributor) };
    case "opened":
      checkRound(before, event.round, "idle");
      return { ...before, stage: "open", seed: event.seed, openedMs: timeMs };
    case "contributed":
      return contribute(before, event);
    case "closed":
      checkRound(before, event.round, "open");
      return { ...before, stage: "closed" };
    case "judged":
      return judge(before, event);
    case "banned":
      return ban(before, event);
    case "unbanned":
      return unban(before, event);
    case "paused":
    case "resumed":
      assert(before.paused !== (event.type === "paused"), `Cannot apply event: the run is ${event.type} already`);
      return { ...before, paused: event.type === "paused" };
    case "skipped":
      checkRound(before, event.round, "closed");
      return endRound(before);
    case "merged":
      checkRound(before, event.round, "closed");
      return merge(before, event, timeMs);
    default:
      return event satisfies never;
  }
}

type Of<K extends LedgerEvent["type"]> = Extract<LedgerEvent, { readonly type: K }>;

function begin({ run, relay, head }: Of<"started">, timeMs: number): DurableState {
  return {
    run,
    relay,
    epoch: 0,
    head,
    servers: [],
    heads: [head],
    round: 1,
    stage: "idle",
    seed: 0,
    openedMs: timeMs,
    previous: null,
    contributions: new Map(),
    past: [],
    verdicts: new Map(),
    introduced: new Set(),
    banned: new Map(),
    paused: false,
    versions: [
      {
        version: head.version,
        digest: head.digest,
        timeMs,
        evalLoss: head.evalLoss,
        contributors: 0,
        accepted: 0,
        refused: 0,
        bytesUp: 0,
        bytesDown: 0,
        tokensPerS: 0,
      },
    ],
    refused: 0,
  };
}

function contribute(state: DurableState, { contribution: id, header: bytes, norm }: Of<"contributed">): DurableState {
  const header = decodeHeader(bytes);
  assert(header.ok && contributionIdOf(bytes) === id, `Cannot apply event: contribution ${id} has another header`);
  assert(
    state.stage === "open" && factsOf(state, header.value.round) !== null,
    `Cannot apply event: contribution ${id} is for round ${header.value.round}; the state is at round ${state.round}, ${state.stage}`,
  );
  assert(!state.contributions.has(id), `Cannot apply event: contribution ${id} was received before`);
  const contributions = new Map(state.contributions);
  contributions.set(id, { id, header: header.value, norm, verdict: null, improvement: null });
  return { ...state, contributions };
}

function judge(state: DurableState, { contribution: id, verdict, losses }: Of<"judged">): DurableState {
  const contribution = present(state.contributions.get(id), `contribution ${id}`);
  assert(contribution.verdict === null, `Cannot apply event: contribution ${id} has a verdict already`);
  const contributions = new Map(state.contributions);
  contributions.set(id, { ...contribution, verdict, improvement: losses === null ? null : improvementOf(losses) });
  const author = contribution.header.contributor;
  const owed = [...(state.verdicts.get(author) ?? []), { contribution: id, verdict }].slice(-VERDICTS_KEPT);
  const verdicts = new Map(state.verdicts);
  verdicts.delete(author);
  verdicts.set(author, owed);
  dropOldest(verdicts, CONTRIBUTORS_KEPT);
  return { ...state, contributions, verdicts, refused: state.refused + (verdict.type === "refused" ? 1 : 0) };
}

function ban(state: DurableState, { contributor, why }: Of<"banned">): DurableState {
  const banned = new Map(state.banned).set(contributor, why);
  assert(banned.size <= BANS_MAX, `Cannot apply event: more than ${BANS_MAX} devices are banned`);
  return { ...state, banned };
}

function unban(state: DurableState, { contributor }: Of<"unbanned">): DurableState {
  const banned = new Map(state.banned);
  assert(banned.delete(contributor), `Cannot apply event: device ${contributor} is not banned`);
  return { ...state, banned };
}

function merge(state: DurableState, event: Of<"merged">, timeMs: number): DurableState {
  const { head, server, contributors, contributions, refused, bytesUp, bytesDown, tokensPerS } = event;
  assert(
    head.parent === state.head.digest,
    `Cannot apply event: version ${head.version} does not follow the one before`,
  );
  const { version, digest, evalLoss } = head;
  const accepted = contributions.length;
  const shown = { version, digest, timeMs, evalLoss, contributors, accepted, refused, bytesUp, bytesDown, tokensPerS };
  return {
    ...endRound(state),
    head,
    servers: [...state.servers, server].slice(-CHECKPOINTS_KEPT),
    heads: [...state.heads, head].slice(-UPDATES_KEPT),
    versions: [...state.versions, shown].slice(-VERSIONS_SHOWN_MAX),
    refused: 0,
  };
}

/** The open round's accepted updates, to compare others with. */
export function acceptedIn(state: DurableState): AcceptedUpdate[] {
  return [...state.contributions.values()]
    .filter(({ verdict }) => verdict?.type === "accepted")
    .map(({ norm, header, improvement }) => ({ norm, steps: header.steps + header.ahead, improvement }));
}

/** What contributions of `round` were assigned by; null for any but the state's round and the one before. */
export function factsOf({ round: present, seed, head, previous }: DurableState, round: number): RoundFacts | null {
  return round === present ? { round, seed, base: head } : previous?.round === round ? previous : null;
}

/** What was made in the round that is open or closed: all but what came late. */
export function inTime({ round, contributions }: DurableState): Contribution[] {
  return [...contributions.values()].filter(({ header }) => header.round === round);
}

function endRound(state: DurableState): DurableState {
  const all = [...state.contributions.values()];
  const contributions = all.map(({ id, header }) => ({
    id,
    author: header.contributor,
    round: header.round,
    payload: header.payload.digest,
  }));
  const accepted = acceptedIn(state);
  const past = all.length === 0 ? state.past : [...state.past, { round: state.round, contributions, accepted }];
  return {
    ...state,
    round: state.round + 1,
    stage: "idle",
    previous: factsOf(state, state.round),
    contributions: new Map(),
    past: past.slice(-ROUNDS_KEPT),
  };
}

/**
 * The blobs that `state` can still ask for, or be asked for, data and charter excepted: the rest may be deleted. Of the
 * newest `checkpoints` versions the whole checkpoint and the outer state; one is what the run needs.
 */
export function blobsOf(state: DurableState, checkpoints = CHECKPOINTS_KEPT): Set<Digest> {
  const blobs = new Set<Digest>(state.servers.slice(-checkpoints));
  for (const head of state.heads) {
    if (head.update !== null) {
      blobs.add(head.update.digest);
    }
  }
  for (const head of state.heads.slice(-checkpoints)) {
    blobs.add(head.digest);
  }
  for (const { payload } of state.past.flatMap((round) => round.contributions)) {
    blobs.add(payload);
  }
  for (const { header } of state.contributions.values()) {
    blobs.add(header.payload.digest);
  }
  return blobs;
}

function checkRound(state: DurableState, round: number, stage: DurableState["stage"]): void {
  assert(
    state.round === round && state.stage === stage,
    `Cannot apply event: it is for round ${round}, ${stage}; the state is at round ${state.round}, ${state.stage}`,
  );
}

function withLatest(set: ReadonlySet<ContributorId>, id: ContributorId): Set<ContributorId> {
  const next = new Set(set);
  next.add(id);
  dropOldest(next, CONTRIBUTORS_KEPT);
  return next;
}
