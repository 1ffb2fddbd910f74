/**
 * A log in a JetStream stream: a message an append, all its entries framed in it, stored only where it is expected in the
 * stream. Headers say the positions it holds; sequence numbers have no gaps, so a position is found by bisection.
 */
import { nuid } from "@nats-io/transport-node";
import { HeddleError } from "../base/assert.ts";
import { concatBytes, type Bytes } from "../base/bytes.ts";
import type { JetStream, Message, Stored } from "./jetstream.ts";
import { PIECES_HEADER, type Bodies } from "./nats-body.ts";
import { inWindow } from "./pieces.ts";
import { BLOB_STORED_BYTES_MAX, checkPosition, checkValue, type Log } from "./store.ts";

/** All entries of one append. */
export const APPEND_BYTES_MAX = BLOB_STORED_BYTES_MAX;
/** How often an append is asked for again that was refused though nothing was added. */
const RACES_MAX = 1_000;
const LENGTH_BYTES = 4;

const POSITION_HEADER = "Heddle-Position";
const ENTRIES_HEADER = "Heddle-Entries";

/** What one append wrote: the entries from `position` on. */
interface Batch {
  readonly sequence: number;
  readonly position: number;
  readonly entries: number;
}

const NO_BATCH: Batch = { sequence: 0, position: 0, entries: 0 };

export class NatsLog implements Log {
  readonly #stream: string;
  readonly #subject: string;
  readonly #jetStream: JetStream;
  readonly #bodies: Bodies;
  /** The last batch that we know of; others may have written more. */
  #tail: Batch = NO_BATCH;
  /** The batch read last: whoever reads on finds its place without a search. */
  #cursor: Batch = NO_BATCH;

  constructor(name: string, jetStream: JetStream, bodies: Bodies) {
    this.#stream = `${name}-log`;
    this.#subject = `${name}.log`;
    this.#jetStream = jetStream;
    this.#bodies = bodies;
  }

  length(): Promise<number> {
    return this.#jetStream.gate.run("read the log", async () => endOf(await this.#readTail("read the log")));
  }

  append(after: number, entries: readonly Bytes[]): Promise<boolean> {
    const action = "append to the log";
    return this.#jetStream.gate.run(action, async () => {
      checkPosition(after, action);
      entries.forEach(checkValue);
      const frame = frameOf(entries);
      if (endOf(this.#tail) !== after && endOf(await this.#readTail(action)) !== after) {
        return false;
      }
      if (entries.length === 0) {
        return endOf(await this.#readTail(action)) === after;
      }
      const message = await this.#bodies.write(action, this.#subject, frame);
      const stored = await this.#store(action, after, entries.length, message);
      if (!stored) {
        await this.#bodies.drop(action, message.headers[PIECES_HEADER]);
      }
      return stored;
    });
  }

  /** Stores a batch behind the tail, which ends at `position`; resolves to whether it did. */
  async #store(action: string, position: number, entries: number, message: Required<Message>): Promise<boolean> {
    const id = nuid.next();
    const headers = { ...message.headers, [POSITION_HEADER]: String(position), [ENTRIES_HEADER]: String(entries) };
    for (let race = 0; race < RACES_MAX; race += 1) {
      const { sequence: last } = this.#tail;
      const expected = { stream: this.#stream, sequence: last };
      const sequence = await this.#jetStream.write(action, { ...message, headers }, expected, id);
      if (sequence !== undefined) {
        this.#tail = { sequence, position, entries };
        return true;
      }
      await this.#readTail(action);
      if (endOf(this.#tail) !== position) {
        return false;
      }
    }
    throw new HeddleError("store", `Cannot ${action}: NATS refused it ${RACES_MAX} times though nothing was added`);
  }

  async #readTail(action: string): Promise<Batch> {
    const stored = await this.#jetStream.last(action, this.#stream, this.#subject);
    const tail = stored === undefined ? NO_BATCH : batchOf(stored);
    if (tail.sequence > this.#tail.sequence) {
      this.#tail = tail;
    }
    return this.#tail;
  }

