/**
 * A connection to NATS JetStream that outlives servers. What a call asks for is asked again until it is answered or
 * `patienceMs` is over: a server restarts, a cluster elects a leader, an answer is lost. A write that was asked for twice is
 * done once: it carries an id, by which the server (within two minutes) and we (by reading what was stored) know it again.
 *
 * Reads that decide something go to the stream's leader, which has everything it ever acknowledged; what never changes may be
 * read from any replica. JetStream acknowledges a write when most replicas have it in their files, unsynced: it outlives
 * killed processes, and power loss on less than half of the machines.
 */
import {
  JetStreamApiError,
  jetstreamManager,
  type JetStreamClient,
  type JetStreamManager,
  type StoredMsg,
  type StreamConfig,
} from "@nats-io/jetstream";
import { errors, headers as createHeaders, nuid, type NatsConnection } from "@nats-io/transport-node";
import { HeddleError, messageIn } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { Gate } from "./gate.ts";
import type { NatsAddress } from "./nats-address.ts";
import { connectNats } from "./nats-connection.ts";

/** One question; it is asked again then. */
const ANSWER_MS_MAX = 3_000;
const PAUSE_MS = 100;
/** How long a server that has just started may be without JetStream. */
const NOT_ENABLED_MS = 2_000;
/** Within which the server itself recognises a repeated write. */
const DUPLICATE_WINDOW_MS = 120_000;
/** A message's headers count as payload too. */
const HEADER_BYTES_MAX = 4_096;

const WRONG_LAST_SEQUENCE = 10_071;
/** JetStream's codes for: no leader now, not enough peers online, starting, the same message is being stored. */
const PASSING = new Set([10_005, 10_008, 10_009, 10_076, 10_158, 10_164]);
const STREAM_NOT_FOUND = 10_059;
const STORE_FAILED = 10_077;
const INSUFFICIENT_RESOURCES = 10_023;

/** A message as it was stored. */
export interface Stored {
  readonly sequence: number;
  /** By the server's clock, in milliseconds since the epoch. */
  readonly timeMs: number;
  readonly payload: Bytes;
  header(name: string): string;
}

export interface Message {
  readonly subject: string;
  readonly payload: Bytes;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * What has to hold for a write: the stream's last sequence number. That of a subject would be in fewer people's way, but a
 * cluster before 2.10 takes several writes that expect the same one.
 */
export interface Expected {
  readonly stream: string;
  readonly sequence: number;
}

/** What streams differ in. */
export type StreamChoice = Pick<StreamConfig, "name" | "subjects"> &
  Partial<Pick<StreamConfig, "deny_delete" | "deny_purge">> & { readonly max_msgs_per_subject: number };

export class JetStream {
  readonly gate: Gate;
  /** Servers of this cluster do not keep what they have when they are killed, see `forgetsInCluster`. */
  readonly forgets: boolean;
  /** The most that one message can carry beside its headers, in bytes. */
  readonly payloadBytesMax: number;
  readonly #shown: string;
  readonly #replicas: number | null;
  /** As many as are of use and can be had. */
  readonly #replicasMax: number;
  readonly #patienceMs: number;
  readonly #manager: JetStreamManager;
  readonly #client: JetStreamClient;
  /** Of the attempts under way: their answers are lost when the connection is. */
  readonly #interrupts = new Set<(reason: Error) => void>();
  #connected = true;

  private constructor(
    connection: NatsConnection,
    manager: JetStreamManager,
    { shown, replicas }: NatsAddress,
    patienceMs: number,
  ) {
    this.gate = new Gate(() => connection.close());
    this.forgets = connection.info?.cluster !== undefined && forgetsInCluster(connection.info.version);
    this.payloadBytesMax = (connection.info?.max_payload ?? 0) - HEADER_BYTES_MAX;
    this.#replicas = replicas;
    this.#replicasMax = connection.info?.cluster === undefined ? 1 : 3;
    this.#shown = shown;
    this.#patienceMs = patienceMs;
    this.#manager = manager;
    this.#client = manager.jetstream();
    void this.#watch(connection);
  }

