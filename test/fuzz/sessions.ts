/** Targets with a memory of what was said: a framed link, the relay's host with an open session, and a contributor. */
import { digestOf, equalBytes, floatBytes, type Bytes } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { Actor, calm, honestDelta, pack, started, type World } from "../../src/coordinator/rehearsal.fixture.ts";
import { createContributor, type Contributor } from "../../src/contributor/run.ts";
import type { Work } from "../../src/contributor/work.ts";
import { parameterLayout } from "../../src/model/layout.ts";
import { createFramedLink, type FramedEnd } from "../../src/net/framed-link.ts";
import { ackFrame, closeFrame, dataFrame, readFrame } from "../../src/net/frames.ts";
import { FRAME_HEADER_BYTES, type Link } from "../../src/net/link.ts";
import { createMemoryPair } from "../../src/net/memory.ts";
import { charterDigest } from "../../src/protocol/charter-codec.ts";
import {
  contributorIdOf,
  decodeContributorMessage,
  decodeHeader,
  encodeHeader,
  encodeMessage,
  encodeReport,
  sessionProof,
} from "../../src/protocol/codec.ts";
import {
  countingBytes,
  exampleCharter,
  exampleContributorMessages,
  exampleHeader,
  exampleRelayMessages,
  exampleReport,
} from "../../src/protocol/examples.ts";
import { MESSAGE_BYTES_MAX, PIECE_BYTES } from "../../src/protocol/limits.ts";
import type { ContributorMessage, RelayMessage, VersionInfo } from "../../src/protocol/messages.ts";
import { digestPieces } from "../../src/protocol/pieces.ts";
import { createVirtualClock } from "../../src/sim/clock.ts";
import { createKeyRegistry } from "../../src/sim/keys.ts";
import { createMemoryDisk, createMemoryStore, type MemoryDisk } from "../../src/store/memory.ts";
import { packUpdate } from "../../src/update/pack.ts";
import type { Subject, Target } from "./fuzz.ts";
import { mutated } from "./mutate.ts";

/** A sentence without what differs from one time to the next. */
export function kindOf(sentence: string): string {
  return (sentence.split(":")[0] ?? "").replaceAll(/\d+/g, "N").slice(0, 80);
}

/** The frames of a few messages, pieces of one between those of another. */
export function exampleFrames(): Bytes[] {
  const large = countingBytes(1_000);
  const piece = (transfer: number, offset: number): Bytes =>
    dataFrame(transfer, large, offset).slice(0, FRAME_HEADER_BYTES + Math.min(250, large.length - offset));
  return [
    ...exampleContributorMessages.map((message, i) => dataFrame(i + 1, encodeMessage(message), 0)),
    ...[0, 250, 500, 750].flatMap((offset) => [piece(100, offset), piece(101, offset)]),
    dataFrame(102, new Uint8Array(0), 0),
    ackFrame(0),
    closeFrame("Bye"),
  ];
}

function framesSubject(): Subject {
  let closed = "";
  const openEnd = (messages: Bytes[] = []): FramedEnd => {
    closed = "";
    return createFramedLink({
      channel: { lane: "ws", send: () => undefined, close: () => undefined },
      attach: () => ({ message: (bytes) => void messages.push(bytes), closed: (reason) => void (closed = reason) }),
    });
  };
  let end = openEnd();
  return {
    corpus: exampleFrames(),
    before: 6,
    feed: (input) => {
      end = closed === "" ? end : openEnd();
      end.receive(input);
      return closed === "" ? "accepted" : readFrame(input).type === "close" ? "ended by it" : kindOf(closed);
    },
    useHonestly: async () => {
      const messages: Bytes[] = [];
      const fresh = openEnd(messages);
      exampleFrames().forEach((frame) => fresh.receive(frame));
      if (closed !== "Bye" || !messages.some((message) => equalBytes(message, countingBytes(1_000)))) {
        throw new Error(`An honest link was not served: ${closed}`);
      }
      end = openEnd();
    },
  };
}

function storedIn({ entries, values, blobs }: MemoryDisk): number {
  const objectBytes = 400; // an array, its buffer and its place, about
  const all = [...entries, ...values.values(), ...blobs.values()];
  return all.reduce((sum, bytes) => sum + bytes.length + objectBytes, 0);
}

/** Everything that a contributor of an open session may say, right now. */
async function saidBy(actor: Actor): Promise<Bytes[]> {
  const { message } = await actor.contribution(pack(honestDelta(actor.base)));
  const contribution = digestOf(message.header) as never;
  const body = encodeReport({ ...exampleReport, run: actor.world.host.view().run, validator: actor.id });
  const messages: ContributorMessage[] = [
    ...exampleContributorMessages.filter(({ type }) => type !== "contribute" && type !== "offer" && type !== "rtc"),
    { type: "ready", version: actor.world.host.head().version },
    { type: "offer", header: message.header, signature: message.signature, pieces: digestPieces(message.payload, 2) },
    { type: "piece", contribution, index: 0, bytes: message.payload.slice(0, Math.ceil(message.payload.length / 2)) },
    message,
    { type: "report", body, signature: await actor.key.sign("report", body) },
    { type: "release", assignment: actor.train().id },
    (await actor.signedOffer("v=0")).message,
  ];
  return messages.map(encodeMessage);
}

