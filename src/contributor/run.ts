/**
 * The session runner: carries out the effects of `tick.ts` (dial, send, fetch, work, remember) and feeds their results back
 * as events, one at a time. Everything it touches comes in as an argument, so the browser, a laboratory's Node and the
 * simulation run these very lines. Control always goes by the dialled link; updates by WebRTC while that lane is open.
 */
import { assert, HeddleError, messageIn, present, type ErrorCode } from "../base/assert.ts";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import type { Rng } from "../base/rng.ts";
import { createStop, type StopSignal } from "../base/stop.ts";
import type { Attach, FetchBlob, FetchPieces, Link } from "../net/link.ts";
import type { Charter } from "../protocol/charter.ts";
import type { DeviceKey, VerifySignature } from "../protocol/keys.ts";
import { JOIN_SHARE, PIECE_BYTES } from "../protocol/limits.ts";
import type { Assignment, ContributorMessage, ValidateAssignment } from "../protocol/messages.ts";
import type { Store } from "../store/store.ts";
import { createDesk, type Desk } from "./desk.ts";
import { Lanes, type OpenRtc } from "./lanes.ts";
import { Peers, type PeerRtc } from "./peers.ts";
import { viewOf } from "./projection.ts";
import {
  createState,
  isThere,
  type ContributorEvent,
  type Effect,
  type Failure,
  type JobResult,
  type SessionLane,
} from "./state.ts";
import type { Terms } from "./terms.ts";
import { tick, wakeMs } from "./tick.ts";
import type { ContributorView } from "./view.ts";
import type { CreateWork, EngineInUse, JobOptions } from "./work.ts";

export type { OpenRtc } from "./lanes.ts";

/** What may be over at the next try: the relay is away or has moved on, the GPU was taken, a proxy has changed what came. */
const PASSING: readonly ErrorCode[] = ["unreachable", "absent", "device-lost", "integrity"];
/** The engine is lost, or as good as lost: what trained until now has no memory any more. */
const GONE: readonly ErrorCode[] = ["device-lost", "device-wrong", "model-too-big"];
/** The person's page is told at most this often: drawing takes a frame's time on slow machines, and one in twenty may be late. */
const VIEW_MS = 500;

/** A relay that has proven its key, and the run that it serves. */
export interface Met {
  readonly relay: Bytes;
  readonly run: Digest;
  readonly charter: Charter;
}

export interface ContributorOptions {
  readonly dial: (attach: Attach) => Promise<Link>;
  readonly openRtc?: OpenRtc;
  /** Links to other contributors; absent where this program has none. */
  readonly peerRtc?: PeerRtc;
  /** The person agreed to serve and fetch checkpoints over them; not unless it is said. */
  readonly peers?: boolean;
  readonly fetchBlob: FetchBlob;
  /** So that parts of a checkpoint that others send can be checked one by one. */
  readonly fetchPieces?: FetchPieces;
  readonly store: Store;
  /** Where the relay is reached: runs that the store remembers from there are over. Absent: the store is this relay's alone. */
  readonly origin?: string;
  readonly clock: Clock;
  readonly rng: Rng;
  readonly key: DeviceKey;
  readonly verify: VerifySignature;
  /** SHA-256, off the main path where it is many megabytes. */
  readonly hash?: (bytes: Bytes) => Promise<Digest>;
  readonly engine: EngineInUse;
  readonly createWork: CreateWork;
  /** Largest piece of a contribution; what fits one is sent whole. */
  readonly pieceBytes?: number;
  /** Program and version, for the relay's record. */
  readonly agent: string;
  /** The work trains on texts that stay here. */
  readonly privateData?: boolean;
  /** What is asked of the run before anything is trained for it; absent: nothing. */
  readonly terms?: Terms;
  /** Called before anything is trained for a run; rejects with HeddleError "consent" where the person has not agreed to it. */
  readonly agree?: (met: Met) => Promise<void>;
  /** The run that the person agreed to take part in; absent: whichever the relay serves. */
  readonly run?: Digest;
  readonly onView?: (view: ContributorView) => void;
  /** Share of the time to work at the start, 0.05 … 1. */
  readonly duty?: number;
}

export interface Contributor {
  start(): void;
  pause(): void;
  resume(): void;
  /**
   * Has training end now instead of at its deadline, where a start that follows would get no work in this round any more, and resolves when
   * the relay has what was made, or after `msMax`.
   */
  finish(msMax: number): Promise<void>;
  /** Leaves; resolves when nothing runs any more and the engine is put away. */
  stop(): Promise<void>;
  setDuty(duty: number): void;
  /** Whether the person agrees to exchange checkpoints with other contributors. */
  setPeers(on: boolean): void;
  /** The share of time to work, for the work's own pauses. */
  duty(): number;
  view(): ContributorView;
  /** Why it cannot go on without the person; null while it can. */
  failure(): Failure | null;
  /** The version of the shared base that this device holds, [P]; not to be changed. Null before it is fetched. */
  parameters(): Float32Array | null;
  /** Resolves when nothing that was started is under way (the session itself may go on). */
  settled(): Promise<void>;
}

