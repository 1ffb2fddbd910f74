/**
 * Messages between the relays of one run, beside the `Store` that they share: small, fast, and kept by nobody. What must not be
 * lost is in the store; here a message reaches whoever subscribes at that moment, or nobody. One sender's messages arrive in
 * order. What can have been lost on the way is told (`onInterrupt`), and whoever needs more counts its messages, as
 * `net/bus-link.ts` does. Memory (tests) and NATS keep one contract (`bus-contract.ts`).
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";

/** Bytes published and not yet taken by the bus, beyond which it calls itself interrupted. */
export const BUS_QUEUE_BYTES_MAX = 64 * 1_048_576;
/** Words of lower-case letters, digits and hyphens, joined by dots. */
const SUBJECT = /^[a-z0-9-]+(\.[a-z0-9-]+)*$/;
const SUBJECT_CHARS_MAX = 200;

export interface Bus {
  /** Of one message. */
  readonly payloadBytesMax: number;
  /**
   * Sends `payload`, which is not changed any more, to all who subscribe to `subject`. Throws HeddleError "limit" for a larger
   * one than `payloadBytesMax`, "unreachable" while the bus is away, closed, or holds BUS_QUEUE_BYTES_MAX that it could not send.
   */
  publish(subject: string, payload: Bytes): void;
  /** What is published from when this resolves on is given to `take`, until the returned function is called. */
  subscribe(subject: string, take: (payload: Bytes) => void): Promise<() => void>;
  /**
   * The reply of one who answers `subject`. Rejects with HeddleError "unreachable" when nobody does, or not within `timeoutMs`.
   */
  request(subject: string, payload: Bytes, timeoutMs: number): Promise<Bytes>;
  /** Answers requests, until the returned function is called; one whose reply fails gets none. */
  answer(subject: string, reply: (payload: Bytes) => Promise<Bytes>): Promise<() => void>;
  /** Calls `tell` with a sentence whenever messages of this end, either way, may have been lost; the returned function ends that. */
  onInterrupt(tell: (reason: string) => void): () => void;
  close(): Promise<void>;
}

/** Publishes what nobody misses while the bus is away: then nothing is said. Throws HeddleError "limit" as `publish` does. */
export function publishIfThere(bus: Bus, subject: string, payload: Bytes): void {
  try {
    bus.publish(subject, payload);
  } catch (error) {
    if (!(error instanceof HeddleError && error.code === "unreachable")) {
      throw error;
    }
  }
}

/** Throws HeddleError "bad-input" for a subject that could mean several, "limit" for a message that is too large. */
export function checkBusMessage(subject: string, payload: Uint8Array, bytesMax: number): void {
  if (subject.length > SUBJECT_CHARS_MAX || !SUBJECT.test(subject)) {
    throw new HeddleError("bad-input", `Cannot use the subject "${subject.slice(0, SUBJECT_CHARS_MAX)}" of a bus`);
  }
  if (payload.length > bytesMax) {
    throw new HeddleError("limit", `Cannot publish: got ${payload.length} bytes, this bus carries at most ${bytesMax}`);
  }
}
