/**
 * The store of relays on a NATS JetStream server or cluster, for one process or several: three streams of which each is
 * written so that what was acknowledged outlives any one server of a cluster of three.
 *
 * - `<name>-log`: a message an append, all its entries framed in it, stored only where it is expected in the stream. Its
 *   headers say the positions it holds; sequence numbers have no gaps, so a position is found by bisection.
 * - `<name>-keys`: the last message of a subject is the value of a key, changed only where nothing else was meanwhile.
 * - `<name>-pieces`: blobs, and entries and values larger than a message, in pieces (`pieces.ts`).
 *
 * What an interrupted append or set of more than a message leaves in pieces is not collected.
 */
import { nuid } from "@nats-io/transport-node";
import { HeddleError } from "../base/assert.ts";
import { concatBytes, equalBytes, isDigest, type Bytes, type Digest } from "../base/bytes.ts";
import { hashBytes } from "./hash.ts";
import { JetStream, type Message, type Stored } from "./jetstream.ts";
import type { NatsAddress } from "./nats-address.ts";
import { inWindow, Pieces } from "./pieces.ts";
import {
  BLOB_STORED_BYTES_MAX,
  checkBlob,
  checkKey,
  checkPosition,
  checkValue,
  type Blobs,
  type Keys,
  type Log,
  type Store,
} from "./store.ts";

export interface NatsOptions {
  readonly blobBytesMax?: number;
  /** How long a call waits for servers to come back before it fails, in milliseconds. */
  readonly patienceMs?: number;
}

const PATIENCE_MS = 30_000;
/** What one message carries at most, even where the server would take more. */
const INLINE_BYTES_MAX = 1_000_000;
/** All entries of one append. */
const APPEND_BYTES_MAX = BLOB_STORED_BYTES_MAX;
/** How often a call begins again because others were faster. */
const RACES_MAX = 1_000;
const LENGTH_BYTES = 4;

/** Names the pieces that hold what did not fit the message. */
const PIECES_HEADER = "Heddle-Pieces";
const POSITION_HEADER = "Heddle-Position";
const ENTRIES_HEADER = "Heddle-Entries";
/** The key has no value any more. */
const DELETED_HEADER = "Heddle-Deleted";

/**
 * Opens the store `address.name`, whose streams are made when absent. Throws HeddleError "store" when no server answers or it
 * has no JetStream for us. Afterwards servers may go and come: calls wait, and fail with HeddleError "store" after
 * `patienceMs`. What a call that failed so asked for may still have happened.
 */
export async function openNatsStore(
  address: NatsAddress,
  { blobBytesMax = BLOB_STORED_BYTES_MAX, patienceMs = PATIENCE_MS }: NatsOptions = {},
): Promise<Store> {
  const { name } = address;
  const jetStream = await JetStream.open(address, patienceMs);
  const stream = `${name}-pieces`;
  const pieces = (kind: string, bytesMax: number): Pieces =>
    new Pieces({ jetStream, stream, kind: `${name}.${kind}`, bytesMax });
  const bodies = new Bodies(jetStream, pieces("value", APPEND_BYTES_MAX));
  try {
    await Promise.all([
      jetStream.prepareStream({
        name: `${name}-log`,
        subjects: [`${name}.log`],
        max_msgs_per_subject: -1,
        deny_delete: true,
        deny_purge: true,
      }),
      jetStream.prepareStream({ name: `${name}-keys`, subjects: [`${name}.key.*`], max_msgs_per_subject: 1 }),
      jetStream.prepareStream({
        name: stream,
        subjects: [`${name}.blob.*.*`, `${name}.value.*.*`],
        max_msgs_per_subject: 1,
      }),
    ]);
  } catch (error) {
    await jetStream.gate.close();
    throw error;
  }
  return {
    log: new NatsLog(name, jetStream, bodies),
    keys: new NatsKeys(name, jetStream, bodies),
    blobs: natsBlobs(jetStream, pieces("blob", blobBytesMax), blobBytesMax),
    close: () => jetStream.gate.close(),
  };
}

