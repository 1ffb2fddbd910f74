/**
 * The bus on NATS core: a connection of its own beside the store's, so that neither waits behind the other. A connection that
 * was lost, or that the server cut because it could not keep up, comes back by itself; what was on the way then is lost, which
 * is told. Subjects are `<name>.bus.<subject>`.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { errors, type NatsConnection, type Subscription } from "@nats-io/transport-node";
import { HeddleError, messageIn } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { BUS_QUEUE_BYTES_MAX, checkBusMessage, type Bus } from "./bus.ts";
import type { NatsAddress } from "./nats-address.ts";
import { connectNats } from "./nats-connection.ts";

/** Subject and sizes in front of every message, for the count of what waits. */
const OVERHEAD_BYTES = 100;
/**
 * Once some was sent, what is published within so long goes together: most of what a message costs both ends and the server is the call
 * that takes it there. A bus that carries little waits for nothing. So many bytes do not wait.
 */
const GATHER_MS = 20;
const GATHER_BYTES = 65_536;
/** Published bytes after which the server is asked whether it has them. */
const FLUSH_BYTES = 262_144;

/**
 * The servers of a cluster tell each other who listens to what, and a message may be there first: for so long a subscription waits for
 * that, and a request does not believe that nobody answers, and asks again so often.
 */
const HEARSAY_MS = 300;
const ASK_AGAIN_MS = 25;

export interface NatsBusOptions {
  /** Bytes published and not yet taken by the server, beyond which the bus calls itself interrupted. */
  readonly queueBytesMax?: number;
}

/** Throws HeddleError "store" when no server answers. Afterwards servers may go and come. */
export async function openNatsBus(
  address: NatsAddress,
  { queueBytesMax = BUS_QUEUE_BYTES_MAX }: NatsBusOptions = {},
): Promise<Bus> {
  const connection = await connectNats(address, `open the bus at ${address.shown}`);
  return new NatsBus(connection, `${address.name}.bus.`, queueBytesMax);
}

class NatsBus implements Bus {
  readonly payloadBytesMax: number;
  readonly #connection: NatsConnection;
  readonly #prefix: string;
  readonly #queueBytesMax: number;
  readonly #tells = new Set<(reason: string) => void>();
  #connected = true;
  /** Published since the server last said that it has everything. */
  #queuedBytes = 0;
  #flushing = false;
  /** Published, and not given to the connection yet. */
  #gathered: { readonly subject: string; readonly payload: Bytes }[] = [];
  #gatheredBytes = 0;
  #sentMs = Number.NEGATIVE_INFINITY;
  #sendsLater: ReturnType<typeof setTimeout> | undefined;

  constructor(connection: NatsConnection, prefix: string, queueBytesMax: number) {
    this.#connection = connection;
    this.#prefix = prefix;
    this.#queueBytesMax = queueBytesMax;
    this.payloadBytesMax = connection.info?.max_payload ?? 0;
    void this.#watch();
  }

  publish(subject: string, payload: Bytes): void {
    checkBusMessage(subject, payload, this.payloadBytesMax);
    if (!this.#connected || this.#connection.isClosed()) {
      throw new HeddleError("unreachable", "Cannot publish: the bus is away");
    }
    if (this.#queuedBytes + payload.length > this.#queueBytesMax) {
      this.#interrupted("The bus does not take what is sent to it");
      throw new HeddleError("unreachable", "Cannot publish: the bus does not take what is sent to it");
    }
    this.#queuedBytes += payload.length + OVERHEAD_BYTES;
    this.#gathered.push({ subject, payload });
    this.#gatheredBytes += payload.length;
    const waitMs = this.#gatheredBytes < GATHER_BYTES ? this.#sentMs + GATHER_MS - performance.now() : 0;
    if (waitMs <= 0) {
      this.#send();
    } else {
      this.#sendsLater ??= setTimeout(() => this.#send(), waitMs);
    }
  }

