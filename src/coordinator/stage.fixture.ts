/**
 * A coordinator on a stage, for tests: a clock that is moved by hand, contributors that are names, and a memory of all that
 * was decided and asked for. Only the pure `tick` is at work; there are no links, keys or stores.
 */
import { assert } from "../base/assert.ts";
import { digestOf, type Bytes, type ContributionId, type ContributorId, type Digest } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { charterDigest } from "../protocol/charter-codec.ts";
import { contributionIdOf, contributorIdOf, encodeHeader } from "../protocol/codec.ts";
import { countingBytes, exampleCharter } from "../protocol/examples.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import type { Assignment, ContributionHeader, Losses, RelayMessage } from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { startState, type CoordinatorEvent, type CoordinatorState, type Effect, type Session } from "./live.ts";
import { screen } from "./screen.ts";
import { applyEvent, type DurableState } from "./state.ts";
import { tick, wakeAt } from "./tick.ts";

export const charter = {
  ...exampleCharter,
  uplink: { ...exampleCharter.uplink, keep: 128, together: 1024, carry: false },
  round: { ...exampleCharter.round, aheadMax: 5 },
  trust: { ...exampleCharter.trust, auditShare: 0 },
};
const run = charterDigest(charter);
const relay = countingBytes(32);
export const GOOD: Losses = { assignedBefore: 3, assignedAfter: 2.9, randomBefore: 3, randomAfter: 2.99 };
export const HARMFUL: Losses = { assignedBefore: 3, assignedAfter: 2.9, randomBefore: 3, randomAfter: 4 };

const keyOf = (name: string): Bytes => Uint8Array.from({ length: 32 }, (_, i) => name.charCodeAt(i % name.length));
export const idOf = (name: string): ContributorId => contributorIdOf(keyOf(name));

/** A coordinator with a clock and a memory of all that it said; sessions are named after contributors. */
export class Stage {
  state: CoordinatorState;
  nowMs = 1_000;
  readonly log: { readonly event: LedgerEvent; readonly timeMs: number }[] = [];
  effects: Effect[] = [];
  readonly sessions = new Map<string, number>();
  #sessions = 0;
  #payloads = 0;
  readonly rng = createRng("stage");

  readonly #check: (stage: Stage) => void;

  /** `check` is called after every tick. */
  constructor(check: (stage: Stage) => void, { auditShare = 0, lateShare = 0 } = {}) {
    this.#check = check;
    const head = {
      version: 0,
      digest: digestOf(countingBytes(4)),
      parent: null,
      update: null,
      checkpointBytes: 40,
      evalLoss: 3,
    };
    const event = { type: "started", run, relay, head } as const;
    this.log.push({ event, timeMs: 0 });
    const round = { ...charter.round, lateShare };
    const own = { ...charter, round, trust: { ...charter.trust, auditShare } };
    this.state = startState(own, applyEvent(null, event, 0), this.nowMs);
  }

  give(event: CoordinatorEvent): readonly Effect[] {
    const { state, events, effects } = tick(this.state, event, this.nowMs, this.rng);
    this.state = state;
    this.log.push(...events.map((each) => ({ event: each, timeMs: this.nowMs })));
    this.effects.push(...effects);
    checkGroups(state);
    this.#check(this);
    return effects;
  }

  fold(): DurableState | null {
    return this.log.reduce<DurableState | null>(
      (durable, { event, timeMs }) => applyEvent(durable, event, timeMs),
      null,
    );
  }

  /** Lets time pass, with a tick whenever the coordinator wants one. */
  pass(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (
      let due = wakeAt(this.state, this.nowMs);
      due !== null && due <= untilMs;
      due = wakeAt(this.state, this.nowMs)
    ) {
      this.nowMs = due;
      this.give({ type: "time" });
    }
    this.nowMs = untilMs;
  }

  /** The relay dies and starts again with its ledger. */
  restart(): void {
    this.state = startState(this.state.charter, this.fold() as DurableState, this.nowMs);
    this.sessions.clear();
    this.effects = [];
    this.give({ type: "time" });
  }

