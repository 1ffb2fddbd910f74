/**
 * The coordinator at work: it gives the pure `tick` its events from links, timers and the referee, makes what it decides
 * durable, and only then does what it asks for. Everything that changes the run goes through one queue. The clock, the
 * randomness, the store, the keys and the links are arguments, so that a simulation runs the same host in virtual time.
 */
import { HeddleError } from "../base/assert.ts";
import { digestOf, floatBytes, fromHex, type Bytes, type ContributorId, type Digest } from "../base/bytes.ts";
import type { Rng } from "../base/rng.ts";
import type { Attach, Lane, Link } from "../net/link.ts";
import { charterDigest, checkCharter } from "../protocol/charter-codec.ts";
import type { Charter } from "../protocol/charter.ts";
import type { SignedEntry } from "../protocol/chain.ts";
import type { DeviceKey, VerifySignature } from "../protocol/keys.ts";
import type { IceServer } from "../protocol/ice.ts";
import { BEAT_MS } from "../protocol/limits.ts";
import type { VersionInfo } from "../protocol/messages.ts";
import type { RunView, VersionView } from "../protocol/run-view.ts";
import { deleteBlobs, type Store } from "../store/store.ts";
import type { Base, Crew, OpenCrew } from "../update/crew.ts";
import { beginRun } from "./begin.ts";
import { loadBase, type Referee } from "./base.ts";
import { batchOf, decide, forgetBlobs, type Decision } from "./decision.ts";
import { Door, type AttachArrival, type DoorHost } from "./door.ts";
import type { Fact } from "./fact.ts";
import { createGate, PREFIX_SHARE, type GateOptions } from "./gate.ts";
import { Introductions } from "./introductions.ts";
import { openJournal, type Journal, type JournalOptions } from "./journal.ts";
import {
  hasWork,
  startState,
  type CoordinatorEvent,
  type CoordinatorState,
  type Effect,
  type OperatorCommand,
} from "./live.ts";
import { refusalOf } from "./operator.ts";
import type { Peer, Work } from "./peer.ts";
import { Queue } from "./queue.ts";
import { Reception } from "./reception.ts";
import type { DurableState } from "./state.ts";
import { wakeAt } from "./tick.ts";
import { createPublicRecord, operatorViewOf, summaryOf, viewOf, type OperatorView } from "./view.ts";
import type { Hash } from "./uploads.ts";
import { Workbench } from "./workbench.ts";

export type { Referee } from "./base.ts";

export interface CoordinatorOptions extends Omit<JournalOptions, "log"> {
  readonly store: Store;
  readonly charter: Charter;
  /** Parameters [P] of version 0; used when the run begins. */
  readonly initial: () => Float32Array<ArrayBuffer>;
  readonly rng: Rng;
  /** The relay's: signs the ledger, and the relay's part of a session. */
  readonly key: DeviceKey;
  readonly verify: VerifySignature;
  /** SHA-256 of what arrives, off the main path where it is many megabytes. */
  readonly hash?: Hash;
  /** How many sessions there may be, and how many of one network. */
  readonly gate?: GateOptions;
  readonly referee: Referee;
  /** Who merges. */
  readonly openCrew: OpenCrew;
  /** Answers an offer of a WebRTC link, made over `first`, and attaches the link when it opens. Absent: none is answered. */
  readonly answerRtc?: (sdp: string, attach: Attach, first: Link) => Promise<string>;
  /** STUN and TURN servers for a contributor's end of such links. */
  readonly iceServers?: (contributor: ContributorId) => readonly IceServer[];
  /** Called for every ledger entry once it is durable. */
  readonly onEntry?: (entry: SignedEntry) => void;
  readonly onFact?: (fact: Fact) => void;
  readonly onVersion?: (version: VersionView) => void;
  /** The phase, the round or the number of contributors has changed. */
  readonly onChange?: () => void;
  /** A draining relay has nothing left to do. May be called again. */
  readonly onDrained?: () => void;
  /** The host cannot go on (its store or its referee failed); all links are closed. `settled` rejects with the same. */
  readonly onFailure: (error: unknown) => void;
  readonly log?: (sentence: string) => void;
}