export function createContributor(options: ContributorOptions): Contributor {
  const session = new Session(options);
  return {
    start: () => session.dispatch({ type: "start" }),
    pause: () => session.dispatch({ type: "pause" }),
    resume: () => session.dispatch({ type: "resume" }),
    finish: (msMax) => session.finish(msMax),
    stop: () => {
      session.fetching.abort();
      session.fetching = createStop();
      session.dispatch({ type: "stop" });
      return session.settled();
    },
    setDuty: (duty) => session.setDuty(duty),
    setPeers: (on) => session.setPeers(on),
    duty: () => session.duty,
    view: () => session.view(),
    failure: () => session.failure,
    parameters: () => session.parameters(),
    settled: () => session.settled(),
  };
}

/** What changes while a session runs; a class because it holds links, a timer and tasks that must end. */
class Session {
  duty: number;
  /** Aborted when the device leaves. */
  fetching = createStop();
  readonly #options: ContributorOptions;
  readonly #hash: (bytes: Bytes) => Promise<Digest>;
  #state;
  #desk: Desk | undefined;
  readonly #lanes: Lanes;
  readonly #peers: Peers;
  #stop = createStop();
  readonly #queue: ContributorEvent[] = [];
  #busy = false;
  readonly #tasks = new Set<Promise<void>>();
  #wake: { readonly timeMs: number; readonly cancel: () => void } | undefined;
  /** Called after each event. */
  readonly #watchers = new Set<() => void>();
  #shownMs = Number.NEGATIVE_INFINITY;
  #showing = false;
  /** Bytes fetched by digest. */
  #downloaded = 0;

  constructor(options: ContributorOptions) {
    this.#options = options;
    this.#hash = options.hash ?? (async (bytes) => digestOf(bytes));
    this.duty = clampDuty(options.duty ?? 1);
    const { key, agent, engine, privateData = false } = options;
    const { kind, device, sentence } = engine;
    const who = { publicKey: key.publicKey, agent, engine: kind, device, privateData };
    const identity = { ...who, engineSentence: sentence, run: options.run ?? null };
    this.#state = createState(identity, options.openRtc !== undefined);
    this.#lanes = new Lanes({ ...options, state: () => this.#state, dispatch: (event) => this.dispatch(event) });
    this.#peers = this.#makePeers();
  }

  #makePeers(): Peers {
    const options = {
      ...this.#options,
      rtc: this.#options.peerRtc,
      hash: this.#hash,
      session: () => (this.#state.link.type === "open" ? this.#state.dial : null),
      working: () => this.#state.intent === "working" && this.#state.failure === null,
      head: () => this.#state.head?.digest ?? null,
      held: () => this.#desk?.base() ?? null,
      duty: () => this.duty,
      iceServers: () => this.#lanes.iceServers,
      send: (message: ContributorMessage) => this.#lanes.send(message),
      onChange: () => this.#show(),
    };
    return new Peers(options, this.#options.peers ?? false);
  }

  /** Ticks for `event` and whatever it causes, in order; effects never tick within a tick. */
  dispatch(event: ContributorEvent): void {
    this.#queue.push(event);
    if (this.#busy) {
      return;
    }
    this.#busy = true;
    const { clock, rng } = this.#options;
    let tickedMs = clock.nowMs();
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        tickedMs = clock.nowMs();
        const { state, effects } = tick(this.#state, next, tickedMs, rng);
        this.#state = state;
        for (const effect of effects) {
          this.#carryOut(effect);
        }
        if (next.type === "received" && next.dial === state.dial && state.link.type === "open") {
          this.#peers.take(next.message);
        }
      }
    } finally {
      this.#busy = false;
    }
    this.#watchers.forEach((watch) => watch());
    this.#peers.update();
    this.#setWake(tickedMs);
    this.#show();
  }

  setPeers(on: boolean): void {
    this.#peers.setOn(on);
    this.#show();
  }

  setDuty(duty: number): void {
    this.duty = clampDuty(duty);
    this.#show();
  }