  read(from: number, count: number): Promise<Bytes[]> {
    const action = "read the log";
    return this.#jetStream.gate.run(action, async () => {
      checkPosition(from, action);
      checkPosition(count, action);
      const tail = await this.#readTail(action);
      const end = Math.min(from + count, endOf(tail));
      const read: Bytes[] = [];
      if (from >= end) {
        return read;
      }
      let next = await this.#find(action, from, tail);
      while (from + read.length < end) {
        const most = Math.min(end - from - read.length, tail.sequence - next + 1, MESSAGES_AT_A_TIME);
        const batches: Bytes[][] = [];
        await inWindow(most, async (i) => {
          batches[i] = await this.#readBatch(action, next + i, from, end);
        });
        next += most;
        read.push(...batches.flat());
      }
      return read;
    });
  }

  /** Those entries of the batch with this sequence number that are within `from` … `end`. */
  async #readBatch(action: string, sequence: number, from: number, end: number): Promise<Bytes[]> {
    const stored = await this.#message(action, sequence);
    const batch = batchOf(stored);
    const frame = await this.#bodies.read(action, stored);
    if (frame === undefined) {
      throw damaged(sequence, "its pieces are missing");
    }
    if (batch.sequence > this.#cursor.sequence || endOf(this.#cursor) > end) {
      this.#cursor = batch;
    }
    return entriesOf(frame, batch).slice(Math.max(0, from - batch.position), Math.max(0, end - batch.position));
  }

  /** The sequence number of the batch that holds `position`, which is before the end of `tail`. */
  async #find(action: string, position: number, tail: Batch): Promise<number> {
    for (const known of [this.#cursor, tail]) {
      if (known.position <= position && position < endOf(known)) {
        return known.sequence;
      }
    }
    if (position === endOf(this.#cursor)) {
      return this.#cursor.sequence + 1;
    }
    let [low, high] = [1, tail.sequence];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (batchOf(await this.#message(action, middle)).position <= position) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  async #message(action: string, sequence: number): Promise<Stored> {
    const stored = await this.#jetStream.fixed(action, this.#stream, { seq: sequence });
    if (stored === undefined) {
      throw damaged(sequence, "it is missing");
    }
    return stored;
  }
}

const MESSAGES_AT_A_TIME = 32;

function endOf({ position, entries }: Batch): number {
  return position + entries;
}

/** Entries as one run of bytes: their lengths, 4 bytes each, little-endian, and then their bytes. */
function frameOf(entries: readonly Bytes[]): Bytes {
  const bytes = entries.reduce((sum, entry) => sum + LENGTH_BYTES + entry.length, 0);
  if (bytes > APPEND_BYTES_MAX) {
    throw new HeddleError("limit", `Cannot append to the log: got ${bytes} bytes, at most ${APPEND_BYTES_MAX} fit`);
  }
  const lengths = new DataView(new ArrayBuffer(LENGTH_BYTES * entries.length));
  entries.forEach((entry, i) => lengths.setUint32(LENGTH_BYTES * i, entry.length, true));
  return concatBytes([new Uint8Array(lengths.buffer), ...entries]);
}

function entriesOf(frame: Bytes, { sequence, entries }: Batch): Bytes[] {
  let at = LENGTH_BYTES * entries;
  if (at > frame.length) {
    throw damaged(sequence, `it has ${frame.length} bytes, too few for ${entries} entries`);
  }
  const lengths = new DataView(frame.buffer, frame.byteOffset, at);
  const read = Array.from({ length: entries }, (_, i) => {
    const start = at;
    at += lengths.getUint32(LENGTH_BYTES * i, true);
    return frame.slice(start, at);
  });
  if (at !== frame.length) {
    throw damaged(sequence, `it has ${frame.length} bytes, its entries need ${at}`);
  }
  return read;
}

function batchOf({ sequence, header }: Stored): Batch {
  const [position, entries] = [POSITION_HEADER, ENTRIES_HEADER].map((name) =>
    /^\d{1,15}$/.test(header(name)) ? Number(header(name)) : NaN,
  ) as [number, number];
  if (!(position >= 0 && entries > 0)) {
    throw damaged(sequence, "its headers do not say which entries it holds");
  }
  return { sequence, position, entries };
}

function damaged(sequence: number, why: string): HeddleError {
  return new HeddleError("integrity", `Cannot read the log: message ${sequence} is not as it was written, ${why}`);
}
