/**
 * A link whose two ends are in one process: for tests and the simulation, which injects `schedule` to give each direction
 * its delay and bandwidth on a virtual clock. Messages cross whole, without frames; order and overtaking are those that
 * `link.ts` promises. No ambient API is used, so that the pure simulation can import it.
 */
import type { Bytes } from "../base/bytes.ts";
import { MESSAGE_BYTES_MAX } from "../protocol/limits.ts";
import {
  checkMessageBytes,
  LOW_WATER_BYTES,
  SMALL_BYTES_MAX,
  type Attach,
  type Link,
  type LinkHandlers,
} from "./link.ts";

/** Something that travels: a message of `bytes`, or the news that the other end closed (0 bytes). */
export interface Passage {
  readonly from: "a" | "b";
  readonly bytes: number;
  readonly message: Bytes | null;
}

/**
 * Calls `arrive` once, later or at once, or never (what was not delivered is lost with the link). Every call of `arrive` delivers
 * the next passage of that direction, so calling out of order cannot reorder messages.
 */
export type Schedule = (passage: Passage, arrive: () => void) => void;

export interface MemoryPairOptions {
  readonly attachA: Attach;
  readonly attachB: Attach;
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
  /** Default: the next microtask. */
  readonly schedule?: Schedule;
}

export interface MemoryPair {
  readonly a: Link;
  readonly b: Link;
  /** Breaks the link at both ends at once, as a pulled cable does; what is on the way is lost. */
  cut(reason: string): void;
}

/** Makes both ends and attaches first A, then B. Messages sent while attaching are delivered after both are attached. */
export function createMemoryPair({
  attachA,
  attachB,
  messageBytesMax = MESSAGE_BYTES_MAX,
  schedule = nextMicrotask,
}: MemoryPairOptions): MemoryPair {
  const postponed: (() => void)[] = [];
  let attached = false;
  const start: Schedule = (passage, arrive) => {
    if (attached) {
      schedule(passage, arrive);
    } else {
      postponed.push(() => schedule(passage, arrive));
    }
  };
  const a = new MemoryEnd("a", messageBytesMax, start);
  const b = new MemoryEnd("b", messageBytesMax, start);
  a.peer = b;
  b.peer = a;
  a.attach(attachA);
  b.attach(attachB);
  attached = true;
  for (const begin of postponed) {
    begin();
  }
  return {
    a,
    b,
    cut: (reason) => {
      a.end(reason);
      b.end(reason);
    },
  };
}

function nextMicrotask(_passage: Passage, arrive: () => void): void {
  void Promise.resolve().then(arrive);
}

class MemoryEnd implements Link {
  readonly lane = "memory";
  bytesSent = 0;
  bytesReceived = 0;
  peer: MemoryEnd | undefined;
  readonly #name: "a" | "b";
  readonly #messageBytesMax: number;
  readonly #schedule: Schedule;
  #handlers: LinkHandlers | undefined;
  #closedReason: string | undefined;
  /** On the way to the peer: small messages, larger ones, and the last word. */
  readonly #small: Bytes[] = [];
  readonly #large: Bytes[] = [];
  #goodbye: string | undefined;
  #waitingBytes = 0;
  #drainWaiters: (() => void)[] = [];

  constructor(name: "a" | "b", messageBytesMax: number, schedule: Schedule) {
    this.#name = name;
    this.#messageBytesMax = messageBytesMax;
    this.#schedule = schedule;
  }

  attach(attach: Attach): void {
    this.#handlers = attach(this);
    if (this.#closedReason !== undefined) {
      this.#handlers.closed(this.#closedReason);
    }
  }

  send(bytes: Bytes): void {
    checkMessageBytes(bytes.length, this.#messageBytesMax);
    if (this.#closedReason !== undefined) {
      return;
    }
    (bytes.length <= SMALL_BYTES_MAX ? this.#small : this.#large).push(new Uint8Array(bytes));
    this.bytesSent += bytes.length;
    this.#waitingBytes += bytes.length;
    this.#schedule({ from: this.#name, bytes: bytes.length, message: bytes }, () => this.#arrive());
  }

  drained(): Promise<void> {
    if (this.#waitingBytes < LOW_WATER_BYTES || this.#closedReason !== undefined) {
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#drainWaiters.push(resolve);
    });
  }

  close(reason: string): void {
    if (this.#closedReason !== undefined) {
      return;
    }
    const lastWords = this.#small.splice(0);
    this.end(reason);
    this.#small.push(...lastWords);
    this.#goodbye = reason;
    this.#schedule({ from: this.#name, bytes: 0, message: null }, () => this.#arrive());
  }

  /** Ends this end only; what it had on the way is dropped. */
  end(reason: string): void {
    if (this.#closedReason !== undefined) {
      return;
    }
    this.#closedReason = reason;
    this.#small.length = 0;
    this.#large.length = 0;
    this.#waitingBytes = 0;
    this.#wakeDrained();
    this.#handlers?.closed(reason);
  }

  #arrive(): void {
    const bytes = this.#small.shift() ?? this.#large.shift();
    if (bytes === undefined) {
      if (this.#goodbye !== undefined) {
        this.peer?.end(this.#goodbye);
      }
      return;
    }
    if (this.#closedReason !== undefined) {
      this.peer?.receive(bytes);
      return;
    }
    this.#waitingBytes -= bytes.length;
    this.peer?.receive(bytes);
    if (this.#waitingBytes < LOW_WATER_BYTES) {
      this.#wakeDrained();
    }
  }

  receive(bytes: Bytes): void {
    if (this.#closedReason === undefined) {
      this.bytesReceived += bytes.length;
      this.#handlers?.message(bytes);
    }
  }

  #wakeDrained(): void {
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const wake of waiters) {
      wake();
    }
  }
}
