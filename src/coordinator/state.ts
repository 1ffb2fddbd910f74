/**
 * The durable state of a run: the fold of its ledger and nothing else, so that a relay that was killed reads its log and
 * stands where it stood. Everything in it is bounded by a named number, however long the ledger gets.
 */
import { Map as PersistentMap, OrderedMap, Set as PersistentSet } from "immutable";
import { assert, present } from "../base/assert.ts";
import type { Bytes, ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import { NOTHING_RECENT, recall, remember, type Recent } from "../base/recent.ts";
import { contributionIdOf, decodeHeader } from "../protocol/codec.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { AMONG_MAX, UPDATES_KEPT } from "../protocol/limits.ts";
import type { ContributionHeader, VersionInfo } from "../protocol/messages.ts";
import type { VersionView } from "../protocol/run-view.ts";
import type { Verdict } from "../protocol/verdict.ts";
import {
  improvementOf,
  standardsOf,
  withUpdate,
  type AcceptedUpdate,
  type Standards,
  type UpdateFacts,
} from "../trust/judge.ts";

/** Rounds whose contributions are remembered: their ids and payloads against replays, their norms for comparison. */
export const ROUNDS_KEPT = 8;
/** The loss falls fast at first: older rounds would ask for more than is there, and skipped ones must not stop the run. */
const ROUNDS_COMPARED = 2;
/** Versions whose checkpoint and outer state can still be fetched: whoever has both can do the merges after them again. */
export const CHECKPOINTS_KEPT = 3;
/** Versions in the public record. */
const VERSIONS_SHOWN_MAX = 10_000;
/** Verdicts remembered for a contributor. */
const VERDICTS_KEPT = 8;
/** Contributors for whom any are, and those who are known as introduced: the latest so many, and up to twice that. */
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
  readonly authors: ReadonlyMap<ContributionId, ContributorId>;
  /** How many they are, each once. */
  readonly contributors: number;
  readonly payloads: ReadonlySet<Digest>;
  readonly accepted: readonly AcceptedUpdate[];
}

/** One contribution of each contributor. */
type Answers = PersistentMap<ContributorId, ContributionId>;

/** A verdict of which its author may not have been told. */
interface OwedVerdict {
  readonly contribution: ContributionId;
  readonly verdict: Verdict;
}

/** What a round's assignments follow from. */
export interface RoundFacts {
  readonly round: number;
  readonly seed: number;
  /** That its contributors train from. */
  readonly base: Pick<VersionInfo, "version" | "digest">;
}

/** Its maps are persistent (`immutable`): an event costs the same however many contributions the round has. */
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
  /** In the order in which they came. */
  readonly contributions: OrderedMap<ContributionId, Contribution>;
  /** What each contributor has made in this round, and what each had made in the one before, in time or late. */
  readonly answers: Answers;
  readonly previousAnswers: Answers;
  /** Of this round's contributions. */
  readonly payloads: PersistentSet<Digest>;
  /** This round's contributions without a verdict. */
  readonly undecided: number;
  /** What this round and the ones before it accepted: long enough to know what is usual, and not for long. */
  readonly standards: Standards;
  /** Newest last. */
  readonly past: readonly PastRound[];
  readonly verdicts: Recent<ContributorId, readonly OwedVerdict[]>;
  readonly introduced: Recent<ContributorId, true>;
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
      return { ...before, introduced: remember(before.introduced, event.contributor, true, CONTRIBUTORS_KEPT) };
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

const NO_CONTRIBUTIONS = {
  contributions: OrderedMap<ContributionId, Contribution>(),
  answers: PersistentMap<ContributorId, ContributionId>() as Answers,
  payloads: PersistentSet<Digest>(),
  undecided: 0,
} as const;

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
    ...NO_CONTRIBUTIONS,
    standards: standardsOf([]),
    previous: null,
    previousAnswers: NO_CONTRIBUTIONS.answers,
    past: [],
    verdicts: NOTHING_RECENT,
    introduced: NOTHING_RECENT,
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
  const { contributor, payload } = header.value;
  return {
    ...state,
    contributions: state.contributions.set(id, { id, header: header.value, norm, verdict: null, improvement: null }),
    ...(header.value.round === state.round
      ? { answers: state.answers.set(contributor, id) }
      : { previousAnswers: state.previousAnswers.set(contributor, id) }),
    payloads: state.payloads.add(payload.digest),
    undecided: state.undecided + 1,
  };
}