export interface CoordinatorHost {
  /** Attaches a participant's first link. */
  readonly attach: AttachArrival;
  view(): RunView;
  head(): VersionInfo;
  /** What the public record does not say: for the operator. */
  operatorView(): OperatorView;
  /** Does what the operator wants. Resolves, when that is durable, to why it cannot be done, or to null. */
  operate(command: OperatorCommand): Promise<string | null>;
  /**
   * Runs `work` when no contribution and no merge is on its way into the store: every blob is then one that the ledger knows,
   * or superfluous. The run waits meanwhile. `entries`: of the ledger, which the state is the fold of.
   */
  whileStill<T>(work: (durable: DurableState, entries: number) => Promise<T>): Promise<T>;
  /** Whether a blob belongs to the public record: checkpoints, updates, contributions, data and charter. */
  isPublic(digest: string): boolean;
  /** Open sessions by the lane that carries their updates. */
  lanes(): Readonly<Record<Lane, number>>;
  /** Has what the links have carried so far told as facts; it is told when links end and versions are made, too. */
  countTraffic(): void;
  /** Adds bytes that were downloaded beside the links to the record. */
  countDownload(bytes: number): void;
  /** Resolves when all queued work, measurements and merges are done; rejects when the host has failed. */
  settled(): Promise<void>;
  /** Closes all links and waits for what is being written; a failure has been told to `onFailure` before. */
  close(): Promise<void>;
}

/**
 * Begins the run of `charter` in an empty store, or goes on with the one that is there. Rejects with HeddleError "bad-input"
 * for a charter that cannot be used, "store" for a store of another run or relay, "integrity" for a damaged one.
 */
export async function createCoordinatorHost(options: CoordinatorOptions): Promise<CoordinatorHost> {
  const { store, charter, clock } = options;
  const valid = checkCharter(charter);
  if (!valid.ok) {
    throw new HeddleError("bad-input", `Cannot begin a run: ${valid.detail}`);
  }
  const { journal, durable: found, superfluous, entries } = await openJournal({ ...options, log: store.log });
  entries.forEach((entry) => options.onEntry?.(entry));
  if (found !== null && found.run !== charterDigest(charter)) {
    throw new HeddleError("store", `Cannot go on with the run: the store holds run ${found.run}, not this charter's`);
  }
  const durable = found ?? (await beginRun(options, journal));
  await deleteBlobs(store.blobs, superfluous);
  const crew = options.openCrew();
  const base = await loadBase(store.blobs, durable, crew.memory);
  const host = new Host(options, { journal, crew, base, state: startState(charter, durable, clock.nowMs()) });
  await host.open();
  return host;
}

interface HostParts {
  readonly journal: Journal;
  readonly crew: Crew;
  readonly base: Base;
  readonly state: CoordinatorState;
}

class Host implements CoordinatorHost {
  readonly attach: AttachArrival;
  readonly #options: CoordinatorOptions;
  readonly #journal: Journal;
  readonly #queue: Queue;
  readonly #door: Door;
  readonly #introductions: Introductions;
  readonly #workbench: Workbench;
  readonly #reception: Reception;
  #state: CoordinatorState;
  readonly #isPublic: ReturnType<typeof createPublicRecord>;
  /** Those that wait, and those that are being decided. */
  readonly #decisions: Decision[] = [];
  #nonces = 0;
  #bytesUp = 0;
  #bytesDown = 0;
  /** The last merge's end. */
  #merging: Promise<void> = Promise.resolve();
  #closed = false;
  #cancelWake: () => void = () => undefined;
  #cancelBeat: () => void = () => undefined;

  constructor(options: CoordinatorOptions, { journal, crew, base, state }: HostParts) {
    this.#options = options;
    this.#journal = journal;
    const { store, referee, charter } = options;
    const log = (line: string): void => this.#log(line);
    this.#workbench = new Workbench({ blobs: store.blobs, referee, crew, charter, base, log });
    this.#state = state;
    this.#queue = new Queue((error) => this.#fail(error));
    this.#isPublic = createPublicRecord(charter);
    this.#reception = this.#makeReception();
    this.#introductions = this.#makeIntroductions();
    this.#door = new Door(createGate(options.gate), this.#doorHost());
    this.attach = this.#door.attach;
  }

  async open(): Promise<void> {
    await this.#reception.open();
    this.#beat();
    this.#enqueue({ type: "time" });
  }

  view(): RunView {
    return viewOf(this.#state);
  }

  head(): VersionInfo {
    return this.#state.durable.head;
  }

  isPublic(digest: string): boolean {
    return this.#isPublic(this.#state.durable, digest as Digest);
  }

  operatorView(): OperatorView {
    return operatorViewOf(this.#state);
  }

  operate(command: OperatorCommand): Promise<string | null> {
    return new Promise((resolve) => {
      let refusal: string | null = null;
      this.#decide({
        event: (state) => {
          refusal = refusalOf(state, command);
          return { type: "operated", command };
        },
        done: () => resolve(refusal),
      });
    });
  }