/** Who sends malformed updates may have a key: a contribution that can be read is signed anew, over the payload that it has. */
async function signedAnew(actor: Actor, input: Bytes): Promise<Bytes> {
  const read = decodeContributorMessage(input);
  if (!read.ok || read.value.type !== "contribute" || read.value.payload.length === 0) {
    return input;
  }
  const { payload } = read.value;
  const own = decodeHeader(read.value.header);
  const header = encodeHeader({
    ...(own.ok ? own.value : exampleHeader),
    payload: { digest: digestOf(payload), bytes: payload.length },
  });
  return encodeMessage({
    type: "contribute",
    header,
    signature: await actor.key.sign("contribution", header),
    payload,
  });
}

const isTraining = (one: RelayMessage): boolean => one.type === "assign" && one.assignment.type === "train";

/** A contribution to the round at hand, signed as it should be, whose update is malformed in a way that `input` chooses. */
async function contributionOf(actor: Actor, input: Bytes): Promise<Bytes> {
  const rng = createRng(digestOf(input));
  const payload = mutated([pack(honestDelta(actor.base))], rng).slice(0, PIECE_BYTES);
  if (payload.length === 0 || !actor.got.some(isTraining)) {
    return input;
  }
  return encodeMessage((await actor.contribution(payload)).message);
}

/** What a link of memory takes; longer messages are cut into frames and refused there. */
const carried = (input: Bytes): Bytes => input.slice(0, MESSAGE_BYTES_MAX);

/** Everything that was promised and waits for no timer has happened. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Rounds pass meanwhile, and sessions end and begin again: the relay closes those that send too much of it. */
async function relaySubject(): Promise<Subject> {
  let answers = 0;
  const world = await started({ answerRtc: async () => `answer ${(answers += 1)}`, log: () => undefined });
  let fed = 0;
  let corpus: Bytes[] = exampleContributorMessages.map(encodeMessage);
  let actor = new Actor(world, "stranger");
  const join = async (): Promise<void> => {
    actor = new Actor(world, "stranger");
    await actor.connect();
    await actor.ready();
    corpus = actor.got.some(isTraining) ? await saidBy(actor) : corpus;
  };
  await join();
  return {
    get corpus() {
      return corpus;
    },
    before: 3,
    feed: async (input) => {
      fed += 1;
      if (actor.closed !== null) {
        await join();
      }
      if (fed % 16 === 0) {
        await world.pass(5_000);
      }
      actor.got.splice(0, actor.got.length, ...actor.got.filter(isTraining).slice(-1));
      const sign = [contributionOf, signedAnew][input.length % 4];
      actor.pair.a.send(carried(sign === undefined ? input : await sign(actor, input)));
      await turn();
      if (world.failures.length > 0) {
        throw world.failures[0];
      }
      const refused = actor.last("refused");
      const verdict = actor.last("verdict")?.verdict;
      const reason = verdict?.type === "refused" ? verdict.reason : "accepted";
      return refused?.reason ?? (actor.closed === null ? reason : kindOf(actor.closed));
    },
    useHonestly: () => contributeHonestly(world),
    storedBytes: () => storedIn(world.disk),
  };
}

/** Joins and contributes until there is a verdict; a real contributor, too, says anew that it is ready, and is late at times. */
async function contributeHonestly(world: World): Promise<void> {
  const honest = new Actor(world, "honest");
  await honest.connect();
  const judged = (): boolean => honest.last("verdict") !== undefined;
  for (let tries = 0; tries < 40 && !judged(); tries += 1) {
    honest.got.length = 0;
    for (let waits = 0; waits < 12 && honest.last("assign") === undefined; waits += 1) {
      await honest.ready();
      await world.pass(5_000);
    }
    if (honest.last("assign")?.assignment.type === "train") {
      await honest.contribute();
      await world.pass(60_000);
    }
  }
  if (!judged()) {
    throw new Error(`An honest contribution got no verdict: ${honest.closed ?? "its session is open"}`);
  }
  honest.send({ type: "leave" });
  await calm(world.host);
}

const little = {
  ...exampleCharter,
  model: { ...exampleCharter.model, channels: 8, layers: 1, heads: 2, kvHeads: 1, hidden: 8, time: 8 },
};
const P = parameterLayout(little.model).size;

/** Work whose training is a small step and takes no time. */
const work: Work = {
  train: async (_assignment, from) => ({
    after: Float32Array.from(from, (value) => value + 0.01),
    losses: [1],
    steps: 1,
    tokens: 8,
  }),
  validate: async () => ({ assignedBefore: 2, assignedAfter: 1, randomBefore: 2, randomAfter: 1 }),
  moments: async () => null,
  restore: async () => undefined,
  [Symbol.dispose]: () => undefined,
};

