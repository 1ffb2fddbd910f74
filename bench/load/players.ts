/**
 * Many sessions of one process that do what contributors do, but for training: they hold the version, are assigned, send a real
 * update of random values, signed, fetch and measure another's, and are told the verdicts. Losses that they report are made up. Everything
 * that the relay told them is kept, to be compared with its ledger, and when.
 */
import { digestOf, type Bytes, type ContributionId, type Digest } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { createBlobFetcher } from "../../src/net/http.ts";
import type { Charter } from "../../src/protocol/charter.ts";
import { contributionIdOf, encodeHeader, encodeReport } from "../../src/protocol/codec.ts";
import { PIECE_BYTES } from "../../src/protocol/limits.ts";
import type { RelayMessage, TrainAssignment, ValidateAssignment, VersionInfo } from "../../src/protocol/messages.ts";
import { packUpdate } from "../../src/update/pack.ts";
import type { Session } from "./session.ts";

const VALUE_MAX = 1e-6;

export interface PlayersOptions {
  readonly origin: string;
  readonly charter: Charter;
  /** Number of parameters, P. */
  readonly parameters: number;
  readonly run: Digest;
  /** Whether each fetches a version's update before it is ready for its round. */
  readonly fetchesUpdates: boolean;
  /** How many take part in a version's round; others do in the next. */
  readonly active: number;
  /** Players have their answer after half of this to this: training, and measuring another's work. */
  readonly trainMs: number;
  readonly judgeMs: number;
  readonly fault: (sentence: string) => void;
}

/** Milliseconds, in the order in which they were measured. */
export interface Waits {
  /** From "ready" for a new version to the assignment. */
  readonly assigned: number[];
  /** From a contribution to its receipt ("have"): it is in the ledger, durable. */
  readonly taken: number[];
  /** From a report to the verdict that its contribution's author is told, where both are of one process. */
  readonly judged: number[];
  /** From a contribution to its verdict, the round's waiting included. */
  readonly verdict: number[];
  /** From a contribution to its author's next training assignment. */
  readonly next: number[];
}

/** What the relay has told. */
export interface Told {
  readonly taken: ContributionId[];
  readonly accepted: ContributionId[];
  readonly refused: { readonly contribution: ContributionId; readonly reason: string }[];
}

interface Player {
  readonly session: Session;
  readonly number: number;
  /** When it said so for a new version, until it is assigned. */
  readyMs: number | null;
  /** When its last contribution was sent, until the next training assignment. */
  lastMs: number | null;
}

export class Players {
  readonly told: Told = { taken: [], accepted: [], refused: [] };
  waits: Waits = noWaits();
  /** Contributions sent whose verdict has not been told. */
  readonly #open = new Map<ContributionId, { readonly sentMs: number; taken: boolean }>();
  readonly #reported = new Map<ContributionId, number>();
  readonly #options: PlayersOptions;
  readonly #players: Player[] = [];
  readonly #fetchBlob;
  #playing = false;
  readonly #rng = createRng("players", performance.timeOrigin);
  /** Of the last update, [P]: kept, because new memory for each takes several times as long as packing it. */
  readonly #values: Float32Array;

  constructor(options: PlayersOptions) {
    this.#options = options;
    this.#values = new Float32Array(options.parameters);
    this.#fetchBlob = createBlobFetcher({ origin: options.origin });
  }

  get count(): number {
    return this.#players.length;
  }

  get open(): number {
    return this.#open.size;
  }

  /** Latencies are collected anew. */
  forgetWaits(): void {
    this.waits = noWaits();
  }

  /** Lets a session play, at once if the others do; what it is told goes through the returned function. */
  add(session: Session, number: number): (message: RelayMessage) => void {
    const player: Player = { session, number, readyMs: null, lastMs: null };
    this.#players.push(player);
    if (this.#playing) {
      this.#getReady(player, session.head);
    }
    return (message) => this.#take(player, message);
  }

  /** All who are to begin say that they hold this version. */
  begin(head: VersionInfo): void {
    this.#playing = true;
    this.#players.forEach((player) => this.#getReady(player, head));
  }

  /** Closes all sessions. */
  end(): void {
    this.#players.forEach(({ session }) => session.close());
  }

