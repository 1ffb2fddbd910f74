/**
 * The operator of a relay that does not lead: what only the leader can do goes to it over the bus between them, as the requests of
 * `operator-socket.ts`; ledger and backup come from the store that both share. Questions are signed with the run's key, which relays
 * have from that store: who reaches the bus alone operates nothing. They go to the leader of one epoch, and no other answers them.
 */
import { HeddleError, messageIn, type ErrorCode } from "../base/assert.ts";
import { concatBytes, textBytes, toHex, type Bytes } from "../base/bytes.ts";
import { SIGNATURE_BYTES, verifySignature } from "../net/device-key.ts";
import { loadStoredKey } from "../net/device-key-node.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import type { Bus } from "../store/bus.ts";
import { entriesOf } from "../store/store.ts";
import { backUp } from "./backup.ts";
import type { Operations, Status } from "./operations.ts";
import { carryOut } from "./operator-socket.ts";
import { KEY_FILE, type PlacedStore } from "./place.ts";
import type { PruneReport } from "./prune.ts";

/** What the leader does for operators of other relays, and how long they wait for it; the rest is done where they are. */
const ASKED = { "GET /status": 10_000, "POST /operate": 10_000, "POST /prune": 120_000 } as const;

/** Clocks of relays may differ by so much; what is older was kept by somebody, or by a leader that was stopped. */
const AGE_MS_MAX = 60_000;
const PURPOSE = "operator";

/** Its JSON follows the signature of that. */
interface Question {
  readonly epoch: number;
  readonly timeMs: number;
  readonly asked: string;
  readonly body: object;
}

type Answer = { readonly value: unknown } | { readonly code: ErrorCode; readonly error: string };

export interface AnswerParts {
  readonly bus: Bus;
  /** Of this leader. */
  readonly epoch: number;
  /** The run's. */
  readonly key: DeviceKey;
  readonly operations: () => Operations;
  /** A question was not answered for a reason that nobody foresaw. */
  readonly onFailure: (why: string) => void;
}

/** The leader answers, until the returned function is called. */
export function answerOperators({ bus, epoch, key, operations, onFailure }: AnswerParts): Promise<() => void> {
  /** Signatures of what has been asked, with its time: nothing is done twice. */
  const seen = new Map<string, number>();
  const answerTo = async (payload: Bytes): Promise<Answer> => {
    try {
      const [signature, bytes] = [payload.subarray(0, SIGNATURE_BYTES), payload.subarray(SIGNATURE_BYTES)];
      if (!(await verifySignature(key.publicKey, PURPOSE, bytes, signature))) {
        throw new HeddleError("refused", "Cannot operate: the question is not signed with the run's key");
      }
      const question = JSON.parse(new TextDecoder().decode(bytes)) as Question;
      const [name, nowMs] = [toHex(signature), Date.now()];
      const isOld = (timeMs: number): boolean => !(Math.abs(nowMs - timeMs) <= AGE_MS_MAX);
      if (question.epoch !== epoch || isOld(question.timeMs) || seen.has(name)) {
        const sentence =
          "Cannot operate: the question is not of this moment; do the relays' clocks differ by a minute?";
        throw new HeddleError("refused", sentence);
      }
      [...seen].filter(([, timeMs]) => isOld(timeMs)).forEach(([old]) => seen.delete(old));
      seen.set(name, question.timeMs);
      return await does(question, operations);
    } catch (error) {
      if (error instanceof HeddleError) {
        return { code: error.code, error: error.message };
      }
      onFailure(messageIn(error));
      return { code: "unreachable", error: `The relay that leads the run could not answer: ${messageIn(error)}` };
    }
  };
  return bus.answer(subjectOf(epoch), async (payload) => {
    const answer = encode(await answerTo(payload));
    const sentence = "Cannot answer over the bus: it is too much; ask the relay that leads itself";
    return answer.length <= bus.payloadBytesMax ? answer : encode({ code: "limit", error: sentence });
  });
}

function subjectOf(epoch: number): string {
  return `operator.${epoch}`;
}

async function does({ asked, body }: Question, operations: () => Operations): Promise<Answer> {
  const drains = "type" in body && body.type === "drain"; // which is about the relay that is asked
  const value =
    Object.hasOwn(ASKED, asked) && !drains ? await carryOut(asked, () => JSON.stringify(body), operations) : null;
  return value === null ? { code: "bad-input", error: "Cannot operate: the leader does not know how" } : { value };
}

export interface EdgeParts {
  readonly bus: Bus;
  readonly store: PlacedStore;
  readonly dir: string;
  /** Has this relay end. */
  readonly drain: () => void;
  /** The leader that was heard last, and what names its process to people. */
  readonly leader: () => { readonly epoch: number; readonly name: string };
}

/** The operations of a relay that does not lead its run: it drains itself, reads the store itself, and asks the leader for the rest. */
export function operationsOfEdge({ bus, store, dir, drain, leader }: EdgeParts): Operations {
  const ask = async (asked: keyof typeof ASKED, body: object = {}): Promise<unknown> => {
    const { epoch, name } = leader();
    const key = await loadStoredKey(store.keys, KEY_FILE);
    const question = encode({ epoch, timeMs: Date.now(), asked, body } satisfies Question);
    const payload = concatBytes([await key.sign(PURPOSE, question), question]);
    const reply = await bus.request(subjectOf(epoch), payload, ASKED[asked]).catch((error: unknown) => {
      const hint =
        asked === "GET /status"
          ? "ask again in a moment"
          : "what was asked may still be under way: look at the status first";
      const sentence = `Cannot operate: the relay that leads the run, ${name}, does not answer; ${hint}`;
      throw new HeddleError("unreachable", sentence, { cause: error });
    });
    const answer = JSON.parse(new TextDecoder().decode(reply)) as Answer;
    if ("error" in answer) {
      throw new HeddleError(answer.code, answer.error);
    }
    return answer.value;
  };
  return {
    status: async () => ({ ...((await ask("GET /status")) as Status), leader: leader().name }),
    entries: () => entriesOf(store.log),
    operate: async (command) => {
      await (command.type === "drain" ? drain() : ask("POST /operate", command));
    },
    backUp: (to) => backUp(store, dir, to),
    prune: async (options) => (await ask("POST /prune", options)) as PruneReport,
    close: async () => undefined,
  };
}

function encode(value: object): Bytes {
  return textBytes(JSON.stringify(value));
}
