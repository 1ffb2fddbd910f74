/**
 * Keys in a JetStream stream: the last message of a subject is the value of a key, changed only where nothing else in the
 * stream was meanwhile.
 */
import { HeddleError } from "../base/assert.ts";
import { equalBytes, type Bytes } from "../base/bytes.ts";
import type { JetStream, Message, Stored } from "./jetstream.ts";
import { PIECES_HEADER, type Bodies } from "./nats-body.ts";
import { inWindow } from "./pieces.ts";
import { checkKey, checkValue, type Keys } from "./store.ts";

/** How often a call begins again because others were faster. */
const RACES_MAX = 1_000;
/** The key has no value any more. */
const DELETED_HEADER = "Heddle-Deleted";
/** Begins the names of values' pieces. */
const OWNER = "key-";

export class NatsKeys implements Keys {
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

  /** Which of the pieces that were written for values are one's now. */
  async pieces(action: string): Promise<(name: string) => boolean> {
    const subjects = await this.#jetStream.subjects(action, this.#stream, `${this.#prefix}*`);
    const used = new Set<string | undefined>();
    await inWindow(subjects.length, async (i) => {
      const stored = await this.#jetStream.last(action, this.#stream, subjects[i] as string);
      used.add(stored?.header(PIECES_HEADER));
    });
    return (name) => !name.startsWith(OWNER) || used.has(name);
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
      const message: Required<Message> =
        copy === undefined
          ? { subject, payload: new Uint8Array(), headers: { [DELETED_HEADER]: "1" } }
          : await this.#bodies.write(action, subject, copy, OWNER);
      const written = await this.#jetStream.write(action, message, { stream: this.#stream, sequence });
      if (written !== undefined) {
        if (copy === undefined) {
          await this.#jetStream.remove(action, this.#stream, subject, written);
        }
        await this.#bodies.drop(action, present.stored?.header(PIECES_HEADER));
        return true;
      }
      await this.#bodies.drop(action, message.headers[PIECES_HEADER]);
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
