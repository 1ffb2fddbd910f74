/**
 * One Link interface over every lane. A Link carries whole messages (byte strings up to a limit) in order and reliably
 * between two ends while it is open; cutting a message into frames of at most FRAME_BYTES_MAX and putting it together again
 * is done below it (`frames.ts`), so that a large update does not hold up small control messages. One contract suite runs on
 * all lanes (`contract.ts`).
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import type { StopSignal } from "../base/stop.ts";
import { FRAME_BYTES_MAX } from "../protocol/limits.ts";

/** Bytes in front of every frame; see `frames.ts`. */
export const FRAME_HEADER_BYTES = 16;
/** A message of up to this many bytes fits one frame and overtakes larger ones. */
export const SMALL_BYTES_MAX = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
/**
 * Waiting and unacknowledged bytes below which `drained` resolves: most of a window (`framed-link.ts`), or who sends one piece of a large
 * thing after the other would leave a long line empty in between.
 */
export const LOW_WATER_BYTES = 786_432;
/** How often a link says that a large message gets on, at most. */
export const PROGRESS_MS = 1_000;

export type Lane = "memory" | "ws" | "rtc";

export interface LinkHandlers {
  /** A whole message arrived. */
  message(bytes: Bytes): void;
  /**
   * More of what was sent has been taken, and more of a message that is not whole yet has arrived: signs of life on a slow line, said once in
   * PROGRESS_MS at the most, and only where messages are cut into frames.
   */
  taken?(): void;
  arriving?(): void;
  /**
   * The link ended; nothing arrives after this. Called once on each end: on the end that closes before its `close` returns,
   * on the other when it learns of it. `reason` is one sentence, the same on both ends where the lane could still carry it.
   */
  closed(reason: string): void;
}

export interface Link {
  readonly lane: Lane;
  /**
   * Queues a message. Messages of up to one frame overtake larger ones that are still being sent; messages of the same
   * class keep their order. Throws HeddleError "limit" when it is larger than the link's limit; on a closed link the
   * message is dropped and `closed` has been or will be called. The link keeps the bytes until they are sent: the caller
   * must not change them.
   */
  send(bytes: Bytes): void;
  /** Resolves when fewer than LOW_WATER_BYTES wait to be sent, or the link is closed. */
  drained(): Promise<void>;
  /** Bytes handed to the lane and taken from it, frame headers included where there are any. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Ends the link. Messages of up to one frame that were sent before still arrive; larger ones on the way are dropped. */
  close(reason: string): void;
}

/** How an end is attached: handlers are given once, when the link is made, so that no message can be missed. */
export type Attach = (link: Link) => LinkHandlers;

/** Fetches a blob by digest (HTTP range requests, memory in tests): checks its size against `bytesMax` and its SHA-256. */
export type FetchBlob = (digest: Digest, bytesMax: number, options?: FetchBlobOptions) => Promise<Bytes>;

export interface FetchBlobOptions {
  /** What it may go on with; its memory is the fetch's from then on. */
  readonly begun?: Begun | null;
  /** Ends it, with HeddleError "unreachable", when it is aborted. */
  readonly signal?: StopSignal;
}

/** A blob of which the first `filled` bytes are there, as another source sent them. */
export interface Begun {
  readonly bytes: Bytes;
  readonly filled: number;
}

/** What the relay says the SHA-256 of each piece of a blob of `bytes` bytes is; null where it does not say, or `signal` is aborted first. Nothing vouches for it. */
export type FetchPieces = (digest: Digest, bytes: number, signal?: StopSignal) => Promise<Bytes | null>;

/** Throws HeddleError "limit" when a message is larger than its link carries. */
export function checkMessageBytes(bytes: number, bytesMax: number): void {
  if (bytes > bytesMax) {
    throw new HeddleError("limit", `Cannot send a message: got ${bytes} bytes, this link carries at most ${bytesMax}`);
  }
}