  #getReady(player: Player, { version, update }: VersionInfo): void {
    const { active, fetchesUpdates, fault } = this.#options;
    const all = this.#players.length;
    const place = (((player.number - version * active) % all) + all) % all;
    const begin = (): void => {
      player.readyMs = performance.now();
      player.session.send({ type: "ready", version });
    };
    if (place < active && fetchesUpdates && update !== null) {
      this.#fetchBlob(update.digest, update.bytes).then(begin, (error: unknown) => fault(String(error)));
    } else if (place < active) {
      begin();
    }
  }

  #take(player: Player, message: RelayMessage): void {
    const nowMs = performance.now();
    switch (message.type) {
      case "version":
        this.#getReady(player, message.head);
        return;
      case "assign":
        if (message.assignment.type === "train") {
          this.#noteAssigned(player, nowMs);
          this.#train(player, message.assignment);
        } else {
          this.#validate(player, message.assignment);
        }
        return;
      case "have":
        this.#noteTaken(message.contribution, nowMs);
        return;
      case "verdict":
        this.#noteVerdict(message, nowMs);
        return;
      case "refused":
        this.#options.fault(`A message was refused as "${message.reason}"`);
        return;
      default:
        this.#options.fault(`The relay sent "${message.type}"`);
    }
  }

  #noteAssigned(player: Player, nowMs: number): void {
    if (player.readyMs !== null) {
      this.waits.assigned.push(nowMs - player.readyMs);
      player.readyMs = null;
    }
    if (player.lastMs !== null) {
      this.waits.next.push(nowMs - player.lastMs);
      player.lastMs = null;
    }
  }

  #noteTaken(contribution: ContributionId, nowMs: number): void {
    const open = this.#open.get(contribution);
    if (open === undefined || open.taken) {
      this.#options.fault(`Contribution ${contribution} was confirmed out of turn`);
      return;
    }
    open.taken = true;
    this.waits.taken.push(nowMs - open.sentMs);
    this.told.taken.push(contribution);
  }

  #noteVerdict({ contribution, verdict }: Extract<RelayMessage, { readonly type: "verdict" }>, nowMs: number): void {
    const open = this.#open.get(contribution);
    if (open === undefined) {
      this.#options.fault(`A verdict on contribution ${contribution} was not expected`);
      return;
    }
    this.#open.delete(contribution);
    if (verdict.type === "accepted") {
      this.waits.verdict.push(nowMs - open.sentMs);
      this.told.accepted.push(contribution);
      const reportedMs = this.#reported.get(contribution);
      if (reportedMs !== undefined) {
        this.waits.judged.push(nowMs - reportedMs);
      }
    } else {
      this.told.refused.push({ contribution, reason: verdict.reason });
    }
    this.#reported.delete(contribution);
  }

  /** Nothing is made before the time has come: whoever is assigned next would wait for it, and seem to wait for the relay. */
  #train(player: Player, assignment: TrainAssignment): void {
    const { fault, trainMs } = this.#options;
    const contribute = async (): Promise<void> => {
      const { header, payload } = this.#makeContribution(player, assignment);
      const signature = await player.session.key.sign("contribution", header);
      const sentMs = performance.now();
      player.lastMs = sentMs;
      this.#open.set(contributionIdOf(header), { sentMs, taken: false });
      player.session.send({ type: "contribute", header, signature, payload });
      player.session.send({ type: "ready", version: assignment.baseVersion });
    };
    setTimeout(() => void contribute().catch((error: unknown) => fault(String(error))), this.#thinkMs(trainMs));
  }

  #makeContribution(
    { session }: Player,
    { id, round, baseVersion, baseDigest, stepsMax, keep }: TrainAssignment,
  ): { readonly header: Bytes; readonly payload: Bytes } {
    const { run, charter } = this.#options;
    const payload = this.#makeUpdate(keep);
    const header = encodeHeader({
      run,
      contributor: session.contributor,
      assignment: id,
      round,
      baseVersion,
      baseDigest,
      steps: stepsMax,
      ahead: 0,
      tokens: stepsMax * charter.inner.batch * charter.model.time,
      loss: 3,
      privateData: false,
      payload: { digest: digestOf(payload), bytes: payload.length },
    });
    return { header, payload };
  }

  #validate({ session }: Player, assignment: ValidateAssignment): void {
    const { run, fault } = this.#options;
    const { id, contribution, payload } = assignment;
    const body = encodeReport({
      run,
      validator: session.contributor,
      assignment: id,
      contribution,
      assignedBefore: 3,
      assignedAfter: 2.9,
      randomBefore: 3,
      randomAfter: 2.99,
    });
    const work = async (): Promise<void> => {
      await this.#fetchBlob(payload.digest, PIECE_BYTES);
      const signature = await session.key.sign("report", body);
      if (this.#open.has(contribution)) {
        this.#reported.set(contribution, performance.now());
      }
      session.send({ type: "report", body, signature });
    };
    setTimeout(() => void work().catch((error: unknown) => fault(String(error))), this.#thinkMs(this.#options.judgeMs));
  }

  #thinkMs(mostMs: number): number {
    return mostMs * (0.5 + 0.5 * this.#rng.float());
  }

  /** A packed update of random values, never the same twice, so small that the base stays what it is. */
  #makeUpdate(keep: number): Bytes {
    for (let i = 0; i < this.#values.length; i += 1) {
      this.#values[i] = (this.#rng.float() - 0.5) * VALUE_MAX;
    }
    return packUpdate(this.#values, { ...this.#options.charter.uplink, keep });
  }
}

function noWaits(): Waits {
  return { assigned: [], taken: [], judged: [], verdict: [], next: [] };
}