/** What messages carry: in themselves, or in pieces that they name when it is too much for one message. */
class Bodies {
  readonly #inlineBytesMax: number;
  readonly #pieces: Pieces;

  constructor(jetStream: JetStream, pieces: Pieces) {
    this.#inlineBytesMax = Math.min(INLINE_BYTES_MAX, jetStream.payloadBytesMax);
    this.#pieces = pieces;
  }

  async write(action: string, subject: string, bytes: Bytes): Promise<Required<Message>> {
    if (bytes.length <= this.#inlineBytesMax) {
      return { subject, payload: bytes, headers: {} };
    }
    const id = nuid.next();
    await this.#pieces.put(action, id, bytes);
    return { subject, payload: new Uint8Array(), headers: { [PIECES_HEADER]: id } };
  }

  /** Undefined when the pieces are gone, as those of a replaced value are. */
  async read(action: string, { header, payload }: Stored): Promise<Bytes | undefined> {
    const id = header(PIECES_HEADER);
    return id === "" ? payload.slice() : this.#pieces.read(action, id);
  }

  /** Removes the pieces of a message that was replaced or never stored. */
  async drop(action: string, id: string | undefined): Promise<void> {
    if (id !== undefined && id !== "") {
      await this.#pieces.delete(action, id);
    }
  }
}

/** What one append wrote: the entries from `position` on. */
interface Batch {
  readonly sequence: number;
  readonly position: number;
  readonly entries: number;
}

const NO_BATCH: Batch = { sequence: 0, position: 0, entries: 0 };

class NatsLog implements Log {
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

class NatsKeys implements Keys {
  readonly #stream: string;
  readonly #prefix: string;
  readonly #jetStream: JetStream;
  readonly #bodies: Bodies;

  constructor(name: string, jetStream: JetStream, bodies: Bodies) {
    this.#stream = `${name}-keys`;
    this.#prefix = `${name}.key.`;
    this.#jetStream = jetStream;
    this.#bodies = bodies;
  }

  get(key: string): Promise<Bytes | undefined> {
    return this.#run("read a key", key, async (action) => (await this.#read(action, key)).value);
  }

  async set(key: string, value: Bytes): Promise<void> {
    await this.#run("set a key", key, (action) => this.#change(action, key, value, () => true));
  }

