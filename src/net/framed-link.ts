/**
 * A Link over any lane that carries frames in order: WebSocket or data channel. It cuts messages into frames (`frames.ts`), keeps
 * at most WINDOW_BYTES of them unacknowledged, so that small messages overtake large ones and neither end buffers without
 * bound, and puts arriving frames together. The acknowledgements come from the other end's program, not from its socket: no
 * lane's own buffer has to be watched, and an end that stops reading is noticed.
 *
 * The window is also the speed limit, one window a round trip: 1 MiB is 10 MiB/s at 100 ms, more than a home uplink. Where the
 * acknowledgements come slower than that it is what they come to in WAIT_MS, so that a small message waits about as long
 * behind it, and not for four seconds at 2 Mbit/s.
 */
import { messageIn } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { FRAME_BYTES_MAX, MESSAGE_BYTES_MAX } from "../protocol/limits.ts";
import { ackFrame, closeFrame, createAssembler, dataFrame, readFrame, type Assembler } from "./frames.ts";
import {
  checkMessageBytes,
  LOW_WATER_BYTES,
  PROGRESS_MS,
  SMALL_BYTES_MAX,
  type Attach,
  type Lane,
  type Link,
  type LinkHandlers,
} from "./link.ts";

/** Unacknowledged bytes at which the pieces of large messages wait, at most and at least. */
export const WINDOW_BYTES = 1_048_576;
export const WINDOW_BYTES_MIN = 262_144;
/** What large messages may have on their way, in milliseconds of the lane's speed. */
export const WAIT_MS = 1_000;
/** The lane's speed is measured over at least so long. */
const SAMPLE_MS = 20;
/** Unacknowledged bytes at which small messages wait, too. */
export const SMALL_WINDOW_BYTES = 2 * WINDOW_BYTES;
/**
 * Taken bytes after which a receiver acknowledges; less than the low-water mark, so that `drained` needs no timer. Where they take longer than
 * PROGRESS_MS, each frame of a large message is acknowledged: its sender sees that it gets on.
 */
export const ACK_BYTES = 131_072;
/** Messages waiting to be sent, beyond one of the largest kind, before the link gives up. */
export const QUEUE_BYTES_MAX = 64 * 1_048_576;
/** The same for their number: a small message takes far more memory than it has bytes. */
export const QUEUE_MESSAGES_MAX = 4_096;

/** The lane below: a socket or channel that is open. */
export interface FrameChannel {
  readonly lane: Lane;
  /** `send` has copied the frame when it returns, so that one memory does for all frames: to take some for each costs more than to send it. */
  readonly copies?: boolean;
  /** Queues one frame; throws when the channel is broken. */
  send(frame: Bytes): void;
  /**
   * Ends the channel: "sent" when the last word is ours and must still get through, "now" when the other end has closed or
   * the channel broke. "now" may follow "sent".
   */
  close(after: "sent" | "now"): void;
}

export interface FramedEnd {
  readonly link: Link;
  /** The channel received a frame. Never throws for what is in it: a frame that cannot be read ends the link. */
  receive(frame: Uint8Array): void;
  /** The channel ended. */
  ended(reason: string): void;
  /** Lets the other end hear of this one, though there is nothing to say. */
  stir(): void;
}

export interface FramedLinkOptions {
  readonly channel: FrameChannel;
  readonly attach: Attach;
  /** Largest message, either way. */
  readonly messageBytesMax?: number;
  readonly nowMs?: () => number;
}

/** Makes the link of an open channel and attaches its handlers. */
export function createFramedLink({
  channel,
  attach,
  messageBytesMax = MESSAGE_BYTES_MAX,
  nowMs = () => performance.now(),
}: FramedLinkOptions): FramedEnd {
  const link = new FramedLink(channel, messageBytesMax, nowMs);
  link.attach(attach);
  return {
    link,
    receive: (frame) => link.receive(frame),
    ended: (reason) => link.end(reason),
    stir: () => link.acknowledge(),
  };
}

