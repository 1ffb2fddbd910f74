/**
 * Contributions and reports between a session and the coordinator's queue. What comes in pieces is checked as far as it can be when
 * it is offered; pieces are made durable and confirmed beside the queue, so that nothing waits for them, and what is complete
 * goes on exactly as a contribution that arrived whole. Who is refused is told why; what is not expected costs no memory.
 */
import type { ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import { createTurn, type InTurn } from "../base/turn.ts";
import { contributionIdOf, encodeMessage } from "../protocol/codec.ts";
import { digestPieces, piecesOffered } from "../protocol/pieces.ts";
import type { Keys } from "../store/store.ts";
import type { Fact } from "./fact.ts";
import type { Decision } from "./decision.ts";
import {
  checkContribution,
  isPresent,
  rejected,
  takeContribution,
  takeOffer,
  takeReport,
  type Intake,
  type IntakeOptions,
  type Sender,
  type Soon,
  type Sound,
  type Whole,
} from "./intake.ts";
import { arrivalOf } from "./late.ts";
import { BUSY_RETRY_MS, sessionOf, type CoordinatorState } from "./live.ts";
import type { Peer, Work } from "./peer.ts";
import { hasBlob } from "./state.ts";
import { UPLOAD_IDLE_MS, Uploads, type Hash, type Upload } from "./uploads.ts";

type Of<K extends Work["type"]> = Extract<Work, { readonly type: K }>;

export interface ReceptionHost {
  readonly keys: Keys;
  readonly hash: Hash;
  /** Of the room for uploads, what one network prefix may have. */
  readonly prefixShare: number;
  nowMs(): number;
  /** The state as it is now, and what else checking needs. */
  intake(): IntakeOptions;
  /** Adds a decision to those that wait. */
  decide(decision: Decision): void;
  /** Runs asynchronous work beside the queue. */
  track(work: () => Promise<void>): void;
  fact(fact: Fact): void;
  log(sentence: string): void;
}

/** What is peculiar to a decision on what somebody sent. */
interface Parts {
  /** That are held for it. */
  readonly bytes: number;
  readonly prepare: () => Promise<void>;
  /** What became of it, in the light of the state; null when that is nothing. */
  readonly intake: (state: CoordinatorState) => Intake | null;
  /** It is durable and told, unless its sender is `gone`. */
  readonly after?: (gone: boolean) => Promise<void>;
}

/** A class because it holds what is under way. */
export class Reception {
  readonly #host: ReceptionHost;
  readonly #uploads: Uploads;
  /** Who sent what is complete and waits for the next round. */
  readonly #waiting = new WeakMap<Upload, Peer>();
  /** Contributions that are being made uploads, and who sent each last. */
  readonly #held = new Map<ContributorId, { readonly contribution: ContributionId; peer: Peer }>();
  /** Whatever changes uploads. */
  readonly #inTurn: InTurn = createTurn();

  constructor(host: ReceptionHost) {
    this.#host = host;
    const { keys, hash, prefixShare } = host;
    this.#uploads = new Uploads({ keys, hash, prefixShare, nowMs: () => host.nowMs() });
  }

  /** Finds what an earlier process has left. */
  async open(): Promise<void> {
    await this.#uploads.read();
    this.tidy();
  }

  /** Resolves when the message has been handled. */
  take(peer: Peer, message: Of<"offer" | "piece">): Promise<void> {
    if (message.type === "piece" && this.#uploadOf(peer, message) === undefined) {
      if (!peer.waste()) {
        peer.refuse("not-assigned", `piece ${message.index} is of nothing that is being received`);
      }
      return Promise.resolve(); // not even queued
    }
    return this.#inTurn(() => (message.type === "offer" ? this.#offer(peer, message) : this.#piece(peer, message)));
  }

  /** Forgets uploads that nobody waits for any more, and goes on with those whose time has come. To be called whenever the state has changed, and now and then. */
  tidy(): void {
    const { state } = this.#host.intake();
    for (const upload of this.#uploads.all().filter(({ taken }) => !taken)) {
      const why = whyOver(upload, state, this.#host.nowMs());
      const peer = this.#waiting.get(upload);
      if (why === null && peer !== undefined && isDue(upload, state)) {
        this.#waiting.delete(upload);
        this.#host.decide(this.#finish(peer, upload));
      }
      if (why !== null) {
        this.#drop(upload);
        if (why === "late") {
          const session = sessionOf(state.live, upload.contributor);
          const detail = `the round closed after ${upload.held} of ${upload.count} pieces`;
          if (session !== undefined) {
            const intake = rejected({ session: session.id }, upload.contribution, { reason: "late", detail }, false);
            this.#host.decide(this.#settle(null, intake, upload.count));
          }
        }
      }
    }
  }

  /** A contribution that came whole. One that came too early for the next round waits as an upload does. */
  contribute(peer: Peer, message: Of<"contribute">, wireBytes: number): Decision {
    return this.#takeWhole(peer, async () => message, {
      pieces: 1,
      wireBytes: () => wireBytes,
      bytes: message.payload.length,
      wait: (whole) => this.#hold(peer, whole),
    });
  }

  /**
   * Makes an upload of a contribution that came whole and too early, one at a time: an assignment has one answer, and nothing else would
   * bound how many are made for a round that is still to come.
   */
  #hold(peer: Peer, whole: Whole): void {
    const { contributor } = peer;
    const contribution = contributionIdOf(whole.header);
    const [held, upload] = [this.#held.get(contributor), this.#uploads.of(contributor)];
    const waiting = held ?? (upload?.held === upload?.count ? upload : undefined);
    if (waiting !== undefined && waiting.contribution !== contribution) {
      peer.refuse("not-assigned", "another contribution to this round is here and waits");
      peer.strike();
    } else if (held !== undefined) {
      held.peer = peer; // its link broke, and it came back
      peer.waste();
    } else if (!peer.waste()) {
      const made = { contribution, peer };
      this.#held.set(contributor, made);
      const kept = (): Promise<void> => this.#inTurn(() => this.#keep(made.peer, whole));
      this.#host.track(() => kept().finally(() => this.#held.delete(contributor)));
    }
  }

  async #keep(peer: Peer, { header, signature, payload }: Whole): Promise<void> {
    await this.#offer(peer, { type: "offer", header, signature, pieces: digestPieces(payload, 1) });
    const contribution = contributionIdOf(header);
    if (this.#uploadOf(peer, { contribution })?.held === 0) {
      await this.#piece(peer, { type: "piece", contribution, index: 0, bytes: payload });
    }
  }

  report(peer: Peer, message: Of<"report">): Decision {
    let taken: Intake;
    return this.#decision(peer, 0, {
      bytes: message.body.length,
      prepare: async () => {
        taken = await takeReport(this.#host.intake(), senderOf(peer), message);
      },
      intake: () => taken,
    });
  }

  /** The contribution that `read` resolves to, unless that is nothing any more. */
  #takeWhole(
    peer: Peer,
    read: () => Promise<Whole | null>,
    {
      pieces,
      bytes,
      wireBytes,
      wait,
      done,
    }: {
      readonly pieces: number;
      /** Of its payload. */
      readonly bytes: number;
      readonly wireBytes: (whole: Whole) => number;
      /** Its time is still to come. */
      readonly wait: (whole: Whole) => void;
      /** It is decided, unless its sender is `gone`. */
      readonly done?: (gone: boolean) => void;
    },
  ): Decision {
    let whole: Whole | null = null;
    let checked: Intake | Sound | Soon;
    let spare: Digest | null = null;
    let waits = false;
    return this.#decision(peer, pieces, {
      bytes,
      prepare: async () => {
        whole = await read();
        if (whole !== null) {
          checked = await checkContribution(this.#host.intake(), senderOf(peer), whole);
        }
      },
      intake: (state) => {
        if (whole === null) {
          return null;
        }
        const taken = takeContribution(state, senderOf(peer), whole, { checked, wireBytes: wireBytes(whole) });
        const isTaken = taken.type === "event" && taken.event.type === "contributed";
        spare = checked.type === "offered" && !checked.soon && !isTaken ? checked.header.payload.digest : null;
        if (taken.type === "offered") {
          waits = true;
          return null;
        }
        return taken;
      },
      after: async (gone) => {
        if (gone && whole !== null && checked.type === "offered" && !checked.soon) {
          spare = checked.header.payload.digest;
        }
        const { state, blobs } = this.#host.intake();
        if (spare !== null && !hasBlob(state.durable, spare)) {
          await blobs.delete(spare); // something that was decided meanwhile stands against it
        }
        if (waits && whole !== null) {
          wait(whole);
        }
        done?.(gone);
      },
    });
  }

  /**
   * What became of a report, or of a contribution of `pieces` pieces, as a decision. A session that begins in the same batch is not known
   * when it is prepared: then it is decided with the next one.
   */
  #decision(peer: Peer, pieces: number, parts: Parts): Decision {
    const { bytes, prepare, intake, after } = parts;
    const isHere = (state: CoordinatorState): boolean => state.live.sessions.has(peer.id); // else it has left, or another session of the device has begun
    let [isPrepared, isGone] = [false, false];
    let settled: Decision | null = null;
    return {
      bytes,
      prepare: async () => {
        if (isHere(this.#host.intake().state)) {
          await prepare();
          isPrepared = true;
        }
      },
      event: (state) => {
        isGone = !isHere(state);
        const taken = isPrepared && !isGone ? intake(state) : null;
        settled = taken === null ? null : this.#settle(peer, taken, pieces);
        return settled?.event(state) ?? null;
      },
      done: async () => {
        if (isPrepared) {
          await settled?.done?.();
          await after?.(isGone);
        } else if (isHere(this.#host.intake().state)) {
          this.#host.decide(this.#decision(peer, pieces, parts));
        }
      },
    };
  }

  /** Passes on what became of a report, or of a contribution of `pieces` pieces. */
  #settle(peer: Peer | null, intake: Intake, pieces: number): Decision {
    switch (intake.type) {
      case "event":
        return this.#pass(peer, intake, pieces);
      case "again": {
        const { contribution, verdict } = intake;
        const done = (): void => {
          peer?.send(
            verdict === null ? { type: "have", contribution, pieces } : { type: "verdict", contribution, verdict },
          );
          peer?.waste();
        };
        return { event: () => null, done };
      }
      case "refused":
        return {
          event: () => null,
          done: () => {
            peer?.refuse(intake.reason, intake.detail);
            peer?.strike();
          },
        };
      default:
        return intake satisfies never;
    }
  }

  #pass(peer: Peer | null, { event, detail }: Extract<Intake, { readonly type: "event" }>, pieces: number): Decision {
    if (event.type !== "rejected") {
      peer?.forgive();
      const done = (): void => {
        if (event.type === "contributed") {
          peer?.send({ type: "have", contribution: event.contribution, pieces });
        }
      };
      return { event: () => event, done };
    }
    this.#host.log(`Session ${event.session}: contribution refused as "${event.reason}": ${detail}`);
    this.#host.fact({ type: "rejected", reason: event.reason });
    // Late may be anybody; who sends nothing else is no better than one who floods.
    return { event: () => event, done: () => void (event.reason === "late" ? peer?.waste() : peer?.strike()) };
  }

  async #offer(peer: Peer, offer: Of<"offer">): Promise<void> {
    const intake = this.#host.intake();
    if (!intake.state.live.sessions.has(peer.id)) {
      return; // it has left, or another session of the device has begun
    }
    const taken = await takeOffer(intake, senderOf(peer), offer);
    if (taken.type !== "offered") {
      this.#host.decide(this.#settle(peer, taken, piecesOffered(offer)));
      return;
    }
    const upload = await this.#uploads.begin(offer, taken.header, peer.prefix);
    if (upload === null) {
      peer.refuse("busy", "there is no room for another upload", BUSY_RETRY_MS);
      return;
    }
    this.#confirm(peer, upload);
  }

  async #piece(peer: Peer, piece: Of<"piece">): Promise<void> {
    const upload = this.#uploadOf(peer, piece);
    if (upload === undefined) {
      return; // it was dropped meanwhile, and its sender told
    }
    const added = await this.#uploads.add(upload, piece.index, piece.bytes);
    switch (added.type) {
      case "held":
        this.#confirm(peer, upload);
        return;
      case "ignored":
        peer.waste();
        return;
      case "damaged":
        if (added.again) {
          this.#host.log(`Session ${peer.id}: ${added.detail}; it is asked for again`);
          this.#confirm(peer, upload);
          return;
        }
        this.#drop(upload);
        this.#host.decide(
          this.#settle(
            peer,
            rejected(
              { session: peer.id },
              upload.contribution,
              { reason: "malformed", detail: added.detail },
              isPresent(this.#host.intake(), upload.header),
            ),
            upload.count,
          ),
        );
        return;
      case "misplaced":
        peer.refuse("malformed", added.detail);
        peer.strike();
        return;
      default:
        added satisfies never;
    }
  }

  /** Says how far the upload is, or passes it on when it is complete. */
  #confirm(peer: Peer, upload: Upload): void {
    if (upload.held < upload.count) {
      peer.send({ type: "have", contribution: upload.contribution, pieces: upload.held });
    } else {
      this.#host.decide(this.#finish(peer, upload));
    }
  }

  #finish(peer: Peer, upload: Upload): Decision {
    let mine = false;
    const read = async (): Promise<Whole | null> => {
      if (this.#uploads.of(upload.contributor) !== upload || upload.taken) {
        return null; // done already
      }
      upload.taken = true;
      const payload = await this.#uploads.payload(upload);
      if (payload === null) {
        upload.taken = false;
        this.#host.log(`Session ${peer.id}: piece ${upload.held} of ${upload.count} is lost; it is asked for again`);
        this.#confirm(peer, upload);
        return null;
      }
      mine = true;
      const { header, signature } = upload.offer;
      return { header, signature, payload };
    };
    return this.#takeWhole(peer, read, {
      pieces: upload.count,
      bytes: upload.header.payload.bytes,
      wireBytes: ({ payload }) => encodeMessage(upload.offer).length + payload.length,
      wait: () => {
        [upload.taken, mine] = [false, false];
        this.#waiting.set(upload, peer);
        peer.send({ type: "have", contribution: upload.contribution, pieces: upload.count });
      },
      done: (gone) => {
        if (mine && gone) {
          upload.taken = false; // its sender will come back and offer it again
        } else if (mine) {
          this.#drop(upload);
        }
      },
    });
  }

  #uploadOf(peer: Peer, { contribution }: Pick<Of<"piece">, "contribution">): Upload | undefined {
    const upload = this.#uploads.of(peer.contributor);
    return upload?.contribution === contribution ? upload : undefined;
  }

  #drop(upload: Upload): void {
    if (this.#uploads.of(upload.contributor) === upload) {
      this.#uploads.forget(upload);
      this.#host.track(() => this.#inTurn(() => this.#uploads.erase(upload)));
    }
  }
}

function senderOf(peer: Peer): Sender {
  return { session: peer.id, publicKey: peer.publicKey };
}

/** Null while an upload is of use. */
function whyOver(
  { contribution, contributor, header, movedMs, held, count }: Upload,
  { charter, durable, live }: CoordinatorState,
  nowMs: number,
): "taken" | "late" | "idle" | null {
  if (durable.contributions.has(contribution) || (header.round === durable.round && live.ended.has(contributor))) {
    return "taken";
  }
  const arrival = arrivalOf(charter, durable, header.round);
  if (arrival === "late" || arrival === "early") {
    return "late";
  }
  return held < count && nowMs - movedMs > UPLOAD_IDLE_MS ? "idle" : null; // what is complete waits for its round
}

/** Whether what waited for the next round can be taken in. */
function isDue({ header }: Upload, { charter, durable }: CoordinatorState): boolean {
  return arrivalOf(charter, durable, header.round) === "now";
}