  compareAndSet(key: string, expected: Bytes | undefined, value: Bytes): Promise<boolean> {
    return this.#run("set a key", key, (action) =>
      this.#change(action, key, value, (present) =>
        present === undefined || expected === undefined ? present === expected : equalBytes(present, expected),
      ),
    );
  }

  async delete(key: string): Promise<void> {
    await this.#run("delete a key", key, (action) =>
      this.#change(action, key, null, (present) => present !== undefined),
    );
  }

  list(prefix: string): Promise<string[]> {
    const action = "list keys";
    return this.#jetStream.gate.run(action, async () => {
      const subjects = await this.#jetStream.subjects(action, this.#stream, `${this.#prefix}*`);
      const keys = subjects
        .map((subject) => Buffer.from(subject.slice(this.#prefix.length), "base64url").toString())
        .filter((key) => key.startsWith(prefix))
        .sort();
      const deleted = new Set<string>();
      await inWindow(keys.length, async (i) => {
        const key = keys[i] as string;
        const stored = await this.#jetStream.last(action, this.#stream, this.#subject(key));
        if (stored === undefined || stored.header(DELETED_HEADER) !== "") {
          deleted.add(key); // by a process that ended before it had removed it, or meanwhile
        }
      });
      return keys.filter((key) => !deleted.has(key));
    });
  }

  /** The value of a key, and the message that says it. */
  async #read(action: string, key: string): Promise<{ readonly stored?: Stored; readonly value?: Bytes }> {
    for (let race = 0; race < RACES_MAX; race += 1) {
      const stored = await this.#jetStream.last(action, this.#stream, this.#subject(key));
      if (stored === undefined || stored.header(DELETED_HEADER) !== "") {
        return {};
      }
      const value = await this.#bodies.read(action, stored);
      if (value !== undefined) {
        return { stored, value };
      }
    }
    throw new HeddleError("integrity", `Cannot ${action}: the pieces of its value are missing`);
  }

  /**
   * Gives the key a value, or none (null), if `may` says so of the present one; resolves to whether it did. Nothing is written
   * to the stream between reading and changing, or it begins again. A deletion is a write as well, removed afterwards.
   */
  async #change(
    action: string,
    key: string,
    value: Bytes | null,
    may: (present: Bytes | undefined) => boolean,
  ): Promise<boolean> {
    checkValue(value ?? new Uint8Array());
    const [subject, copy] = [this.#subject(key), value?.slice()];
    for (let race = 0; race < RACES_MAX; race += 1) {
      const sequence = await this.#jetStream.lastSequence(action, this.#stream);
      const present = await this.#read(action, key);
      if (!may(present.value)) {
        return false;
      }
      const deletion = { subject, payload: new Uint8Array(), headers: { [DELETED_HEADER]: "1" } };
      const message = copy === undefined ? deletion : await this.#bodies.write(action, subject, copy);
      const written = await this.#jetStream.write(action, message, { stream: this.#stream, sequence });
      if (written !== undefined) {
        if (copy === undefined) {
          await this.#jetStream.remove(action, this.#stream, subject, written);
        }
        await this.#bodies.drop(action, present.stored?.header(PIECES_HEADER));
        return true;
      }
      await this.#bodies.drop(action, new Map(Object.entries(message.headers)).get(PIECES_HEADER));
    }
    throw new HeddleError("store", `Cannot ${action}: others were faster ${RACES_MAX} times`);
  }

  #run<T>(what: string, key: string, work: (action: string) => Promise<T>): Promise<T> {
    return this.#jetStream.gate.run(what, async () => {
      checkKey(key);
      return work(what);
    });
  }

  /** Any character may be in a key; few may be in a subject. */
  #subject(key: string): string {
    return this.#prefix + Buffer.from(key).toString("base64url");
  }
}

function natsBlobs({ gate }: JetStream, pieces: Pieces, blobBytesMax: number): Blobs {
  return {
    put: (bytes) =>
      gate.run("store a blob", async () => {
        checkBlob(bytes, blobBytesMax);
        const digest = await hashBytes(bytes);
        await pieces.put("store a blob", digest, bytes);
        return digest;
      }),
    get: (digest) =>
      gate.run("read a blob", async () => {
        checkDigest(digest);
        // A replica may be behind with the repair of a blob; the leader is not.
        for (const from of ["any", "leader"] as const) {
          const bytes = await pieces.read("read a blob", digest, { from });
          if (bytes === undefined || (await hashBytes(bytes)) === digest) {
            return bytes;
          }
        }
        throw new HeddleError("integrity", `Cannot read blob ${digest}: the stored bytes have another digest`);
      }),
    slice: (digest, start, end) =>
      gate.run("read a blob", async () => {
        checkDigest(digest);
        checkPosition(start, "read a slice");
        checkPosition(end, "read a slice");
        return pieces.read("read a blob", digest, { start, end });
      }),
    size: (digest) =>
      gate.run("read a blob", async () => {
        checkDigest(digest);
        return pieces.size("read a blob", digest);
      }),
    delete: (digest) =>
      gate.run("delete a blob", async () => {
        checkDigest(digest);
        return pieces.delete("delete a blob", digest);
      }),
    list: () => gate.run("list blobs", async () => (await pieces.list("list blobs")).filter(isDigest)),
  };
}

/** A digest becomes part of a subject: nothing else may get this far. */
function checkDigest(digest: Digest): void {
  if (!isDigest(digest)) {
    throw new HeddleError("bad-input", "Cannot find a blob: its name is not 64 hexadecimal digits");
  }
}