/** A contributor whose relay shakes hands, mostly, and then says anything. */
async function contributorSubject(): Promise<Subject> {
  const [clock, disk, registry] = [createVirtualClock(), createMemoryDisk(), createKeyRegistry()];
  const [key, relayKey] = [registry.create("device"), registry.create("relay")];
  const params = new Float32Array(P);
  const payload = packUpdate(new Float32Array(P).fill(0.01), little.uplink);
  const blobs = [floatBytes(params), payload, countingBytes(256)];
  const head: VersionInfo = {
    version: 0,
    digest: digestOf(floatBytes(params)),
    parent: null,
    update: null,
    checkpointBytes: params.byteLength,
    evalLoss: 5,
  };
  const welcome: RelayMessage = {
    type: "welcome",
    run: charterDigest(little),
    charter: little,
    contributor: contributorIdOf(key.publicKey),
    head,
    earlier: [],
  };
  let relayEnd: Link | null = null;
  let [polite, closed, contributions] = [true, "", 0];
  const answer = (bytes: Bytes): void => {
    const read = decodeContributorMessage(bytes);
    if (!read.ok) {
      throw new Error(`A contributor sent what cannot be read: ${read.detail}`);
    }
    contributions += read.value.type === "contribute" || read.value.type === "offer" ? 1 : 0;
    if (read.value.type === "hello" && polite) {
      const nonce = new Uint8Array(32);
      const signature = relayKey.signNow("relay", sessionProof({ nonce, hello: bytes }));
      relayEnd?.send(encodeMessage({ type: "challenge", nonce, relay: relayKey.publicKey, signature }));
    } else if (read.value.type === "prove" && polite) {
      relayEnd?.send(encodeMessage(welcome));
    }
  };
  const store = createMemoryStore({ disk });
  const begin = (): Contributor =>
    createContributor({
      dial: async (attach) =>
        createMemoryPair({
          attachA: attach,
          attachB: (link) => {
            relayEnd = link;
            const ended = (reason: string): void => {
              closed = reason;
              relayEnd = relayEnd === link ? null : relayEnd;
            };
            return { message: answer, closed: ended };
          },
        }).a,
      fetchBlob: async (digest, bytesMax) => {
        const found = blobs.find((blob) => digestOf(blob) === digest && blob.length <= bytesMax);
        if (found === undefined) {
          throw new Error("There is no such blob");
        }
        return found;
      },
      store,
      clock,
      rng: createRng("contributor"),
      key,
      verify: registry.verify,
      engine: { kind: "twin", device: "test", sentence: "" },
      createWork: async () => work,
      agent: "test",
    });
  const pass = (ms: number): Promise<number> => clock.run(clock.nowMs() + ms, () => false, turn);
  let contributor = begin();
  /** Until it has dialled. What a relay may end for good, a ban or another run, ends it; then it is started again. */
  const meet = async (): Promise<void> => {
    const met = (): boolean => relayEnd !== null;
    for (let seconds = 0; seconds < 1_000 && !met(); seconds += 1) {
      if (contributor.view().status === "failed") {
        await contributor.stop();
        contributor = begin();
        contributor.start();
      }
      await pass(seconds < 60 ? 1_000 : 1_000_000);
    }
    if (!met()) {
      throw new Error(`The contributor does not dial any more: ${contributor.view().sentence}`);
    }
  };
  let rounds = 0;
  const assign = (): RelayMessage => ({
    type: "assign",
    assignment: {
      type: "train",
      id: `t${(rounds += 1)}-0`,
      round: rounds,
      baseVersion: 0,
      baseDigest: head.digest,
      seed: 1,
      stepsMax: 2,
      keep: little.uplink.keep,
      trainMs: 9_000,
    },
  });
  contributor.start();
  await meet();
  return {
    corpus: [welcome, assign(), { type: "version", head } as const, ...exampleRelayMessages].map(encodeMessage),
    before: 3,
    feed: async (input) => {
      polite = (input[0] ?? 0) % 8 !== 0;
      await meet();
      closed = "";
      relayEnd?.send(carried(input));
      await pass(100);
      return closed === "" ? "accepted" : kindOf(closed);
    },
    useHonestly: async () => {
      polite = true;
      const before = contributions;
      const worked = (): boolean => contributions > before;
      for (let tries = 0; tries < 100 && !worked(); tries += 1) {
        relayEnd?.close("The relay starts again");
        await meet();
        await pass(5_000);
        relayEnd?.send(encodeMessage(assign()));
        await pass(20_000);
      }
      if (!worked()) {
        throw new Error(`The contributor does not work any more: ${contributor.view().sentence}`);
      }
    },
    storedBytes: () => storedIn(disk),
    close: () => contributor.stop(),
  };
}

export const SESSIONS: readonly Target[] = [
  { name: "frames", inputs: 1_000_000, inputsInTest: 1_000, open: async () => framesSubject() },
  { name: "relay", inputs: 100_000, inputsInTest: 100, open: relaySubject },
  { name: "contributor", inputs: 100_000, inputsInTest: 60, open: contributorSubject },
];