/** As one of how many what a contribution of the closed round improves is measured. */
export function amongOf({ contributions }: Pick<DurableState, "contributions">): number {
  return Math.min(AMONG_MAX, contributions.size);
}

function judge(state: DurableState, { contribution: id, verdict, by, losses }: Of<"judged">): DurableState {
  const before = present(state.contributions.get(id), `contribution ${id}`);
  assert(before.verdict === null, `Cannot apply event: contribution ${id} has a verdict already`);
  const contribution = {
    ...before,
    verdict,
    // A validator's word accepts what it measured, and says nothing of what others owe.
    improvement: losses === null || by !== "relay" ? null : improvementOf(losses, amongOf(state)),
  };
  const author = before.header.contributor;
  const owed = [...(recall(state.verdicts, author) ?? []), { contribution: id, verdict }].slice(-VERDICTS_KEPT);
  const accepted = verdict.type === "accepted";
  return {
    ...state,
    contributions: state.contributions.set(id, contribution),
    undecided: state.undecided - 1,
    standards: accepted ? withUpdate(state.standards, acceptedOf(contribution)) : state.standards,
    verdicts: remember(state.verdicts, author, owed, CONTRIBUTORS_KEPT),
    refused: state.refused + (accepted ? 0 : 1),
  };
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

function acceptedOf(contribution: Contribution): AcceptedUpdate {
  return { ...updateFacts(contribution), improvement: contribution.improvement };
}

export function updateFacts({ norm, header }: Pick<Contribution, "norm" | "header">): UpdateFacts {
  return { norm, steps: header.steps + header.ahead, privateData: header.privateData };
}

/** What contributions of `round` were assigned by; null for any but the state's round and the one before. */
export function factsOf({ round: present, seed, head, previous }: DurableState, round: number): RoundFacts | null {
  return round === present ? { round, seed, base: head } : previous?.round === round ? previous : null;
}

function endRound(state: DurableState): DurableState {
  const all = [...state.contributions.values()];
  const authors = new Map(all.map(({ id, header }) => [id, header.contributor]));
  const ended: PastRound = {
    round: state.round,
    authors,
    contributors: new Set(authors.values()).size,
    payloads: new Set(all.map(({ header }) => header.payload.digest)),
    accepted: all.filter(({ verdict }) => verdict?.type === "accepted").map(acceptedOf),
  };
  const round = state.round + 1;
  const past = (all.length === 0 ? state.past : [...state.past, ended]).slice(-ROUNDS_KEPT);
  const compared = past.filter((one) => one.round >= round - ROUNDS_COMPARED);
  return {
    ...state,
    ...NO_CONTRIBUTIONS,
    round,
    stage: "idle",
    standards: standardsOf(compared.flatMap(({ accepted }) => accepted)),
    past,
    previous: factsOf(state, state.round),
    previousAnswers: state.answers,
  };
}

/** Whether `digest` is of `blobsOf(state)`. */
export function hasBlob(state: DurableState, digest: Digest): boolean {
  return (
    hasPayload(state, digest) ||
    state.servers.includes(digest) ||
    state.heads.some(({ update }) => update?.digest === digest) ||
    state.heads.slice(-CHECKPOINTS_KEPT).some((head) => head.digest === digest)
  );
}

/** Whether `digest` is a payload of this round or of one that is remembered. */
export function hasPayload({ payloads, past }: DurableState, digest: Digest): boolean {
  return payloads.has(digest) || past.some((round) => round.payloads.has(digest));
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
  for (const { payloads } of [...state.past, state]) {
    for (const digest of payloads) {
      blobs.add(digest);
    }
  }
  return blobs;
}

function checkRound(state: DurableState, round: number, stage: DurableState["stage"]): void {
  assert(
    state.round === round && state.stage === stage,
    `Cannot apply event: it is for round ${round}, ${stage}; the state is at round ${state.round}, ${state.stage}`,
  );
}