  /** Throws HeddleError "store" when no server answers, the login is refused, or there is no JetStream for it. */
  static async open(address: NatsAddress, patienceMs: number): Promise<JetStream> {
    const { shown } = address;
    const connection = await connectNats(address, `open the store at ${shown}`);
    try {
      const manager = await jetstreamManager(connection, { timeout: ANSWER_MS_MAX, checkAPI: false });
      const opened = new JetStream(connection, manager, address, patienceMs);
      await opened.#ask("open the store", () => manager.getAccountInfo(), { notEnabledMs: NOT_ENABLED_MS });
      if (opened.payloadBytesMax < HEADER_BYTES_MAX) {
        const got = opened.payloadBytesMax + HEADER_BYTES_MAX;
        throw new HeddleError(
          "store",
          `Cannot open the store at ${shown}: the server's max_payload is ${got} bytes, need at least ${2 * HEADER_BYTES_MAX}`,
        );
      }
      return opened;
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  /**
   * Makes the stream when absent, and gives one that exists what it lacks. Its limits are left to the operator, and so is the
   * number of replicas where the address says none. With `existing` it is left as it is, and an absent one is HeddleError "bad-input".
   */
  async prepareStream(config: StreamChoice, existing = false): Promise<void> {
    const { streams } = this.#manager;
    const wanted = {
      storage: "file",
      retention: "limits",
      discard: "new",
      allow_direct: true,
      ...(this.#replicas === null ? {} : { num_replicas: this.#replicas }),
      ...config,
    } as const;
    await this.#ask(`open the stream "${config.name}"`, async () => {
      let found: StreamConfig;
      try {
        ({ config: found } = await streams.info(config.name));
      } catch (error) {
        if (!isCode(error, STREAM_NOT_FOUND)) {
          throw error;
        }
        if (existing) {
          const sentence = `Cannot open the store at ${this.#shown}: there is none, the stream "${config.name}" is missing`;
          throw new HeddleError("bad-input", `${sentence}; look at the name at the end of the address`, {
            cause: error,
          });
        }
        const num_replicas = this.#replicas ?? this.#replicasMax;
        const added = { num_replicas, duplicate_window: DUPLICATE_WINDOW_MS * 1e6, ...wanted };
        ({ config: found } = await streams.add(added).catch((refusal: unknown) =>
          // Another relay makes it at the same moment, which NATS says in several ways.
          streams.info(config.name).catch((error: unknown) => {
            throw isCode(error, STREAM_NOT_FOUND) ? refusal : error;
          }),
        ));
      }
      if (found.subjects.join() !== wanted.subjects.join()) {
        const got = `got one with the subjects "${found.subjects.join()}", need "${wanted.subjects.join()}"`;
        throw new HeddleError("store", `Cannot open the stream "${config.name}": ${got}; another name avoids it`);
      }
      const fields = Object.keys(wanted) as (keyof typeof wanted)[];
      if (!existing && fields.some((field) => JSON.stringify(found[field]) !== JSON.stringify(wanted[field]))) {
        await streams.update(config.name, wanted);
      }
    });
  }

  /**
   * Stores a message and returns its sequence number; undefined when `expected` does not hold. A repeated call with the same
   * `id` returns the number that the message got, and stores nothing.
   */
  async write(
    action: string,
    { subject, payload, headers = {} }: Message,
    expected?: Expected,
    id: string = nuid.next(),
  ): Promise<number | undefined> {
    const expect = expected === undefined ? {} : { lastSequence: expected.sequence };
    return this.#ask(action, async (attempt) => {
      const written = createHeaders();
      Object.entries(headers).forEach(([key, value]) => written.set(key, value));
      try {
        const options = { msgID: id, headers: written, timeout: ANSWER_MS_MAX, retries: 1, expect };
        return (await this.#client.publish(subject, payload, options)).seq;
      } catch (error) {
        if (expected === undefined || !isCode(error, WRONG_LAST_SEQUENCE)) {
          throw error;
        }
        // An earlier attempt may have stored it, and only the answer was lost.
        return attempt === 0 ? undefined : this.#sequenceOf(id, expected);
      }
    });
  }

  async #sequenceOf(id: string, { stream, sequence }: Expected): Promise<number | undefined> {
    const stored = await this.#manager.streams.getMessage(stream, { seq: sequence + 1 });
    return stored?.header.get("Nats-Msg-Id") === id ? stored.seq : undefined;
  }

