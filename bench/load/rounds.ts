/**
 * What a round costs the coordinator's decisions, against the number of contributors: `screen` and `tick` as the host calls them, with
 * simulated peers, in this process and without links, keys, store or merge. Only the coordinator's calls are timed. Each peer
 * must be told that its contribution was accepted, once a round, and the fold of the events must end where the state does.
 */
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { assert, present } from "../../src/base/assert.ts";
import { digestOf, textBytes, type Bytes, type ContributionId, type Digest } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { startState, type CoordinatorEvent, type CoordinatorState, type Effect } from "../../src/coordinator/live.ts";
import { screen } from "../../src/coordinator/screen.ts";
import { applyEvent, type DurableState } from "../../src/coordinator/state.ts";
import { tick, wakeAt } from "../../src/coordinator/tick.ts";
import { charterDigest } from "../../src/protocol/charter-codec.ts";
import { contributionIdOf, contributorIdOf, encodeHeader } from "../../src/protocol/codec.ts";
import { exampleCharter } from "../../src/protocol/examples.ts";
import type { LedgerEvent } from "../../src/protocol/ledger.ts";
import type { RelayMessage } from "../../src/protocol/messages.ts";
import type { Outcome } from "./outcome.ts";

/** The first quarter warms the engine up and is not counted. */
const ROUNDS = 4;
/** Rounds of few are more. */
const CONTRIBUTIONS = 4_000;
const LOSSES = { assignedBefore: 3, assignedAfter: 2.9, randomBefore: 3, randomAfter: 2.99 };
const charter = { ...exampleCharter, trust: { ...exampleCharter.trust, auditShare: 0 } };
const run = charterDigest(charter);

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

interface Peer {
  readonly publicKey: Bytes;
  readonly session: number;
}

/** An event; a contribution is screened before. */
interface Step {
  readonly event: CoordinatorEvent;
  readonly payload?: Extract<CoordinatorEvent, { readonly type: "contributed" }>;
}

/** Drives one coordinator through rounds of `contributors` peers. */
class Course {
  state: CoordinatorState;
  readonly events: { readonly event: LedgerEvent; readonly timeMs: number }[] = [];
  readonly #inbox = new Map<number, RelayMessage[]>();
  readonly #rng = createRng("rounds");
  #nowMs = 1_000;
  spentMs = 0;
  merges = 0;

  readonly #stepMs: number;

