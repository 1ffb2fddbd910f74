/**
 * A contributor that speaks the real protocol over a real WebSocket and does whatever a test wants with its updates: it
 * trains honestly, then the test decides what is sent instead.
 */
import { present } from "../../src/base/assert.ts";
import { bytesToFloats, digestOf, type Bytes, type ContributorId, type Digest } from "../../src/base/bytes.ts";
import { createCorpus, type Corpus } from "../../src/data/corpus.ts";
import { batchAt } from "../../src/data/batch.ts";
import { createTrainer, type Trainer } from "../../src/model/trainer.ts";
import { createDeviceKey } from "../../src/net/device-key.ts";
import { createBlobFetcher } from "../../src/net/http.ts";
import type { Link } from "../../src/net/link.ts";
import { dialWebSocket } from "../../src/net/ws-client.ts";
import type { Charter } from "../../src/protocol/charter.ts";
import {
  contributionIdOf,
  decodeRelayMessage,
  encodeHeader,
  encodeMessage,
  sessionProof,
} from "../../src/protocol/codec.ts";
import type { DeviceKey } from "../../src/protocol/keys.ts";
import { PROTOCOL_VERSION } from "../../src/protocol/limits.ts";
import type {
  ContributionHeader,
  ContributorMessage,
  RelayMessage,
  TrainAssignment,
  VersionInfo,
} from "../../src/protocol/messages.ts";
import { deltaOf } from "../../src/update/delta.ts";
import { createWasmEngine } from "../../src/wasm/engine.ts";

export interface HonestWork {
  readonly assignment: TrainAssignment;
  /** base − after, [P] */
  readonly delta: Float32Array;
  readonly header: Omit<ContributionHeader, "payload">;
}

export interface Liar {
  readonly contributor: ContributorId;
  readonly charter: Charter;
  readonly inbox: readonly RelayMessage[];
  readonly closed: boolean;
  /** Waits for the next train assignment, trains a few steps on it and returns what an honest contributor would send. */
  work(): Promise<HonestWork>;
  /** Signs and sends; resolves to the relay's answer to it: "accepted" or the reason. */
  send(
    header: Omit<ContributionHeader, "payload">,
    payload: Bytes,
    claimed?: { digest: Digest; bytes: number },
  ): Promise<string>;
  /** Sends the same bytes again. */
  repeat(): Promise<string>;
  sendRaw(bytes: Bytes): void;
  leave(): void;
}

/** Joins the relay at `origin` with a fresh key. */
export async function joinAsLiar(origin: string): Promise<Liar> {
  const key = await createDeviceKey();
  const inbox: RelayMessage[] = [];
  const line: Line = { inbox, wakers: new Set(), closed: null };
  /** It shows that it is there, and does not check others' work: the relay's referee does, at once. */
  const reply = (message: RelayMessage): void => {
    if (message.type === "ping") {
      link.send(encodeMessage({ type: "pong" }));
    } else if (message.type === "assign" && message.assignment.type === "validate") {
      link.send(encodeMessage({ type: "release", assignment: message.assignment.id }));
    }
  };
  const link: Link = await dialWebSocket({
    url: `${origin.replace("http", "ws")}/link`,
    attach: () => ({
      message: (bytes) => {
        const message = decodeRelayMessage(bytes);
        if (message.ok) {
          inbox.push(message.value);
          reply(message.value);
        }
        line.wakers.forEach((wake) => wake());
      },
      closed: (reason) => {
        line.closed = reason;
        line.wakers.forEach((wake) => wake());
      },
    }),
  });
  const next = <T extends RelayMessage["type"]>(
    type: T,
    fits: (message: Extract<RelayMessage, { type: T }>) => boolean = () => true,
  ) =>
    waitFor(
      line,
      (message): message is Extract<RelayMessage, { type: T }> =>
        message.type === type && fits(message as Extract<RelayMessage, { type: T }>),
    );
  const welcome = await shakeHands(link, key, next);
  const student = await createStudent(origin, welcome.charter);
  let head: VersionInfo = welcome.head;
  let lastMessage: Bytes | undefined;
  let lastId: string | undefined;
  const say = (message: ContributorMessage): void => link.send(encodeMessage(message));

  const answerTo = async (id: string, since: number): Promise<string> => {
    const answer = await waitFor(
      line,
      (message, i): message is RelayMessage =>
        i >= since && (message.type === "refused" || (message.type === "verdict" && message.contribution === id)),
    );
    if (answer.type === "verdict") {
      return answer.verdict.type === "accepted" ? "accepted" : answer.verdict.reason;
    }
    return answer.type === "refused" ? answer.reason : "nothing";
  };

  return {
    contributor: welcome.contributor,
    charter: welcome.charter,
    inbox,
    get closed() {
      return line.closed !== null;
    },
    work: async () => {
      const since = inbox.length;
      for (const message of inbox) {
        head = message.type === "version" ? message.head : head;
      }
      say({ type: "ready", version: head.version });
      let assignment: TrainAssignment | undefined;
      for (let from = since; assignment === undefined;) {
        const message = await waitFor(
          line,
          (candidate, i): candidate is RelayMessage =>
            i >= from && (candidate.type === "version" || candidate.type === "assign"),
        );
        from = inbox.indexOf(message) + 1;
        if (message.type === "version") {
          head = message.head;
        } else if (message.type === "assign" && message.assignment.type === "train") {
          assignment = message.assignment;
          continue;
        }
        say({ type: "ready", version: head.version }); // also after a validation that was given back
      }
      return student.work(assignment, welcome);
    },
    send: async (header, payload, claimed = { digest: digestOf(payload), bytes: payload.length }) => {
      const bytes = encodeHeader({ ...header, payload: claimed });
      const since = inbox.length;
      lastId = contributionIdOf(bytes);
      lastMessage = encodeMessage({
        type: "contribute",
        header: bytes,
        signature: await key.sign("contribution", bytes),
        payload,
      });
      link.send(lastMessage);
      return answerTo(lastId, since);
    },
    repeat: () => {
      const since = inbox.length;
      link.send(present(lastMessage, "a message to repeat"));
      return answerTo(present(lastId, "its id"), since);
    },
    sendRaw: (bytes) => link.send(bytes),
    leave: () => link.close("done"),
  };
}