  /** Of the stream, as its leader has it. */
  async lastSequence(action: string, stream: string): Promise<number> {
    return (await this.#ask(action, () => this.#manager.streams.info(stream))).state.last_seq;
  }

  /** The last message under `subject` (which may have wildcards), as the stream's leader has it. */
  async last(action: string, stream: string, subject: string): Promise<Stored | undefined> {
    return this.#ask(action, async () =>
      stored(await this.#manager.streams.getMessage(stream, { last_by_subj: subject })),
    );
  }

  /** A message that never changes, from any replica, and from the leader where that one is behind. */
  async fixed(
    action: string,
    stream: string,
    query: { readonly seq: number } | { readonly last_by_subj: string },
  ): Promise<Stored | undefined> {
    return this.#ask(action, async () => {
      const near = await this.#manager.direct.getMessage(stream, query);
      return stored(near ?? (await this.#manager.streams.getMessage(stream, query)));
    });
  }

  /** Removes the messages under `subject` (which may have wildcards) up to sequence number `last`, or all. Counts as no write. */
  async remove(action: string, stream: string, subject: string, last?: number): Promise<void> {
    const upTo = last === undefined ? {} : { seq: last + 1 };
    await this.#ask(action, () => this.#manager.streams.purge(stream, { filter: subject, ...upTo }));
  }

  /** Subjects that fit `filter` and have a message. */
  async subjects(action: string, stream: string, filter: string): Promise<string[]> {
    const { state } = await this.#ask(action, () => this.#manager.streams.info(stream, { subjects_filter: filter }));
    return Object.keys(state.subjects ?? {});
  }

  async #watch(connection: NatsConnection): Promise<void> {
    for await (const { type } of connection.status()) {
      if (type === "disconnect") {
        this.#connected = false;
        this.#interrupts.forEach((interrupt) => interrupt(new errors.ConnectionError("disconnected")));
      } else if (type === "reconnect") {
        this.#connected = true;
      }
    }
  }

  async #attempt<T>(question: () => Promise<T>): Promise<T> {
    if (!this.#connected) {
      throw new errors.ConnectionError("disconnected");
    }
    const { promise: interrupted, reject } = Promise.withResolvers<never>();
    this.#interrupts.add(reject);
    try {
      return await Promise.race([question(), interrupted]);
    } finally {
      this.#interrupts.delete(reject);
    }
  }

  /** Asks until there is an answer, and puts failures into sentences. */
  async #ask<T>(
    action: string,
    question: (attempt: number) => Promise<T>,
    { notEnabledMs = this.#patienceMs }: { readonly notEnabledMs?: number } = {},
  ): Promise<T> {
    const begin = performance.now();
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#attempt(() => question(attempt));
      } catch (error) {
        if (error instanceof HeddleError) {
          throw error;
        }
        const patienceMs = isNotEnabled(error) ? notEnabledMs : this.#patienceMs;
        const passing = mayPass(error);
        if (!passing || performance.now() - begin >= patienceMs || !this.gate.isOpen) {
          throw new HeddleError("store", `Cannot ${action}: ${this.#reason(error, passing)}`, { cause: error });
        }
        await new Promise((settle) => {
          setTimeout(settle, PAUSE_MS);
        });
      }
    }
  }

  #reason(error: unknown, passing: boolean): string {
    if (isNotEnabled(error)) {
      return `NATS at ${this.#shown} has no JetStream for us; start the server with -js, and give the account JetStream`;
    }
    if (passing) {
      return `NATS at ${this.#shown} has not answered for ${Math.round(this.#patienceMs / 1_000)} s`;
    }
    if (isCode(error, STORE_FAILED)) {
      return `the stream is full or cannot be written (${messageIn(error)}); raise its limit or make room`;
    }
    if (isCode(error, INSUFFICIENT_RESOURCES)) {
      return `the NATS cluster has not enough servers or room for ${this.#replicas ?? this.#replicasMax} replicas (?replicas=N sets how many)`;
    }
    return `NATS says "${messageIn(error)}"`;
  }
}

function stored(message: StoredMsg | null): Stored | undefined {
  if (message === null) {
    return undefined;
  }
  const { seq, time, header } = message;
  const data = message.data as Bytes; // a Buffer, whose slice() would be no copy
  return {
    sequence: seq,
    timeMs: time.getTime(),
    payload: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    header: (name) => header?.get(name) ?? "",
  };
}

/**
 * Whether a cluster of this version loses messages of streams with one message a subject when a server is killed and started
 * again: 2.9.10 did within 15 kills in four runs of `npm run faults -- nats`, 2.10.27 did not in 50.
 */
export function forgetsInCluster(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major < 2 || (major === 2 && minor < 10);
}

/** Whether the same question may be answered a moment later. */
function mayPass(error: unknown): boolean {
  if (error instanceof JetStreamApiError) {
    return PASSING.has(error.code);
  }
  return (
    error instanceof errors.TimeoutError ||
    error instanceof errors.RequestError ||
    error instanceof errors.NoRespondersError ||
    error instanceof errors.ConnectionError ||
    (isNotEnabled(error) && !(error.cause instanceof JetStreamApiError))
  );
}

/** The client does not export its class. */
function isNotEnabled(error: unknown): error is Error {
  return error instanceof Error && error.name === "JetStreamNotEnabled";
}

function isCode(error: unknown, code: number): boolean {
  return error instanceof JetStreamApiError && error.code === code;
}
