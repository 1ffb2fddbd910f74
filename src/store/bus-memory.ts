/** The bus within one process, for tests: any number of ends on one hub. The reference of what `bus-contract.ts` asks for. */
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { BUS_QUEUE_BYTES_MAX, checkBusMessage, type Bus } from "./bus.ts";

const PAYLOAD_BYTES_MAX = 1_048_576;

export interface MemoryHub {
  connect(): Bus;
  /** Every end is told that messages may have been lost; those on the way are. */
  interrupt(reason: string): void;
}

interface Letter {
  readonly subject: string;
  readonly payload: Bytes;
  readonly reply: ((payload: Bytes) => void) | null;
}

/** `queueBytesMax` of one end's messages may be on the way. */
export function createMemoryHub({ queueBytesMax = BUS_QUEUE_BYTES_MAX } = {}): MemoryHub {
  const readers = new Map<string, Set<(letter: Letter) => void>>();
  const ends = new Set<(reason: string) => void>();
  let lives = 0;
  const read = (subject: string, take: (letter: Letter) => void): (() => void) => {
    const among = readers.get(subject) ?? new Set();
    readers.set(subject, among.add(take));
    return () => void among.delete(take);
  };

  const connect = (): Bus => {
    const tells = new Set<(reason: string) => void>();
    const interrupted = (reason: string): void => tells.forEach((tell) => tell(reason));
    const own = new Set<() => void>();
    let queuedBytes = 0;
    let open = true;
    ends.add(interrupted);
    const send = (letter: Letter): void => {
      checkBusMessage(letter.subject, letter.payload, PAYLOAD_BYTES_MAX);
      if (!open) {
        throw new HeddleError("unreachable", "Cannot publish: the bus is closed");
      }
      const { length } = letter.payload;
      if (queuedBytes + length > queueBytesMax) {
        interrupted("The bus does not take what is sent to it");
        throw new HeddleError("unreachable", "Cannot publish: the bus does not take what is sent to it");
      }
      queuedBytes += length;
      const life = lives;
      void Promise.resolve().then(() => {
        queuedBytes -= length;
        const among = life === lives ? [...(readers.get(letter.subject) ?? [])] : [];
        (letter.reply === null ? among : among.slice(0, 1)).forEach((take) => take(letter));
      });
    };
    const keep = (end: () => void): (() => void) => {
      own.add(end);
      return () => {
        own.delete(end);
        end();
      };
    };
    return {
      payloadBytesMax: PAYLOAD_BYTES_MAX,
      publish: (subject, payload) => send({ subject, payload, reply: null }),
      subscribe: async (subject, take) => keep(read(subject, ({ payload }) => take(payload))),
      request: async (subject, payload, timeoutMs) => {
        if ((readers.get(subject)?.size ?? 0) === 0) {
          throw new HeddleError("unreachable", `Cannot ask "${subject}": nobody answers`);
        }
        return new Promise((resolve, reject) => {
          const late = (): void =>
            reject(new HeddleError("unreachable", `Cannot ask "${subject}": no answer within ${timeoutMs} ms`));
          const timer = setTimeout(late, timeoutMs);
          const reply = (answer: Bytes): void => {
            clearTimeout(timer);
            resolve(answer);
          };
          send({ subject, payload, reply });
        });
      },
      answer: async (subject, reply) =>
        keep(
          read(subject, (letter) => {
            void reply(letter.payload).then(
              (answer) => letter.reply?.(answer),
              () => undefined, // who asked finds out by the time
            );
          }),
        ),
      onInterrupt: (tell) => {
        tells.add(tell);
        return () => void tells.delete(tell);
      },
      close: async () => {
        open = false;
        ends.delete(interrupted);
        own.forEach((end) => end());
        own.clear();
      },
    };
  };
  return {
    connect,
    interrupt: (reason) => {
      lives += 1;
      [...ends].forEach((end) => end(reason));
    },
  };
}
