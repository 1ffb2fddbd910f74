/**
 * One Link interface over every lane. A Link carries whole messages (byte strings up to a limit) in order and reliably
 * between two ends while it is open; cutting a message into frames of at most FRAME_BYTES_MAX and putting it together again
 * is done below it (`frames.ts`), so that a large update does not hold up small control messages. One contract suite runs on
 * all lanes (`contract.ts`).
 */
import type { Bytes, Digest } from "../base/bytes.ts";

export type Lane = "memory" | "ws" | "rtc";

export interface LinkHandlers {
  /** A whole message arrived. */
  message(bytes: Bytes): void;
  /** The link ended; nothing arrives after this. `reason` is one sentence. */
  closed(reason: string): void;
}

export interface Link {
  readonly lane: Lane;
  /**
   * Queues a message. Messages of up to one frame overtake larger ones that are still being sent; messages of the same
   * class keep their order. Throws HeddleError "limit" when it is larger than the link's limit; on a closed link the
   * message is dropped and `closed` has been or will be called.
   */
  send(bytes: Bytes): void;
  /** Resolves when fewer than the low-water mark of bytes wait to be sent, or the link is closed. */
  drained(): Promise<void>;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  close(reason: string): void;
}

/** How an end is attached: handlers are given once, when the link is made, so that no message can be missed. */
export type Attach = (link: Link) => LinkHandlers;

/** Fetches a blob by digest (HTTP range requests, memory in tests): checks its size against `bytesMax` and its SHA-256. */
export type FetchBlob = (digest: Digest, bytesMax: number) => Promise<Bytes>;