type Next = <T extends RelayMessage["type"]>(type: T) => Promise<Extract<RelayMessage, { type: T }>>;

async function shakeHands(link: Link, key: DeviceKey, next: Next): Promise<Extract<RelayMessage, { type: "welcome" }>> {
  const hello = encodeMessage({
    type: "hello",
    protocol: PROTOCOL_VERSION,
    publicKey: key.publicKey,
    nonce: crypto.getRandomValues(new Uint8Array(32)),
    agent: "end-to-end test",
    engine: "wasm",
    device: "test",
    privateData: false,
  });
  link.send(hello);
  const { nonce } = await next("challenge");
  link.send(encodeMessage({ type: "prove", signature: await key.sign("session", sessionProof({ nonce, hello })) }));
  return next("welcome");
}

/** Trains as an honest contributor would, but only four steps. */
async function createStudent(
  origin: string,
  charter: Charter,
): Promise<{
  work(assignment: TrainAssignment, welcome: Extract<RelayMessage, { type: "welcome" }>): Promise<HonestWork>;
}> {
  const fetchBlob = createBlobFetcher({ origin });
  const engine = await createWasmEngine({ threads: 1 });
  const trainer: Trainer = await createTrainer(engine, { model: charter.model, inner: charter.inner });
  const shards = charter.train.flatMap((dataset) => dataset.shards);
  const corpus: Corpus = createCorpus(await Promise.all(shards.map((shard) => fetchBlob(shard.digest, shard.bytes))));
  return {
    work: async (assignment, welcome) => {
      const base = bytesToFloats(await fetchBlob(assignment.baseDigest, welcome.head.checkpointBytes));
      trainer.load(base);
      const steps = 4;
      let loss = 0;
      for (let step = 0; step < steps; step += 1) {
        const { seed, round } = assignment;
        const place = {
          seed,
          round,
          contributor: welcome.contributor,
          step,
          batch: charter.inner.batch,
          time: charter.model.time,
        };
        ({ loss } = await trainer.step(batchAt(corpus, place)));
      }
      const delta = deltaOf(base, await trainer.parameters(), 2) as Float32Array;
      const header = {
        run: welcome.run,
        contributor: welcome.contributor,
        assignment: assignment.id,
        round: assignment.round,
        baseVersion: assignment.baseVersion,
        baseDigest: assignment.baseDigest,
        steps,
        ahead: 0,
        tokens: steps * trainer.tokensPerStep,
        loss,
        privateData: false,
      };
      return { assignment, delta, header };
    },
  };
}

/** What has come over a liar's link. */
interface Line {
  readonly inbox: readonly RelayMessage[];
  readonly wakers: Set<() => void>;
  /** Why it was closed. */
  closed: string | null;
}

/** Longer than a disk that is busy keeps the relay waiting for its ledger. */
const ANSWER_MS = 120_000;

async function waitFor<T extends RelayMessage>(
  line: Line,
  fits: (message: RelayMessage, index: number) => message is T,
): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const fail = (what: string): void => {
    reject(new Error(`The relay ${what}; it sent: ${line.inbox.map(({ type }) => type).join(", ")}`));
  };
  const timer = setTimeout(() => fail("did not answer"), ANSWER_MS);
  const check = (): void => {
    const found = line.inbox.find(fits);
    if (found !== undefined) {
      resolve(found as T);
    } else if (line.closed !== null) {
      fail(`closed the link (${line.closed})`);
    }
  };
  line.wakers.add(check);
  check();
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    line.wakers.delete(check);
  }
}
