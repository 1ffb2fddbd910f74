/**
 * Introduces contributors to each other, where both agreed: one serves the checkpoint that the other asks for. The relay picks who
 * serves at random, gives both a name for their meeting and each other's key, carries one signed offer and one signed answer
 * between them, and is out of the way then. It believes neither: who failed somebody is never introduced to them again, and who
 * failed several serves nobody. Nothing of this is durable, and everything has a limit.
 */
import { fullBucket, takeToken, type Bucket, type Rate } from "../base/bucket.ts";
import { toHex, type Bytes, type ContributorId, type Digest } from "../base/bytes.ts";
import { dropOldest } from "../base/newest.ts";
import type { Rng } from "../base/rng.ts";
import { NONCE_BYTES } from "../protocol/limits.ts";
import type { ContributorMessage, RelayMessage } from "../protocol/messages.ts";
import type { Fact } from "./fact.ts";
import type { SessionId } from "./live.ts";

export type Introducing = Extract<ContributorMessage, { readonly type: "serve" | "seek" | "signal" | "met" }>;

/** How often one session may ask, and be asked. */
export const SEEK_RATE: Rate = { perS: 0.1, burst: 3 };
export const SERVE_RATE: Rate = { perS: 0.2, burst: 2 };
/** All introductions of one relay: each costs four messages, two of them with a description. */
export const MEET_RATE: Rate = { perS: 50, burst: 200 };
/** Who might serve is drawn so many times at most. */
const DRAWS_MAX = 8;
/** Contributors that a session remembers to have failed it. */
export const FAILED_MAX = 64;
/** Different contributors that somebody failed, one after the other, before it is asked to serve nobody any more. */
export const FAULTS_MAX = 8;

/** Contributors whose faults are known, the latest. */
export const FAULTY_MAX = 1_024;

/** A session that takes part. */
export interface Guest {
  readonly id: SessionId;
  readonly contributor: ContributorId;
  readonly publicKey: Bytes;
  send(message: RelayMessage): void;
}

export interface IntroductionsOptions {
  nowMs(): number;
  readonly rng: Rng;
  /** The bytes of a checkpoint of this run that contributors may need; null for any other blob. */
  checkpointBytes(blob: Digest): number | null;
  fact(fact: Fact): void;
}

/** A meeting under way: offered and answered are what was carried so far. */
interface Meeting {
  readonly name: string;
  readonly blob: Digest;
  readonly asking: Party;
  readonly serving: Party;
  stage: "introduced" | "offered" | "answered";
}

/** What is known of a guest. */
interface Party {
  readonly guest: Guest;
  readonly seeks: Bucket;
  readonly asked: Bucket;
  /** What it serves, and its place among those who do. */
  serves: { readonly blob: Digest; place: number } | null;
  /** The meeting that it asked for; one at a time. */
  asking: Meeting | null;
  readonly serving: Set<Meeting>;
  /** Who failed it. */
  readonly failed: Set<ContributorId>;
}

export class Introductions {
  readonly #options: IntroductionsOptions;
  readonly #parties = new Map<SessionId, Party>();
  readonly #servers = new Map<Digest, Party[]>();
  /** At most one of each party. */
  readonly #meetings = new Map<string, Meeting>();
  /** Whom somebody failed since it last served somebody, over all its sessions. */
  readonly #faults = new Map<ContributorId, Set<ContributorId>>();
  readonly #all: Bucket;

  constructor(options: IntroductionsOptions) {
    this.#options = options;
    this.#all = fullBucket(MEET_RATE, options.nowMs());
  }

  /** Meetings under way. */
  get meetings(): number {
    return this.#meetings.size;
  }

  /** A message of an open session. What comes too late or out of turn is passed over: the other may have been faster. */
  take(guest: Guest, message: Introducing): void {
    const party = this.#partyOf(guest);
    switch (message.type) {
      case "serve":
        this.#serve(party, message.blob);
        return;
      case "seek":
        this.#seek(party, message.blob);
        return;
      case "signal":
        this.#carry(party, message);
        return;
      case "met":
        this.#conclude(party, message);
        return;
      default:
        message satisfies never;
    }
  }

  /** A session is over. A link between two that have met goes on without it, and who asked may say still what came of it. */
  left(id: SessionId): void {
    const party = this.#parties.get(id);
    if (party === undefined) {
      return;
    }
    this.#parties.delete(id);
    this.#serve(party, null);
    this.#end(party.asking);
    for (const meeting of party.serving) {
      if (meeting.stage !== "answered") {
        meeting.asking.guest.send({ type: "alone", blob: meeting.blob });
        this.#end(meeting);
      }
    }
  }