  whileStill<T>(work: (durable: DurableState, entries: number) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const attempt = (): void =>
        this.#queue.add(async () => {
          if (this.#state.live.merging) {
            void this.#merging.then(attempt);
          } else {
            await work(this.#state.durable, this.#journal.length()).then(resolve, reject);
          }
        });
      attempt();
    });
  }

  lanes(): Readonly<Record<Lane, number>> {
    return this.#door.lanes();
  }

  countTraffic(): void {
    this.#door.countTraffic();
  }

  countDownload(bytes: number): void {
    this.#bytesDown += bytes;
  }

  settled(): Promise<void> {
    return this.#queue.settled();
  }

  async close(): Promise<void> {
    this.#stop("The relay is stopping");
    await this.settled().catch(() => undefined);
  }

  #doorHost(): DoorHost {
    const { clock, key, answerRtc } = this.#options;
    return {
      nowMs: () => clock.nowMs(),
      after: (delayMs, wake) => void clock.after(delayMs, wake),
      nonce: () => this.#makeNonce(),
      relay: key.publicKey,
      sign: (purpose, message) => key.sign(purpose, message),
      verify: (publicKey, purpose, message, signature) => this.#verify(publicKey, purpose, message, signature),
      track: (work) => void this.#queue.track(work),
      joined: (peer, { publicKey, agent }) => {
        this.#enqueue({ type: "joined", session: peer.id, contributor: peer.contributor, publicKey, agent });
      },
      work: (peer, message, wireBytes, done) => {
        if (message.type === "offer" || message.type === "piece") {
          void this.#queue.track(() => this.#reception.take(peer, message).finally(done));
        } else {
          const decision = this.#work(peer, message, wireBytes);
          this.#decide({
            ...decision,
            done: async () => {
              await decision.done?.();
              done();
            },
          });
        }
      },
      isMember: (contributor) => hasWork(this.#state, contributor),
      iceServers: (contributor) => this.#options.iceServers?.(contributor) ?? [],
      answer: async (peer, offer, attach) => {
        if (answerRtc === undefined) {
          this.#log(`Session ${peer.id}: an offer of a second link stays unanswered, there is no WebRTC here`);
          return undefined;
        }
        return answerRtc(offer, attach, peer.first).catch((error: unknown) => {
          this.#log(`Session ${peer.id}: the offer of a second link could not be answered: ${String(error)}`);
          return undefined;
        });
      },
      introduce: (peer, message) => {
        if (this.#state.live.sessions.has(peer.id)) {
          this.#introductions.take(peer, message);
        }
      },
      gone: (peer, leave) => {
        this.#introductions.left(peer.id);
        if (!this.#closed) {
          this.#enqueue({ type: "left", session: peer.id, leave });
        } // else the relay stops like one that is killed: what is open goes on at the next start
      },
      refused: (reason) => this.#options.onFact?.({ type: "refused", reason }),
      traffic: (lane, up, down) => {
        this.#bytesUp += up;
        this.#bytesDown += down;
        this.#options.onFact?.({ type: "carried", lane, up, down });
      },
      log: (sentence) => this.#log(sentence),
    };
  }

  #makeIntroductions(): Introductions {
    const { clock, rng, onFact } = this.#options;
    return new Introductions({
      rng,
      nowMs: () => clock.nowMs(),
      checkpointBytes: (blob) =>
        this.#state.durable.heads.find(({ digest }) => digest === blob)?.checkpointBytes ?? null,
      fact: (fact) => onFact?.(fact),
    });
  }

  #makeReception(): Reception {
    const { store, clock, gate, onFact, hash = async (bytes) => digestOf(bytes) } = this.#options;
    return new Reception({
      keys: store.keys,
      hash,
      prefixShare: gate?.prefixShare ?? PREFIX_SHARE,
      nowMs: () => clock.nowMs(),
      intake: () => ({ state: this.#state, blobs: store.blobs, hash, verify: (...signed) => this.#verify(...signed) }),
      decide: (decision) => this.#decide(decision),
      track: (work) => void this.#queue.track(work),
      fact: (fact) => onFact?.(fact),
      log: (sentence) => this.#log(sentence),
    });
  }

  /** Unpredictable without the relay's key, and never the same twice. */
  async #makeNonce(): Promise<Bytes> {
    this.#nonces += 1;
    const seed = new Float64Array([this.#options.clock.nowMs(), this.#nonces, this.#options.rng.uint32()]);
    return fromHex(digestOf(await this.#options.key.sign("nonce", floatBytes(seed))));
  }

  /** A key or signature that the verifier cannot even read does not match. */
  #verify(publicKey: Bytes, purpose: string, message: Bytes, signature: Bytes): Promise<boolean> {
    return this.#options.verify(publicKey, purpose, message, signature).catch((error: unknown) => {
      this.#log(`A signature could not be checked: ${String(error)}`);
      return false;
    });
  }

  #enqueue(event: CoordinatorEvent): void {
    this.#decide({ event: () => event });
  }

  #decide(decision: Decision): void {
    this.#decisions.push(decision);
    if (this.#decisions.length === 1) {
      this.#queue.add(() => this.#decideAll());
    }
  }

  #work(peer: Peer, message: Exclude<Work, { readonly type: "offer" | "piece" }>, wireBytes: number): Decision {
    const session = peer.id;
    switch (message.type) {
      case "ready":
        return { event: () => ({ type: "ready", session, version: message.version }) };
      case "release":
        return { event: () => ({ type: "released", session, assignment: message.assignment }) };
      case "contribute":
        return this.#reception.contribute(peer, message, wireBytes);
      case "report":
        return this.#reception.report(peer, message);
      default:
        return message satisfies never;
    }
  }

  /** Ticks for what waits: prepare, decide, make durable together, then act. */
  async #decideAll(): Promise<void> {
    const { store, clock, rng, onEntry, onVersion, onChange } = this.#options;
    const decisions = batchOf(this.#decisions);
    await Promise.all(decisions.map(async (decision) => decision.prepare?.()));
    const before = this.#state;
    const nowMs = clock.nowMs();
    const { state, events, effects } = decide(decisions, before, nowMs, rng);
    const entries = events.length === 0 ? [] : await this.#journal.append(events, nowMs);
    this.#state = state;
    this.#workbench.adopt(state.durable.head);
    for (const entry of entries) {
      onEntry?.(entry);
    }
    for (const [i, decision] of decisions.entries()) {
      for (const effect of effects[i] ?? []) {
        this.#perform(effect);
      }
      await decision.done?.();
    }
    if (entries.some((entry) => entry.event.type === "merged")) {
      onVersion?.(state.durable.versions.at(-1) as VersionView);
    }
    if (summaryOf(before) !== summaryOf(state)) {
      onChange?.();
    }
    await forgetBlobs(store.blobs, effects.flat());
    this.#decisions.splice(0, decisions.length);
    if (this.#decisions.length > 0) {
      this.#queue.add(() => this.#decideAll());
    }
    this.#reception.tidy();
    this.#armWake(nowMs);
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case "send":
        if (effect.message.type === "assign") {
          this.#options.onFact?.({ type: "assigned", work: effect.message.assignment.type });
        } else if (effect.message.type === "refused") {
          this.#options.onFact?.({ type: "refused", reason: effect.message.reason });
        }
        this.#door.send(effect.session, effect.message);
        return;
      case "disconnect":
        this.#door.peer(effect.session)?.close(effect.reason);
        return;
      case "measure":
        void this.#queue.track(() => this.#measure(effect));
        return;
      case "merge":
        this.#merging = this.#closed ? this.#merging : this.#queue.track(() => this.#merge(effect));
        return;
      case "forget":
        return; // when all is told
      case "drained":
        this.#options.onDrained?.();
        return;
      default:
        effect satisfies never;
    }
  }

  async #measure({ contribution: id, ...how }: Extract<Effect, { readonly type: "measure" }>): Promise<void> {
    const wanted = () => (this.#closed ? undefined : this.#state.durable.contributions.get(id));
    const losses = await this.#workbench.measure(wanted, how);
    if (wanted() !== undefined) {
      this.#enqueue({ type: "measured", contribution: id, losses });
    }
  }

  async #merge(effect: Extract<Effect, { readonly type: "merge" }>): Promise<void> {
    const { head, server } = await this.#workbench.merge(this.#state.durable, effect);
    let [bytesUp, bytesDown] = [0, 0];
    this.#decide({
      event: () => {
        this.countTraffic();
        [bytesUp, bytesDown] = [this.#bytesUp, this.#bytesDown];
        return { type: "merged", round: effect.round, head, server, bytesUp, bytesDown };
      },
      done: () => {
        this.#bytesUp -= bytesUp;
        this.#bytesDown -= bytesDown;
      },
    });
  }

  /** `tickedMs`: the time that the last decisions know. What has become due since, while the disk was busy, is due at once. */
  #armWake(tickedMs: number): void {
    this.#cancelWake();
    const { clock } = this.#options;
    const dueMs = this.#closed ? null : wakeAt(this.#state, tickedMs);
    const wake = (): void => this.#enqueue({ type: "time" });
    this.#cancelWake = dueMs === null ? () => undefined : clock.after(Math.max(0, dueMs - clock.nowMs()), wake);
  }

  #beat(): void {
    this.#door.beat();
    this.#reception.tidy();
    this.#cancelBeat = this.#options.clock.after(BEAT_MS, () => this.#beat());
  }

  #fail(error: unknown): void {
    this.#log(`The relay cannot go on: ${String(error)}`);
    this.#stop("The relay has failed and is stopping");
    this.#options.onFailure(error);
  }

  #stop(reason: string): void {
    this.#closed = true;
    this.#cancelWake();
    this.#cancelBeat();
    this.#door.close(reason);
  }

  #log(sentence: string): void {
    this.#options.log?.(sentence);
  }
}