  #send(): void {
    const gathered = this.#gathered;
    this.#forget();
    if (gathered.length === 0 || this.#connection.isClosed()) {
      return;
    }
    this.#sentMs = performance.now();
    try {
      for (const { subject, payload } of gathered) {
        this.#connection.publish(this.#prefix + subject, payload);
      }
    } catch (error) {
      this.#interrupted(`The bus does not take what is sent to it: ${messageIn(error)}`); // as of a server that carries less
    }
    if (!this.#flushing && this.#queuedBytes > FLUSH_BYTES) {
      void this.#flush();
    }
  }

  #forget(): void {
    clearTimeout(this.#sendsLater);
    this.#sendsLater = undefined;
    this.#gathered = [];
    this.#gatheredBytes = 0;
  }

  async subscribe(subject: string, take: (payload: Bytes) => void): Promise<() => void> {
    checkBusMessage(subject, new Uint8Array(), this.payloadBytesMax);
    const subscription = this.#connection.subscribe(this.#prefix + subject, {
      callback: (error, message) => {
        if (error === null) {
          take(bytesOf(message.data));
        }
      },
    });
    await this.#reached("subscribe", subscription);
    return () => subscription.unsubscribe();
  }

  async request(subject: string, payload: Bytes, timeoutMs: number): Promise<Bytes> {
    checkBusMessage(subject, payload, this.payloadBytesMax);
    this.#send(); // what came before
    const untilMs = performance.now() + Math.min(timeoutMs, HEARSAY_MS);
    for (;;) {
      try {
        return bytesOf((await this.#connection.request(this.#prefix + subject, payload, { timeout: timeoutMs })).data);
      } catch (error) {
        const nobody = error instanceof errors.RequestError && error.isNoResponders();
        if (!nobody || performance.now() >= untilMs) {
          throw new HeddleError("unreachable", `Cannot ask "${subject}": ${messageIn(error)}`, { cause: error });
        }
      }
      await sleep(ASK_AGAIN_MS);
    }
  }

  async answer(subject: string, reply: (payload: Bytes) => Promise<Bytes>): Promise<() => void> {
    checkBusMessage(subject, new Uint8Array(), this.payloadBytesMax);
    const subscription = this.#connection.subscribe(this.#prefix + subject, {
      queue: "answer", // one of several
      callback: (error, message) => {
        if (error === null) {
          void reply(bytesOf(message.data)).then(
            (answer) => {
              this.#send(); // what came before
              message.respond(answer);
            },
            () => undefined, // who asked finds out by the time
          );
        }
      },
    });
    await this.#reached("answer", subscription);
    return () => subscription.unsubscribe();
  }

  onInterrupt(tell: (reason: string) => void): () => void {
    this.#tells.add(tell);
    return () => void this.#tells.delete(tell);
  }

  async close(): Promise<void> {
    this.#send();
    await Promise.resolve(); // the connection writes then
    await this.#connection.close();
  }

  async #flush(): Promise<void> {
    this.#flushing = true;
    while (this.#queuedBytes > FLUSH_BYTES && this.#connected) {
      const bytes = this.#queuedBytes;
      try {
        await this.#connection.flush();
      } catch {
        break; // the connection broke, which is told by its status
      }
      this.#queuedBytes = Math.max(0, this.#queuedBytes - bytes);
    }
    this.#flushing = false;
  }

  /**
   * Resolves when the server knows of the subscription, and should the others of its cluster. What it may not know of is given up: the
   * client would subscribe again by itself when the bus is back.
   */
  async #reached(action: string, subscription: Subscription): Promise<void> {
    try {
      await this.#connection.flush();
      if (this.#connection.info?.cluster !== undefined) {
        await sleep(HEARSAY_MS);
      }
    } catch (error) {
      subscription.unsubscribe();
      throw new HeddleError("unreachable", `Cannot ${action}: the bus is away`, { cause: error });
    }
  }

  async #watch(): Promise<void> {
    for await (const { type } of this.#connection.status()) {
      if (type === "disconnect") {
        this.#connected = false;
        this.#queuedBytes = 0;
        this.#forget();
        this.#interrupted("The connection between the relays broke");
      } else if (type === "reconnect") {
        this.#connected = true;
      }
    }
  }

  #interrupted(reason: string): void {
    [...this.#tells].forEach((tell) => tell(reason));
  }
}

/** The client's messages are views of what the socket read, in a Buffer: its `slice` would be no copy. */
function bytesOf(data: Uint8Array): Bytes {
  return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
}