  #partyOf(guest: Guest): Party {
    const known = this.#parties.get(guest.id);
    if (known !== undefined) {
      return known;
    }
    const nowMs = this.#options.nowMs();
    const party: Party = {
      guest,
      seeks: fullBucket(SEEK_RATE, nowMs),
      asked: fullBucket(SERVE_RATE, nowMs),
      serves: null,
      asking: null,
      serving: new Set(),
      failed: new Set(),
    };
    this.#parties.set(guest.id, party);
    return party;
  }

  #serve(party: Party, blob: Digest | null): void {
    if (party.serves !== null) {
      const { blob: before, place } = party.serves;
      const servers = this.#servers.get(before) as Party[];
      const last = servers.pop() as Party;
      if (last !== party && last.serves !== null) {
        servers[place] = last;
        last.serves.place = place;
      }
      if (servers.length === 0) {
        this.#servers.delete(before);
      }
      party.serves = null;
    }
    if (blob !== null && this.#options.checkpointBytes(blob) !== null) {
      const servers = this.#servers.get(blob) ?? [];
      this.#servers.set(blob, servers);
      party.serves = { blob, place: servers.length };
      servers.push(party);
    }
  }

  #seek(asking: Party, blob: Digest): void {
    const nowMs = this.#options.nowMs();
    this.#end(asking.asking);
    const allowed =
      this.#options.checkpointBytes(blob) !== null &&
      takeToken(asking.seeks, SEEK_RATE, nowMs) === 0 &&
      takeToken(this.#all, MEET_RATE, nowMs) === 0;
    const serving = allowed ? this.#draw(asking, blob, nowMs) : null;
    if (serving === null) {
      asking.guest.send({ type: "alone", blob });
      return;
    }
    const meeting = this.#nonce();
    const made: Meeting = { name: toHex(meeting), blob, asking, serving, stage: "introduced" };
    this.#meetings.set(made.name, made);
    asking.asking = made;
    serving.serving.add(made);
    serving.guest.send({ type: "meet", meeting, blob, peer: asking.guest.publicKey, asks: false });
    asking.guest.send({ type: "meet", meeting, blob, peer: serving.guest.publicKey, asks: true });
  }

  /** Somebody at random who serves the blob, and may be asked now. */
  #draw(asking: Party, blob: Digest, nowMs: number): Party | null {
    const servers = this.#servers.get(blob) ?? [];
    for (let draw = 0; draw < Math.min(DRAWS_MAX, 4 * servers.length); draw += 1) {
      const party = servers[this.#options.rng.below(servers.length)] as Party;
      const { contributor } = party.guest;
      const may = contributor !== asking.guest.contributor && !asking.failed.has(contributor);
      if (
        may &&
        (this.#faults.get(contributor)?.size ?? 0) < FAULTS_MAX &&
        takeToken(party.asked, SERVE_RATE, nowMs) === 0
      ) {
        return party;
      }
    }
    return null;
  }

  /** One offer from who asks, then one answer from who serves. */
  #carry(party: Party, message: Extract<Introducing, { readonly type: "signal" }>): void {
    const meeting = this.#meetings.get(toHex(message.meeting));
    if (meeting?.asking === party && meeting.stage === "introduced" && message.kind === "offer") {
      meeting.stage = "offered";
      meeting.serving.guest.send(message);
    } else if (meeting?.serving === party && meeting.stage === "offered" && message.kind === "answer") {
      meeting.stage = "answered";
      meeting.asking.guest.send(message);
    }
  }

  #conclude(party: Party, { meeting: name, outcome, bytes }: Extract<Introducing, { readonly type: "met" }>): void {
    const meeting = this.#meetings.get(toHex(name));
    if (meeting === undefined) {
      return;
    }
    const { asking, serving, blob } = meeting;
    const bytesMax = this.#options.checkpointBytes(blob) ?? 0;
    if (party === serving && outcome === "declined") {
      this.#end(meeting);
      asking.guest.send({ type: "alone", blob });
      this.#options.fact({ type: "met", outcome, bytes: 0 });
    } else if (party === asking && outcome !== "declined") {
      this.#end(meeting);
      this.#options.fact({ type: "met", outcome, bytes: Math.min(bytes, bytesMax) });
      if (outcome === "fetched") {
        this.#faults.delete(serving.guest.contributor);
      } else {
        asking.failed.add(serving.guest.contributor);
        dropOldest(asking.failed, FAILED_MAX);
        this.#fault(serving.guest.contributor, asking.guest.contributor);
      }
    }
  }

  #fault(of: ContributorId, failed: ContributorId): void {
    const faults = this.#faults.get(of) ?? new Set();
    faults.add(failed);
    dropOldest(faults, FAULTS_MAX);
    this.#faults.delete(of);
    this.#faults.set(of, faults);
    dropOldest(this.#faults, FAULTY_MAX);
  }

  #end(meeting: Meeting | null): void {
    if (meeting !== null) {
      this.#meetings.delete(meeting.name);
      meeting.asking.asking = null;
      meeting.serving.serving.delete(meeting);
    }
  }

  #nonce(): Bytes {
    const words = Uint32Array.from({ length: NONCE_BYTES / 4 }, () => this.#options.rng.uint32());
    return new Uint8Array(words.buffer);
  }
}