  /** So many contributors have their turns within the time of a round. */
  constructor(contributors: number) {
    this.#stepMs = Math.min(1, 1_000 / contributors);
    const head = {
      version: 0,
      digest: named("base 0"),
      parent: null,
      update: null,
      checkpointBytes: 4_000,
      evalLoss: 3,
    };
    const started = { type: "started", run, relay: new Uint8Array(32), head } as const;
    this.events.push({ event: started, timeMs: 0 });
    this.state = startState(charter, applyEvent(null, started, 0), this.#nowMs);
  }

  /** Decides on `steps`, one after the other, as the host does; what follows is carried out afterwards. */
  take(steps: readonly Step[]): void {
    const effects: Effect[] = [];
    const begin = process.cpuUsage();
    for (const { event, payload } of steps) {
      this.#nowMs += this.#stepMs;
      if (payload !== undefined) {
        const screened = screen(this.state, payload.session, payload.contribution, payload.header);
        assert(screened.type === "passed", `A contribution was refused: ${JSON.stringify(screened)}`);
      }
      const done = tick(this.state, event, this.#nowMs, this.#rng);
      wakeAt(done.state, this.#nowMs);
      this.state = done.state;
      for (const one of done.events) {
        this.events.push({ event: one, timeMs: this.#nowMs });
      }
      for (const effect of done.effects) {
        effects.push(effect);
      }
    }
    const { user, system } = process.cpuUsage(begin);
    this.spentMs += (user + system) / 1_000;
    effects.forEach((effect) => this.#carryOut(effect));
  }

  #carryOut(effect: Effect): void {
    if (effect.type === "send") {
      const inbox = this.#inbox.get(effect.session) ?? [];
      inbox.push(effect.message);
      this.#inbox.set(effect.session, inbox);
    } else if (effect.type === "merge") {
      this.merges += 1;
    }
  }

  /** What a session was sent since it was last asked. */
  read(session: number): readonly RelayMessage[] {
    const inbox = this.#inbox.get(session) ?? [];
    this.#inbox.delete(session);
    return inbox;
  }
}

export function measureRounds(contributors: number): Outcome {
  const course = new Course(contributors);
  const peers = Array.from({ length: contributors }, (_, i): Peer => {
    return { publicKey: Uint8Array.from({ length: 32 }, (__, at) => (at < 4 ? i >> (8 * at) : 0)), session: i + 1 };
  });
  const joins = peers.map(({ publicKey, session }): Step => {
    const contributor = contributorIdOf(publicKey);
    return { event: { type: "joined", session, contributor, publicKey, agent: "bench relay" } };
  });
  course.take(joins);
  const joinMs = course.spentMs;
  const roundsMs: number[] = [];
  let bytes = 0;
  const rounds = Math.max(ROUNDS, Math.ceil(CONTRIBUTIONS / contributors));
  for (let round = 1; round <= rounds; round += 1) {
    course.spentMs = 0;
    collect();
    const emptyBytes = process.memoryUsage().heapUsed;
    playRound(course, peers, round, () => {
      collect();
      bytes = process.memoryUsage().heapUsed - emptyBytes;
    });
    roundsMs.push(course.spentMs);
  }
  check(course);
  const counted = roundsMs.slice(rounds / 4);
  const roundMs = counted.reduce((sum, one) => sum + one, 0) / counted.length;
  return {
    contributors,
    roundProcessorMs: Number(roundMs.toFixed(2)),
    microsecondsPerContributor: Number(((1_000 * roundMs) / contributors).toFixed(1)),
    joinMicrosecondsPerContributor: Number(((1_000 * joinMs) / contributors).toFixed(1)),
    /** Of the state with all contributions, messages and events of the round included. */
    bytesPerContributor: Math.round(bytes / contributors),
  };
}

function playRound(course: Course, peers: readonly Peer[], round: number, full: () => void): void {
  const { head } = course.state.durable;
  const sent = new Map<number, ContributionId>();
  const ready = peers.map(({ session }): Step => ({ event: { type: "ready", session, version: head.version } }));
  course.take(ready);
  const steps: Step[] = [];
  for (const [i, { publicKey, session }] of peers.entries()) {
    const assigned = course.read(session).findLast((message) => message.type === "assign")?.assignment;
    assert(assigned?.type === "train" && assigned.round === round, "A peer was not assigned");
    const header = {
      run,
      contributor: contributorIdOf(publicKey),
      assignment: assigned.id,
      round,
      baseVersion: head.version,
      baseDigest: head.digest,
      steps: 10,
      ahead: 0,
      tokens: 100,
      loss: 3,
      privateData: false,
      payload: { digest: named(`payload ${round} ${session}`), bytes: 100 },
    };
    const headerBytes = encodeHeader(header);
    const contribution = contributionIdOf(headerBytes);
    sent.set(session, contribution);
    const [signature, norm, wireBytes] = [new Uint8Array(64), 1, 100];
    const common = { session, contribution, header, headerBytes, signature, norm, wireBytes };
    const payload = { type: "contributed", ...common } as const;
    steps.push({ event: payload, payload }, present(ready[i], "a step"));
  }
  course.take(steps);
  full();
  assert(course.state.durable.stage === "closed", "The round did not close");
  const given = peers.map(({ session }) => course.read(session).findLast((message) => message.type === "assign"));
  const reports = peers.map(({ session }, i): Step => {
    const assigned = given[i]?.assignment;
    assert(assigned?.type === "validate", "A peer was given nothing to validate");
    const { id: assignment, contribution } = assigned;
    return { event: { type: "reported", session, assignment, contribution, losses: LOSSES } };
  });
  course.take(reports);
  assert(course.merges === round, "The round was not merged");
  const version = head.version + 1;
  const update = { digest: named(`update ${version}`), bytes: 10 };
  const next = { ...head, version, digest: named(`base ${version}`), parent: head.digest, update };
  const server = named(`server ${version}`);
  course.take([{ event: { type: "merged", round, head: next, server, bytesUp: 1, bytesDown: 1 } }]);
  for (const { session } of peers) {
    const told = course.read(session).filter((message) => message.type === "verdict");
    assert(
      told.length === 1 && told[0]?.contribution === sent.get(session) && told[0]?.verdict.type === "accepted",
      "A peer was not told that its contribution was accepted",
    );
  }
}

/** The events alone lead to the same state. */
function check({ events, state }: Course): void {
  const fold = events.reduce<DurableState | null>(
    (durable, { event, timeMs }) => applyEvent(durable, event, timeMs),
    null,
  );
  const { head, round, versions } = state.durable;
  assert(fold?.head.digest === head.digest && fold.round === round, "The fold of the events is not the state");
  assert(JSON.stringify(fold?.versions) === JSON.stringify(versions), "The fold of the events is not the state");
}

function named(text: string): Digest {
  return digestOf(textBytes(text));
}
