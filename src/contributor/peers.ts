/**
 * Checkpoints from and to other contributors, where the person agreed to both (it shows them this device's address): asks the
 * relay for somebody who serves what is needed, and serves the base held, over a WebRTC link of their own. The relay introduces
 * and carries two signed descriptions, no more. An attempt is made once and has limits everywhere; whatever goes wrong, the
 * caller fetches from the relay at once what has not come. Nothing but the public base is ever served, and nothing while the person has paused.
 */
import { assert, HeddleError, messageIn } from "../base/assert.ts";
import { fullBucket, refill, type Bucket, type Rate } from "../base/bucket.ts";
import { equalBytes, floatBytes, toHex, type Bytes, type Digest } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { createDeferred, type Deferred } from "../base/deferred.ts";
import { dropOldest } from "../base/newest.ts";
import { createStop, type Stop, type StopSignal } from "../base/stop.ts";
import type { Attach, Begun, FetchBlob, FetchPieces } from "../net/link.ts";
import type { IceServer } from "../protocol/ice.ts";
import type { DeviceKey, VerifySignature } from "../protocol/keys.ts";
import { MEET_MS, PEER_OPEN_MS, UNCUT_BYTES_MAX } from "../protocol/limits.ts";
import type { ContributorMessage, PeerSignal, RelayMessage } from "../protocol/messages.ts";
import { peerProof, type Meeting } from "../protocol/peer.ts";
import type { OpenRtc } from "./lanes.ts";
import type { Held } from "./notebook.ts";
import { fetchOver, serveOver, type Fetching, type Serving } from "./transfer.ts";
import type { PeersView } from "./view.ts";

/** Others who are served at a time. */
export const SERVED_AT_ONCE_MAX = 2;
/** In any hour 1 GB at most, a tenth of it for what the link adds. Bytes of a device that works all the time; half the time, half. */
export const SERVED_RATE: Rate = { perS: 450e6 / 3_600, burst: 450e6 };
/** Introductions that wait for their offer. */
const EXPECTED_MAX = 4;

/** WebRTC links to other contributors: both ends send their addresses along. */
export interface PeerRtc {
  readonly dial: OpenRtc;
  /** The answer to an offer; `attach` is called if the link opens in time. */
  readonly answer: (options: {
    readonly offerSdp: string;
    readonly attach: Attach;
    readonly timeoutMs: number;
    readonly iceServers: readonly IceServer[];
  }) => Promise<string>;
}

export interface PeersOptions {
  readonly rtc: PeerRtc | undefined;
  readonly key: DeviceKey;
  readonly verify: VerifySignature;
  readonly hash: (bytes: Bytes) => Promise<Digest>;
  /** Absent: a checkpoint is checked when it has all come. */
  readonly fetchPieces?: FetchPieces | undefined;
  readonly clock: Clock;
  /** Number of the dial whose session is open; null while none is. */
  readonly session: () => number | null;
  /** The person wants this device to take part now. */
  readonly working: () => boolean;
  /** The version that is wanted now, where the relay has named one. */
  readonly head: () => Digest | null;
  readonly held: () => Held | null;
  readonly duty: () => number;
  readonly iceServers: () => readonly IceServer[];
  readonly send: (message: ContributorMessage) => void;
  /** What there is to show has changed. */
  readonly onChange: () => void;
}

type Meet = Extract<RelayMessage, { readonly type: "meet" }>;

/** An attempt to fetch. */
interface Attempt {
  readonly blob: Digest;
  readonly met: Deferred<Meet>;
  readonly answered: Deferred<PeerSignal>;
  meet: Meet | null;
  fetching: Fetching | null;
  /** It is over, or given up. */
  readonly over: Stop;
}

/** A class because links and timers must end. */
export class Peers {
  readonly #options: PeersOptions;
  readonly #tokens: Bucket;
  /** Of the tokens, those for what is still to be sent to those who are being served. */
  #reserved = 0;
  #on: boolean;
  /** What the relay was last told to be served, and in which session. */
  #told: { readonly session: number; readonly blob: Digest | null } | null = null;
  #attempt: Attempt | null = null;
  readonly #expected = new Map<string, Meet>();
  readonly #serving = new Set<Serving>();
  #served = 0;
  #fetched = 0;
  #sentence = "";

  constructor(options: PeersOptions, on: boolean) {
    this.#options = options;
    this.#tokens = fullBucket(SERVED_RATE, options.clock.nowMs());
    this.#on = on;
  }

  setOn(on: boolean): void {
    this.#on = on;
    this.#sentence = "";
    this.update();
  }

  view(): PeersView {
    const { rtc } = this.#options;
    return {
      able: rtc !== undefined,
      on: this.#on,
      bytesServed: this.#served,
      bytesFetched: this.#fetched,
      serving: this.#serving.size,
      sentence: this.#sentence,
    };
  }