  async finish(msMax: number): Promise<void> {
    const ending = this.#isLateInRound() ? this.#state.job?.assignment : undefined;
    if (ending !== undefined) {
      this.#stop.end();
    }
    const isDone = (): boolean => {
      const { job, pending, link } = this.#state;
      const made = ending === undefined || job?.assignment !== ending;
      return made && (pending === null || isThere(this.#state) || link.type !== "open");
    };
    if (isDone()) {
      return;
    }
    await new Promise<void>((settle) => {
      const end = (): void => {
        cancel();
        this.#watchers.delete(watch);
        settle();
      };
      const watch = (): void => (isDone() ? end() : undefined);
      const cancel = this.#options.clock.after(msMax, end);
      this.#watchers.add(watch);
    });
  }

  /** Whether it trains, and would get nothing to do in this round if it came again. */
  #isLateInRound(): boolean {
    const { job, assigned, run } = this.#state;
    if (job?.type !== "train" || run === null || assigned?.assignment.id !== job.assignment) {
      return false;
    }
    return assigned.deadlineMs - this.#options.clock.nowMs() < JOIN_SHARE * run.charter.round.trainMs;
  }

  async settled(): Promise<void> {
    while (this.#tasks.size > 0) {
      await Promise.all(this.#tasks);
    }
  }

  get failure(): Failure | null {
    return this.#state.failure;
  }

  parameters(): Float32Array | null {
    return this.#desk?.base()?.params ?? null;
  }

  view(): ContributorView {
    const { clock } = this.#options;
    return viewOf(this.#state, {
      nowMs: clock.nowMs(),
      duty: this.duty,
      bytesUp: this.#lanes.bytesUp,
      bytesDown: this.#lanes.bytesDown + this.#downloaded,
      peers: this.#peers.view(),
      controlLane: this.#lanes.controlLane,
    });
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case "dial":
        void this.#lanes.dial(effect.dial); // not waited for by stop(): a link that comes too late is closed
        return;
      case "hangUp":
        this.#lanes.hangUp(effect.reason);
        return;
      case "send":
        this.#lanes.send(effect.message);
        return;
      case "prove":
        this.#run(this.#lanes.prove(effect));
        return;
      case "openRtc":
        void this.#lanes.openRtc(effect.dial);
        return;
      case "closeRtc":
        this.#lanes.closeRtc(effect.reason);
        return;
      case "prepare":
        this.#run(this.#prepare(effect));
        return;
      case "fetch":
        this.#run(this.#fetch(effect));
        return;
      case "supply":
        this.#run(this.#supply(effect.assignment));
        return;
      case "work":
        this.#stop = createStop();
        this.#run(this.#work(effect.assignment, effect.deadlineMs, this.#stop));
        return;
      case "ahead":
        this.#stop = createStop();
        this.#run(this.#ahead(effect, this.#stop));
        return;
      case "abort":
        this.#stop.abort();
        return;
      case "upload":
        this.#upload(effect.lane, this.#desk?.messageOf(effect.id));
        return;
      case "pieces":
        for (let index = effect.from; index < effect.to; index += 1) {
          this.#upload(effect.lane, this.#desk?.pieceOf(effect.id, index));
        }
        return;
      case "settle":
        this.#run(this.#desk?.settle(effect.id, effect.outcome) ?? Promise.resolve());
        return;
      case "putAway":
        this.#desk?.putAway();
        return;
      default:
        effect satisfies never;
    }
  }

  /** Keeps a task until it ends. Tasks turn their own failures into events; any other failure is a bug and surfaces. */
  #run(task: Promise<void>): void {
    const tracked: Promise<void> = task.finally(() => this.#tasks.delete(tracked));
    this.#tasks.add(tracked);
  }

