/**
 * The operator of a relay that does not lead: what only the leader can do goes to it over the bus between them, as the requests of
 * `operator-socket.ts`; ledger and backup come from the store that both share. It asks for no password, as the bus does for nothing
 * else: whoever reaches it reaches the relay's key in the store beside it.
 */
import { HeddleError, type ErrorCode } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Bus } from "../store/bus.ts";
import { entriesOf } from "../store/store.ts";
import { backUp } from "./backup.ts";
import type { Operations, Status } from "./operations.ts";
import { carryOut } from "./operator-socket.ts";
import type { PlacedStore } from "./place.ts";
import type { PruneReport } from "./prune.ts";

const SUBJECT = "operator";
/** To prune takes long where there is much. */
const ANSWER_MS = 120_000;

/** What the leader does for operators of other relays; the rest is done where they are. */
const ASKED: readonly string[] = ["GET /status", "POST /operate", "POST /prune"];

interface Question {
  readonly asked: string;
  readonly body: object;
}

type Answer = { readonly value: unknown } | { readonly code: ErrorCode; readonly error: string };

/** The leader answers, until the returned function is called. */
export function answerOperators(bus: Bus, operations: () => Operations): Promise<() => void> {
  return bus.answer(SUBJECT, async (bytes) => {
    const answer = encode(await answerTo(bytes, operations));
    const sentence = "Cannot answer over the bus: it is too much; ask the relay that leads itself";
    return answer.length <= bus.payloadBytesMax ? answer : encode({ code: "limit", error: sentence });
  });
}

async function answerTo(bytes: Bytes, operations: () => Operations): Promise<Answer> {
  try {
    const { asked, body } = JSON.parse(new TextDecoder().decode(bytes)) as Question;
    const value = ASKED.includes(asked) ? await carryOut(asked, () => JSON.stringify(body), operations) : null;
    return value === null ? { code: "bad-input", error: "Cannot operate: the leader does not know how" } : { value };
  } catch (error) {
    if (error instanceof HeddleError) {
      return { code: error.code, error: error.message };
    }
    throw error; // then there is no answer
  }
}

export interface EdgeParts {
  readonly bus: Bus;
  readonly store: PlacedStore;
  readonly dir: string;
  /** Has this relay end. */
  readonly drain: () => void;
  /** Names the leader's process to people. */
  readonly leader: () => string;
}

/** The operations of a relay that does not lead its run: it drains itself, reads the store itself, and asks the leader for the rest. */
export function operationsOfEdge({ bus, store, dir, drain, leader }: EdgeParts): Operations {
  const ask = async (asked: string, body: object = {}): Promise<unknown> => {
    const question: Question = { asked, body };
    const reply = await bus.request(SUBJECT, encode(question), ANSWER_MS).catch((error: unknown) => {
      const sentence = `Cannot operate: the relay that leads the run, ${leader()}, does not answer; ask again in a moment`;
      throw new HeddleError("unreachable", sentence, { cause: error });
    });
    const answer = JSON.parse(new TextDecoder().decode(reply)) as Answer;
    if ("error" in answer) {
      throw new HeddleError(answer.code, answer.error);
    }
    return answer.value;
  };
  return {
    status: async () => ({ ...((await ask("GET /status")) as Status), leader: leader() }),
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
  return new TextEncoder().encode(JSON.stringify(value));
}