  /** Looks at what has changed: tells the relay what is served now, and ends what may not go on. */
  update(): void {
    const { session, send, head } = this.#options;
    const working = this.#on && this.#options.working();
    if (!working) {
      this.#expected.clear();
      this.#serving.forEach((one) => one.cancel("It is paused"));
      this.#giveUp("the person does not want it any more");
    }
    if (this.#attempt !== null && this.#attempt.blob !== (head() ?? this.#attempt.blob)) {
      this.#giveUp("there is a newer version");
    }
    const now = session();
    const blob = this.#servable();
    const before = this.#told?.session === now ? this.#told.blob : null;
    if (now !== null && before !== blob) {
      this.#told = { session: now, blob };
      send({ type: "serve", blob });
    }
  }

  /** Fetches a checkpoint from another contributor, and what does not come from there as `fetchBlob` does. */
  before(fetchBlob: FetchBlob): FetchBlob {
    return async (blob, bytes, options = {}) => {
      const begun = (await this.fetch(blob, bytes, options.signal)) ?? options.begun ?? null;
      return begun?.filled === bytes ? begun.bytes : fetchBlob(blob, bytes, { ...options, begun });
    };
  }

  /** The blob, its digest checked where it is all there, or as much of it as came before the relay is to be asked. Never rejects. */
  async fetch(blob: Digest, bytes: number, signal?: StopSignal): Promise<Begun | null> {
    const { rtc, session, working, send } = this.#options;
    const wanted = this.#on && working() && signal?.aborted !== true;
    if (!wanted || rtc === undefined || session() === null || this.#attempt !== null) {
      return null;
    }
    const attempt: Attempt = {
      blob,
      met: createDeferred(),
      answered: createDeferred(),
      meet: null,
      fetching: null,
      over: createStop(),
    };
    this.#attempt = attempt;
    const forget = signal?.onAbort(() => this.#giveUp("it is not wanted any more"));
    try {
      const content = await this.#try(attempt, rtc, bytes);
      this.#fetched += content.length;
      this.#say("Fetched the shared base from another volunteer.");
      return { bytes: content, filled: content.length };
    } catch (error) {
      this.#say(`The shared base came from the relay: ${messageIn(error)}.`);
      const wrong = error instanceof HeddleError && error.code === "integrity";
      if (attempt.meet !== null) {
        send({ type: "met", meeting: attempt.meet.meeting, outcome: wrong ? "wrong" : "failed", bytes: 0 });
      }
      const begun = attempt.fetching?.begun() ?? null;
      this.#fetched += begun?.filled ?? 0;
      return begun?.filled === bytes ? null : begun; // as a whole it was wrong
    } finally {
      forget?.();
      attempt.over.abort();
      attempt.fetching?.cancel("it is over");
      this.#attempt = null;
    }
  }

  /** A message of the relay in an open session; those that are not about peers are passed over. */
  take(message: RelayMessage): void {
    const attempt = this.#attempt;
    if (message.type === "meet" && message.asks) {
      if (attempt?.blob === message.blob && attempt.meet === null) {
        attempt.meet = message;
        attempt.met.resolve(message);
      }
    } else if (message.type === "meet" && this.#servable() !== null) {
      this.#expected.set(toHex(message.meeting), message);
      dropOldest(this.#expected, EXPECTED_MAX);
    } else if (message.type === "alone" && attempt?.blob === message.blob) {
      const nobody = new HeddleError("unreachable", "no other volunteer could send it");
      attempt.met.reject(nobody);
      attempt.answered.reject(nobody);
    } else if (message.type === "signal" && message.kind === "answer") {
      if (attempt !== null && attempt.meet !== null && equalBytes(attempt.meet.meeting, message.meeting)) {
        attempt.answered.resolve(message);
      }
    } else if (message.type === "signal") {
      void this.#answer(message);
    }
  }

  async #try(attempt: Attempt, rtc: PeerRtc, bytes: number): Promise<Bytes> {
    const { key, verify, hash, clock, iceServers, send } = this.#options;
    const { blob } = attempt;
    const digests = await this.#digestsOf(blob, bytes, attempt.over);
    this.#insist(!attempt.over.aborted);
    send({ type: "seek", blob });
    const { meeting, peer } = await within(clock, MEET_MS, attempt.met.promise, "the relay introduced nobody in time");
    const both: Meeting = { meeting, blob, asking: key.publicKey, serving: peer };
    const exchange = async (offer: string): Promise<string> => {
      this.#insist(!attempt.over.aborted);
      const signature = await key.sign("peer-offer", peerProof(both, offer));
      this.#insist(!attempt.over.aborted);
      send({ type: "signal", meeting, kind: "offer", sdp: offer, signature });
      const answer = await attempt.answered.promise;
      if (!(await verify(peer, "peer-answer", peerProof(both, offer, answer.sdp), answer.signature))) {
        throw new HeddleError("unreachable", "the answer is not the one that the other volunteer signed");
      }
      this.#insist(!attempt.over.aborted);
      return answer.sdp;
    };
    const fetching = fetchOver({ blob, bytes, digests, hash, clock });
    attempt.fetching = fetching;
    const { attach } = fetching;
    const opening = rtc.dial({ exchange, attach, timeoutMs: PEER_OPEN_MS, iceServers: iceServers() });
    opening.catch((error: unknown) => fetching.cancel(messageIn(error)));
    await within(clock, PEER_OPEN_MS, Promise.race([opening, fetching.done]), "no link to it opened in time");
    const content = await fetching.done;
    if ((await hash(content)) !== blob) {
      throw new HeddleError("integrity", "another volunteer sent bytes with another digest");
    }
    send({ type: "met", meeting, outcome: "fetched", bytes });
    return content;
  }

  /** What the parts of a large checkpoint should be, or null where the relay does not say in time. */
  async #digestsOf(blob: Digest, bytes: number, signal: StopSignal): Promise<Bytes | null> {
    const { fetchPieces, clock } = this.#options;
    if (fetchPieces === undefined || bytes <= UNCUT_BYTES_MAX) {
      return null;
    }
    return within(clock, MEET_MS, fetchPieces(blob, bytes, signal), "the relay says nothing of pieces").catch(
      () => null,
    );
  }