  async #prepare({ run, charter, losses }: Extract<Effect, { type: "prepare" }>): Promise<void> {
    if (this.#desk?.run !== run) {
      this.#desk?.putAway();
      const { key, store, origin, createWork, privateData = false, terms, pieceBytes = PIECE_BYTES } = this.#options;
      const onTrouble = (reason: string): void => this.dispatch({ type: "troubled", reason });
      const fetchBlob: FetchBlob = (...asked) => this.#fetchBlob(...asked);
      const fetchCheckpoint = this.#peers.before(fetchBlob);
      const onEngine = (engine: EngineInUse): void => this.dispatch({ type: "moved", engine });
      const given = { run, charter, key, privateData, terms, store, origin, hash: this.#hash, createWork, pieceBytes };
      this.#desk = createDesk({ ...given, fetchBlob, fetchCheckpoint, onEngine, onTrouble });
    }
    try {
      await this.#options.agree?.({ relay: present(this.#state.relay, "the relay's key"), run, charter });
      this.dispatch({ type: "prepared", ...(await this.#desk.prepare(losses)) });
    } catch (error) {
      const fatal = error instanceof HeddleError && !PASSING.includes(error.code) ? error.code : null;
      this.dispatch({ type: "unprepared", reason: messageIn(error), fatal });
    }
  }

  async #fetch({ head, earlier }: Extract<Effect, { type: "fetch" }>): Promise<void> {
    try {
      assert(this.#desk !== undefined, "Cannot fetch: no run has begun");
      await this.#desk.fetch(head, earlier);
      this.dispatch({ type: "fetched", version: head.version, digest: head.digest });
      await this.#desk.keep();
    } catch (error) {
      this.dispatch({ type: "unfetched", reason: messageIn(error) });
    }
  }

  async #supply(assignment: ValidateAssignment): Promise<void> {
    const { id } = assignment;
    try {
      assert(this.#desk !== undefined, "Cannot fetch: no run has begun");
      await this.#desk.supply(assignment);
      this.dispatch({ type: "supplied", assignment: id, trouble: null });
    } catch (error) {
      this.dispatch({ type: "supplied", assignment: id, trouble: messageIn(error) });
    }
  }

  async #fetchBlob(...[digest, bytesMax, options = {}]: Parameters<FetchBlob>): Promise<Bytes> {
    if (this.#state.intent === "stopped") {
      throw new HeddleError("unreachable", "Nothing is fetched any more: this device has stopped");
    }
    const bytes = await this.#options.fetchBlob(digest, bytesMax, { ...options, signal: this.fetching });
    this.#downloaded += bytes.length - (options.begun?.filled ?? 0);
    return bytes;
  }

  async #work(assignment: Assignment, deadlineMs: number, signal: StopSignal): Promise<void> {
    const onStep = ({ step, tokens }: { readonly step: number; readonly tokens: number }): void =>
      this.dispatch({ type: "stepped", assignment: assignment.id, step, tokens });
    const result = await this.#resultOf(assignment, { deadlineMs, signal, onStep });
    this.dispatch({ type: "finished", assignment: assignment.id, result });
  }

  async #ahead({ assignment, stepsMax }: Extract<Effect, { type: "ahead" }>, signal: StopSignal): Promise<void> {
    const onStep = ({ step, tokens }: { readonly step: number; readonly tokens: number }): void =>
      this.dispatch({ type: "stepped", assignment, step, tokens });
    const job = { deadlineMs: Number.POSITIVE_INFINITY, signal, onStep };
    const result = await this.#orFailure(async (desk) => {
      const steps = await desk.goAhead(stepsMax, job);
      return steps === null ? { type: "dropped" } : { type: "ahead", steps };
    });
    this.dispatch({ type: "finished", assignment, result });
  }

  #resultOf(assignment: Assignment, job: JobOptions): Promise<JobResult> {
    return this.#orFailure(async (desk) => {
      if (assignment.type === "train") {
        const pending = await desk.train(assignment, job);
        return pending === null ? { type: "dropped" } : { type: "contribution", pending };
      }
      const report = await desk.validate(assignment, job);
      return report === null ? { type: "dropped" } : { type: "report", ...report };
    }, assignment.type === "validate");
  }

  async #orFailure(work: (desk: Desk) => Promise<JobResult>, isMeasuring = false): Promise<JobResult> {
    try {
      assert(this.#desk !== undefined, "Cannot work: no run has begun");
      return await work(this.#desk);
    } catch (error) {
      const code = error instanceof HeddleError ? error.code : "no-engine";
      if (code === "unreachable" || code === "integrity" || (isMeasuring && code === "model-too-big")) {
        // What was needed could not be fetched, or measuring others' work does not fit beside training, which was there
        // first and does: the assignment goes back.
        return { type: "dropped" };
      }
      const reason = code === "consent" ? messageIn(error) : `The engine has failed: ${messageIn(error)}`;
      return { type: "broken", reason, code, lost: GONE.includes(code) };
    }
  }

  #upload(lane: SessionLane, message: Bytes | undefined): void {
    if (message !== undefined) {
      this.#lanes.uploadLink(lane)?.send(message);
    }
  }

  /** What has become due since `tickedMs`, while effects were carried out, is due at once. */
  #setWake(tickedMs: number): void {
    const { clock } = this.#options;
    const timeMs = wakeMs(this.#state, tickedMs);
    if (timeMs === this.#wake?.timeMs) {
      return;
    }
    this.#wake?.cancel();
    this.#wake = undefined;
    if (timeMs !== null) {
      const wake = (): void => {
        this.#wake = undefined;
        this.dispatch({ type: "woke" });
      };
      this.#wake = { timeMs, cancel: clock.after(Math.max(0, timeMs - clock.nowMs()), wake) };
    }
  }

  /** Shows the view now, or once when the last one is long enough ago. */
  #show(): void {
    const { clock, onView } = this.#options;
    if (onView === undefined || this.#showing) {
      return;
    }
    const show = (): void => {
      this.#showing = false;
      this.#shownMs = clock.nowMs();
      onView(this.view());
    };
    const waitMs = this.#shownMs + VIEW_MS - clock.nowMs();
    if (waitMs <= 0) {
      show();
    } else {
      this.#showing = true;
      clock.after(waitMs, show);
    }
  }
}

function clampDuty(duty: number): number {
  return Math.min(1, Math.max(0.05, duty));
}