class FramedLink implements Link {
  readonly lane: Lane;
  bytesSent = 0;
  bytesReceived = 0;
  readonly #channel: FrameChannel;
  readonly #messageBytesMax: number;
  readonly #assembler: Assembler;
  #handlers: LinkHandlers | undefined;
  #closedReason: string | undefined;
  #small: Bytes[] = [];
  #large: Bytes[] = [];
  #largeOffset = 0;
  #largeTransfer = 0;
  #transfers = 0;
  #queuedBytes = 0;
  #unackedBytes = 0;
  #windowBytes = WINDOW_BYTES_MIN;
  /** Bytes acknowledged since `#sampleMs`, all of that time with more on the way. */
  #sampleBytes = 0;
  #sampleMs: number | undefined;
  #takenBytes = 0;
  /** When the last acknowledgement was sent, and when the handlers last heard of progress either way. */
  #acknowledgedMs = Number.NEGATIVE_INFINITY;
  #takenMs = Number.NEGATIVE_INFINITY;
  #arrivingMs = Number.NEGATIVE_INFINITY;
  #drainWaiters: (() => void)[] = [];
  /** Where large messages' frames are made, one after the other. */
  #memory: Bytes | undefined;

  readonly #nowMs: () => number;

  constructor(channel: FrameChannel, messageBytesMax: number, nowMs: () => number) {
    this.#nowMs = nowMs;
    this.lane = channel.lane;
    this.#channel = channel;
    this.#messageBytesMax = messageBytesMax;
    this.#assembler = createAssembler({ messageBytesMax });
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
    (bytes.length <= SMALL_BYTES_MAX ? this.#small : this.#large).push(bytes);
    this.#queuedBytes += bytes.length;
    this.#pump();
    const messages = this.#small.length + this.#large.length;
    if (this.#queuedBytes > QUEUE_BYTES_MAX + this.#messageBytesMax || messages > QUEUE_MESSAGES_MAX) {
      this.close("The other end does not take what is sent to it");
    }
  }

  drained(): Promise<void> {
    if (this.#isDrained() || this.#closedReason !== undefined) {
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
    for (const message of this.#small.splice(0)) {
      this.#sendFrame(dataFrame(this.#nextTransfer(), message, 0));
    }
    this.#sendFrame(closeFrame(reason));
    this.end(reason, "sent");
  }

  /** Ends this end: the channel is closed, the handlers are told once, waiting messages are dropped. */
  end(reason: string, after: "sent" | "now" = "now"): void {
    if (this.#closedReason !== undefined) {
      return;
    }
    this.#closedReason = reason;
    this.#small = [];
    this.#large = [];
    this.#wakeDrained();
    this.#channel.close(after);
    this.#handlers?.closed(reason);
  }

  receive(bytes: Uint8Array): void {
    if (this.#closedReason !== undefined) {
      if (readFrame(bytes).type === "close") {
        this.#channel.close("now"); // both ends closed at once
      }
      return;
    }
    this.bytesReceived += bytes.length;
    const frame = readFrame(bytes);
    switch (frame.type) {
      case "data": {
        const isPart = frame.total > frame.payload.length;
        this.#takenBytes += bytes.length;
        if (this.#takenBytes >= ACK_BYTES || (isPart && this.#isDue(this.#acknowledgedMs))) {
          this.acknowledge();
        }
        const assembled = this.#assembler.push(frame);
        if (assembled.type === "message") {
          this.#handlers?.message(assembled.bytes);
        } else if (assembled.type === "malformed") {
          this.close(assembled.sentence);
        } else if (this.#isDue(this.#arrivingMs)) {
          this.#arrivingMs = this.#nowMs();
          this.#handlers?.arriving?.();
        }
        return;
      }
      case "ack":
        if (frame.bytes > this.#unackedBytes) {
          this.close(`Cannot take an acknowledgement: got ${frame.bytes} bytes, sent ${this.#unackedBytes}`);
          return;
        }
        if (frame.bytes > 0) {
          this.#unackedBytes -= frame.bytes;
          this.#fitWindow(frame.bytes);
          this.#tellTaken();
        }
        this.#pump();
        if (this.#isDrained()) {
          this.#wakeDrained();
        }
        return;
      case "close":
        this.end(frame.reason);
        return;
      case "malformed":
        this.close(frame.sentence);
        return;
      default:
        frame satisfies never;
    }
  }

  /** Sends what the windows allow: small messages first, then pieces of the first large one. */
  #pump(): void {
    while (this.#closedReason === undefined && this.#unackedBytes < SMALL_WINDOW_BYTES) {
      const message = this.#small.shift();
      if (message === undefined) {
        break;
      }
      this.#queuedBytes -= message.length;
      this.#sendData(dataFrame(this.#nextTransfer(), message, 0));
    }
    while (this.#closedReason === undefined && this.#unackedBytes < this.#windowBytes) {
      const message = this.#large[0];
      if (message === undefined) {
        break;
      }
      this.#sendPiece(message);
    }
  }

  /** Takes the lane's speed from the acknowledgements of a lane that was busy since the one before. */
  #fitWindow(bytes: number): void {
    const nowMs = this.#nowMs();
    const tookMs = nowMs - (this.#sampleMs ?? nowMs);
    this.#sampleBytes += this.#sampleMs === undefined ? 0 : bytes;
    if (tookMs >= SAMPLE_MS) {
      const window = (this.#sampleBytes * WAIT_MS) / tookMs;
      this.#windowBytes = Math.min(WINDOW_BYTES, Math.max(WINDOW_BYTES_MIN, window));
    }
    if (this.#unackedBytes < ACK_BYTES) {
      this.#sampleMs = undefined; // nothing tells how long it was idle before the next one
    } else if (tookMs >= SAMPLE_MS || this.#sampleMs === undefined) {
      this.#sampleMs = nowMs;
      this.#sampleBytes = 0;
    }
  }

  #sendPiece(message: Bytes): void {
    if (this.#largeOffset === 0) {
      this.#largeTransfer = this.#nextTransfer();
    }
    const offset = this.#largeOffset;
    this.#largeOffset = Math.min(message.length, offset + SMALL_BYTES_MAX);
    this.#queuedBytes -= this.#largeOffset - offset;
    if (this.#largeOffset === message.length) {
      this.#large.shift();
      this.#largeOffset = 0;
    }
    if (this.#channel.copies) {
      this.#memory ??= new Uint8Array(FRAME_BYTES_MAX);
    }
    this.#sendData(dataFrame(this.#largeTransfer, message, offset, this.#memory));
  }

  #sendData(frame: Bytes): void {
    this.#unackedBytes += frame.length;
    this.#sendFrame(frame);
  }

  #sendFrame(frame: Bytes): void {
    if (this.#closedReason !== undefined) {
      return;
    }
    try {
      this.#channel.send(frame);
      this.bytesSent += frame.length;
    } catch (error) {
      this.end(`The connection broke: ${messageIn(error)}`);
    }
  }

  /** Tells the other end what was taken since the last time, which may be nothing. */
  acknowledge(): void {
    this.#sendFrame(ackFrame(this.#takenBytes));
    this.#takenBytes = 0;
    this.#acknowledgedMs = this.#nowMs();
  }

  #tellTaken(): void {
    if (this.#isDue(this.#takenMs)) {
      this.#takenMs = this.#nowMs();
      this.#handlers?.taken?.();
    }
  }

  #isDue(lastMs: number): boolean {
    return this.#nowMs() - lastMs >= PROGRESS_MS;
  }

  #nextTransfer(): number {
    this.#transfers = (this.#transfers + 1) >>> 0;
    return this.#transfers;
  }

  #isDrained(): boolean {
    return this.#queuedBytes + this.#unackedBytes < LOW_WATER_BYTES;
  }

  #wakeDrained(): void {
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const wake of waiters) {
      wake();
    }
  }
}