  /** The digest of what may be asked for here, or null. */
  #servable(): Digest | null {
    const { rtc, working, held, clock, duty } = this.#options;
    const base = held();
    if (!this.#on || rtc === undefined || !working() || base === null) {
      return null;
    }
    refill(this.#tokens, SERVED_RATE, clock.nowMs());
    return base.params.byteLength / duty() <= this.#tokens.tokens - this.#reserved ? base.digest : null;
  }

  async #answer({ meeting, sdp: offer, signature }: PeerSignal): Promise<void> {
    const { rtc, key, verify, iceServers, held, send } = this.#options;
    const name = toHex(meeting);
    const meet = this.#expected.get(name);
    this.#expected.delete(name);
    if (meet === undefined) {
      if (this.#told !== null) {
        this.#decline(meeting); // the person has paused since, or too many wait
      }
      return; // else it never served anything
    }
    const { blob, peer } = meet;
    const base = held();
    if (this.#servable() !== blob || base?.digest !== blob || this.#serving.size >= SERVED_AT_ONCE_MAX) {
      this.#decline(meeting);
      return;
    }
    assert(rtc !== undefined, "Cannot answer: this program has no WebRTC");
    const serving = this.#serve(base);
    try {
      const both: Meeting = { meeting, blob, asking: peer, serving: key.publicKey };
      if (!(await verify(peer, "peer-offer", peerProof(both, offer), signature))) {
        throw new HeddleError("integrity", "the offer is not the one that the other volunteer signed");
      }
      this.#insist(this.#serving.has(serving));
      const { attach } = serving;
      const answer = await rtc.answer({ offerSdp: offer, attach, timeoutMs: PEER_OPEN_MS, iceServers: iceServers() });
      this.#insist(this.#serving.has(serving));
      const signed = await key.sign("peer-answer", peerProof(both, offer, answer));
      this.#insist(this.#serving.has(serving));
      send({ type: "signal", meeting, kind: "answer", sdp: answer, signature: signed });
    } catch (error) {
      serving.cancel("It cannot be served");
      this.#decline(meeting);
      this.#say(`Another volunteer could not be served: ${messageIn(error)}.`);
    }
  }

  #decline(meeting: Bytes): void {
    this.#options.send({ type: "met", meeting, outcome: "declined", bytes: 0 });
  }

  /** Takes a place, and reserves the bytes' share of the hour until they are sent or it is over. */
  #serve({ digest, params }: Held): Serving {
    const content = floatBytes(params);
    const { clock, duty } = this.#options;
    const price = 1 / duty();
    this.#reserved += content.length * price;
    let sent = 0;
    const serving = serveOver({
      blob: digest,
      content,
      clock,
      onSent: (bytes) => {
        sent += bytes;
        refill(this.#tokens, SERVED_RATE, clock.nowMs());
        this.#tokens.tokens -= bytes * price;
        this.#reserved -= bytes * price;
        this.#served += bytes;
        this.#options.onChange();
      },
      onEnd: () => {
        this.#reserved -= (content.length - sent) * price;
        this.#serving.delete(serving);
        this.#options.onChange();
      },
    });
    this.#serving.add(serving);
    return serving;
  }

  #giveUp(reason: string): void {
    const attempt = this.#attempt;
    if (attempt !== null) {
      const error = new HeddleError("unreachable", reason);
      attempt.over.abort();
      attempt.met.reject(error);
      attempt.answered.reject(error);
      attempt.fetching?.cancel(reason);
    }
  }

  /** Before an address goes out: throws HeddleError "unreachable" where it is over, or the person does not want it any more. */
  #insist(current: boolean): void {
    if (!current || !this.#on || !this.#options.working()) {
      throw new HeddleError("unreachable", "it was given up meanwhile");
    }
  }

  #say(sentence: string): void {
    this.#sentence = sentence;
    this.#options.onChange();
  }
}

/** What `promise` resolves to, or an error with `sentence` after `ms`. */
function within<T>(clock: Clock, ms: number, promise: Promise<T>, sentence: string): Promise<T> {
  const { promise: late, reject } = createDeferred<never>();
  const cancel = clock.after(ms, () => reject(new HeddleError("unreachable", sentence)));
  return Promise.race([promise, late]).finally(cancel);
}