  join(...names: string[]): void {
    for (const name of names) {
      this.#sessions += 1;
      this.sessions.set(name, this.#sessions);
      const publicKey = keyOf(name);
      this.give({ type: "joined", session: this.#sessions, contributor: idOf(name), publicKey, agent: "test" });
    }
  }

  session(name: string): number {
    return this.sessions.get(name) ?? -1;
  }

  ready(...names: string[]): void {
    for (const name of names) {
      this.give({ type: "ready", session: this.session(name), version: this.state.durable.head.version });
    }
  }

  come(...names: string[]): void {
    this.join(...names);
    this.ready(...names);
  }

  leave(name: string, leave = true): void {
    this.give({ type: "left", session: this.session(name), leave });
  }

  assignment<K extends Assignment["type"]>(
    name: string,
    type: K,
  ): Extract<Assignment, { readonly type: K }> | undefined {
    const given = this.told(name).flatMap((message) => (message.type === "assign" ? [message.assignment] : []));
    return given.findLast((one): one is Extract<Assignment, { readonly type: K }> => one.type === type);
  }

  told(name: string): RelayMessage[] {
    const session = this.session(name);
    return this.effects.flatMap((effect) =>
      effect.type === "send" && effect.session === session ? [effect.message] : [],
    );
  }

  header(name: string, change: Partial<ContributionHeader> = {}): ContributionHeader {
    this.#payloads += 1;
    const { id, round, baseVersion, baseDigest } = this.assignment(name, "train") as Extract<
      Assignment,
      { readonly type: "train" }
    >;
    const payload = { digest: digestOf(Uint8Array.of(this.#payloads & 255, this.#payloads >> 8)), bytes: 2 };
    const common = {
      run,
      contributor: idOf(name),
      privateData: false,
      steps: 10,
      ahead: 0,
      tokens: 1_000,
      loss: 3,
      payload,
    };
    return { ...common, assignment: id, round, baseVersion, baseDigest, ...change };
  }

  screen(name: string, header: ContributionHeader): string {
    const screened = screen(this.state, this.session(name), contributionIdOf(encodeHeader(header)), header);
    return screened.type === "refused" ? screened.reason : screened.type;
  }

  contribute(name: string, { norm = 1, header = this.header(name) } = {}): ContributionId {
    assert(this.screen(name, header) === "passed", `Cannot contribute: ${this.screen(name, header)}`);
    const headerBytes = encodeHeader(header);
    const contribution = contributionIdOf(headerBytes);
    const common = { header, headerBytes, signature: countingBytes(64), norm, wireBytes: 100 };
    this.give({ type: "contributed", session: this.session(name), contribution, ...common });
    return contribution;
  }

  report(name: string, losses: Losses): void {
    const { id, contribution } = this.assignment(name, "validate") as Extract<
      Assignment,
      { readonly type: "validate" }
    >;
    this.give({ type: "reported", session: this.session(name), assignment: id, contribution, losses });
  }

  measures(): ContributionId[] {
    return this.effects.flatMap((effect) => (effect.type === "measure" ? [effect.contribution] : []));
  }

  measure(contribution: ContributionId, losses: Losses | null): void {
    this.give({ type: "measured", contribution, losses });
  }

  merges(): (readonly ContributionId[])[] {
    return this.effects.flatMap((effect) => (effect.type === "merge" ? [effect.contributions] : []));
  }

  merge(): void {
    const { head, round } = this.state.durable;
    const version = head.version + 1;
    const named = (what: string): Digest => digestOf(Uint8Array.from(`${what} ${version}`, (it) => it.charCodeAt(0)));
    const update = { digest: named("update"), bytes: 10 };
    const next = {
      version,
      digest: named("base"),
      parent: head.digest,
      update,
      checkpointBytes: 40,
      evalLoss: 3 - version / 100,
    };
    this.give({ type: "merged", round, head: next, server: named("server"), bytesUp: 10, bytesDown: 20 });
  }

  verdict(id: ContributionId): Verdict | null {
    const event = this.log.findLast(({ event: one }) => one.type === "judged" && one.contribution === id)?.event;
    return event?.type === "judged" ? event.verdict : null;
  }

  types(): string[] {
    return this.log.map(({ event }) => event.type);
  }
}

/** What is kept up to date beside sessions and contributions must be what a look at all of them gives. */
function checkGroups({ durable, live }: CoordinatorState): void {
  const contributions = [...durable.contributions.values()];
  const inTime = contributions.filter(({ header }) => header.round === durable.round);
  const authors = new Set(inTime.map(({ header }) => header.contributor));
  const sessions = [...live.sessions.values()];
  const same = (name: string, kept: Iterable<unknown>, found: Iterable<unknown>): void =>
    assert([...kept].sort().join() === [...found].sort().join(), `Groups are out of date: ${name}`);
  const idsOf = (fits: (session: Session) => boolean): number[] => sessions.filter(fits).map(({ id }) => id);
  const isReady = ({ ready }: Session): boolean => ready === durable.head.version;
  same(
    "sessionOf",
    live.sessionOf.entries(),
    sessions.map(({ id, contributor }) => [contributor, id]),
  );
  same(
    "seekers",
    live.seekers,
    idsOf(
      (one) => isReady(one) && one.task === null && !authors.has(one.contributor) && !live.ended.has(one.contributor),
    ),
  );
  same(
    "trainers",
    live.trainers,
    idsOf(({ task }) => task?.type === "train"),
  );
  same(
    "unready",
    live.unready,
    idsOf((one) => authors.has(one.contributor) && !isReady(one)),
  );
  same("answers", durable.answers.keys(), authors);
  same("payloads", durable.payloads, new Set(contributions.map(({ header }) => header.payload.digest)));
  const undecided = contributions.filter(({ verdict }) => verdict === null).map(({ id }) => id);
  assert(durable.undecided === undecided.length, "Groups are out of date: undecided");
  const judged = [...live.judging.keys()];
  assert(
    judged.every((id) => undecided.includes(id)),
    "Groups are out of date: judging",
  );
  assert(live.loose.size === 0, "Groups are out of date: a contribution that nobody measures is left so");
  for (const [id, one] of live.judging) {
    const task = one.type === "validator" ? live.sessions.get(one.session)?.task : null;
    assert(
      one.type === "referee" || (task?.type === "validate" && task.contribution === id),
      "Groups are out of date: a validator has left its contribution",
    );
  }
}
