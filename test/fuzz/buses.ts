/**
 * The target of what relays of one run say to each other on the bus: links that edges carry (`net/bus-link.ts`), offers, beats and
 * news. The first byte of an input chooses who hears the rest: a leader with a link, an edge with one, who answers offers, or an
 * edge that follows the ledger. A malformed message is dropped, may end its link, and never ends a relay.
 */
import { encode } from "@msgpack/msgpack";
import { HeddleError } from "../../src/base/assert.ts";
import { concatBytes, digestOf, fromHex, textBytes, type Bytes } from "../../src/base/bytes.ts";
import { openJournal } from "../../src/coordinator/journal.ts";
import { acceptEdges, openEdge, type Edge } from "../../src/net/bus-link.ts";
import type { Attach, Link } from "../../src/net/link.ts";
import { loadStoredKey } from "../../src/net/device-key-node.ts";
import { createMemoryPair } from "../../src/net/memory.ts";
import { encodeCharter } from "../../src/protocol/charter-codec.ts";
import { exampleCharter, exampleEvents } from "../../src/protocol/examples.ts";
import { BEAT_SUBJECT, encodeBeat, readBeat } from "../../src/relay/beat.ts";
import { follow, type FollowedRun } from "../../src/relay/follow.ts";
import { NEWS_SUBJECT, readNews, toldLog } from "../../src/relay/news.ts";
import { KEY_FILE } from "../../src/relay/place.ts";
import { createVirtualClock } from "../../src/sim/clock.ts";
import type { Bus } from "../../src/store/bus.ts";
import { createMemoryStore } from "../../src/store/memory.ts";
import { OFFER } from "./readers.ts";
import type { Subject, Target } from "./fuzz.ts";

const EDGE = new Uint8Array(12).fill(5);
const [LEAD, TO_EDGE, OFFERS, BEATS, NEWS] = [0, 1, 2, 3, 4];
const LISTENERS = 5;
/** Ed25519 in PKCS 8, the same each time, so that a number names an input. */
const RELAY_KEY = concatBytes([fromHex("302e020100300506032b657004220420"), new Uint8Array(32).fill(7)]);
/** Turns of the event loop that it may take to hear an honest message: signatures are checked beside it. */
const TRIES_MAX = 10_000;
const BEAT = { epoch: 1, leader: "process 1 on a", version: 0, round: 7, phase: "training", connected: 3 } as const;

/** An end of a bus whose other end is the fuzzer: what is published is kept, and what is heard is handed in. */
interface Wire {
  readonly bus: Bus;
  readonly published: Bytes[];
  hear(subject: string, payload: Bytes): void;
  /** The reply to `payload`, by the only one who answers. */
  ask(payload: Bytes): Promise<Bytes>;
}

function wireOf(): Wire {
  const takers = new Map<string, (payload: Bytes) => void>();
  const published: Bytes[] = [];
  let answers: ((payload: Bytes) => Promise<Bytes>) | undefined;
  return {
    bus: {
      payloadBytesMax: 1_048_576,
      publish: (_, payload) => void published.push(payload),
      subscribe: async (subject, take) => {
        takers.set(subject, take);
        return () => takers.delete(subject);
      },
      request: () => Promise.reject(new HeddleError("unreachable", "Nobody answers")),
      answer: async (_, reply) => {
        answers = reply;
        return () => undefined;
      },
      onInterrupt: () => () => undefined,
      close: async () => undefined,
    },
    published,
    hear: (subject, payload) => takers.get(subject)?.(payload),
    ask: async (payload) => (await answers?.(payload)) ?? new Uint8Array(),
  };
}

/** A leader that has the link which `opening` opens; null when it was not opened. */
async function leaderOf(opening: Bytes) {
  const wire = wireOf();
  const links: { readonly link: Link; ended: boolean; messages: number }[] = [];
  const attach: Attach = (link) => {
    const one = { link, ended: false, messages: 0 };
    links.push(one);
    return { message: () => void (one.messages += 1), closed: () => void (one.ended = true) };
  };
  let served = 0;
  const onServed = (bytes: number): void => void (served += bytes);
  const acceptor = await acceptEdges({ bus: wire.bus, epoch: 1, attach, linksMax: 2, onServed });
  wire.hear("lead.1", opening);
  return { wire, links, acceptor, served: () => served };
}

/** An edge that has carried one link; whether that has ended. */
async function edgeOf() {
  const wire = wireOf();
  const answerRtc = async (sdp: string): Promise<string> => sdp;
  const edge: Edge = await openEdge({ bus: wire.bus, epoch: 1, edge: EDGE, answerRtc });
  let [ended, messages] = [false, 0];
  const attachA: Attach = () => ({ message: () => void (messages += 1), closed: () => void (ended = true) });
  const { a } = createMemoryPair({ attachA, attachB: (link) => edge.attach(link, { prefix: "203.0.113.0/24" }) });
  return { wire, edge, link: a, ended: () => ended, messages: () => messages };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
/** News are taken after a turn of the timers, and verified beside it. */
const newsTaken = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2));

async function hearAsLeader(opening: Bytes, input: Bytes): Promise<string> {
  const { wire, links, acceptor, served } = await leaderOf(opening);
  const said = wire.published.length;
  wire.hear("lead.1", input);
  await settled();
  if (acceptor.links() > 2 || served() < 0 || !Number.isSafeInteger(served())) {
    throw new Error(`It has ${acceptor.links()} links and counts ${served()} bytes served`);
  }
  const first = links[0];
  const outcome =
    links.length > 1 || served() > 0 || (first?.messages ?? 0) > 0
      ? "accepted"
      : first?.ended === true
        ? "link ended"
        : wire.published.length > said
          ? "answered"
          : "dropped";
  acceptor.close("Over");
  return outcome;
}

async function hearAsEdge(input: Bytes): Promise<string> {
  const { wire, edge, ended, messages } = await edgeOf();
  const said = wire.published.length;
  wire.hear(`edge.${"05".repeat(12)}.1`, input);
  await settled();
  const outcome =
    messages() > 0 ? "accepted" : ended() ? "link ended" : wire.published.length > said ? "answered" : "dropped";
  edge.close("Over");
  return outcome;
}

/** A refused offer gets no answer, as `Bus.answer` says. */
async function hearOffer(input: Bytes): Promise<string> {
  const { wire, edge } = await edgeOf();
  try {
    await wire.ask(input);
    return "accepted";
  } catch (error) {
    if (error instanceof HeddleError && error.code === "bad-input") {
      return error.code;
    }
    throw error;
  } finally {
    edge.close("Over");
  }
}

/** An edge that follows a ledger, and its leader's hand on it. */
async function followerOf() {
  const wire = wireOf();
  const store = createMemoryStore();
  const charter = encodeCharter(exampleCharter);
  await store.keys.set("charter", charter);
  await store.keys.set(KEY_FILE, RELAY_KEY);
  const key = await loadStoredKey(store.keys, KEY_FILE);
  const [example] = exampleEvents;
  if (example?.type !== "started") {
    throw new Error("Expected the first example to begin a run");
  }
  const journalOptions = { log: toldLog(store.log, wire.bus), key, clock: createVirtualClock() };
  const { journal } = await openJournal({ ...journalOptions, epoch: 1 });
  await journal.append(
    [
      { ...example, run: digestOf(charter), relay: key.publicKey },
      { type: "led", epoch: 1 },
    ],
    1,
  );
  const failures: unknown[] = [];
  let said: string | null = null;
  const runs: FollowedRun[] = [];
  const following = await follow({
    bus: wire.bus,
    store,
    name: "process 2 on b",
    newsMs: 0,
    answerRtc: async () => "",
    onReady: async (run) => void runs.push(run),
    onChange: () => undefined,
    onFailure: (error) => failures.push(error),
    log: (sentence) => {
      said = sentence;
    },
  });
  wire.hear(BEAT_SUBJECT, encodeBeat(BEAT));
  while (runs.length === 0 && failures.length === 0) {
    await settled();
  }
  return { wire, store, journal, failures, said: () => said, following, run: () => runs[0] as FollowedRun };
}

async function busSubject(): Promise<Subject> {
  const edge = await edgeOf();
  const { link } = edge;
  link.send(textBytes("to the leader"));
  await settled();
  edge.edge.countServed(1_000);
  const toLeader = [...edge.wire.published];
  const [opening] = toLeader as [Bytes];
  edge.edge.close("Over");
  const leader = await leaderOf(opening);
  leader.links[0]?.link.send(textBytes("to the edge"));
  await settled();
  leader.acceptor.close("Over");
  const toEdge = [...leader.wire.published];

  const world = await followerOf();
  const entries = await world.store.log.read(0, 10);
  const oldNews = [
    encode([entries.length, entries]), // do not come next in the chain
    encode([entries.length + 5, entries.slice(1)]),
    encode([0, entries]),
    Uint8Array.of(0x81, 0xc0, 0xc0), // msgpack that no decoder makes a value of: a key that is nil
  ];
  const from = (listener: number | undefined, samples: readonly Uint8Array[]): Bytes[] =>
    samples.map((sample) => concatBytes([Uint8Array.of(listener ?? 0), sample]));
  const corpus = [
    ...from(LEAD, toLeader),
    ...from(TO_EDGE, toEdge),
    ...from(OFFERS, [concatBytes([Uint8Array.of(1, 0, 0, 0), textBytes(OFFER)])]),
    ...from(BEATS, [encodeBeat(BEAT)]),
    ...from(NEWS, oldNews),
  ];
  let paused = false;
  /** The news of one more entry in the store. */
  const append = async (): Promise<Bytes> => {
    paused = !paused;
    world.wire.published.length = 0;
    await world.journal.append([{ type: paused ? "paused" : "resumed" }], 2);
    return world.wire.published[0] as Bytes;
  };
  const samples = corpus.length;
  /** Stores an entry that the edge may hear of in what is fed next. */
  const appendUntold = async (): Promise<void> => {
    corpus.splice(samples, 1, ...from(NEWS, [await append()]));
  };
  // Honest news are taken as they are: or malformed ones would be refused for their signature alone.
  world.wire.hear(NEWS_SUBJECT, await append());
  while (world.following.fold()?.chain.length !== world.journal.length() && world.said() === null) {
    await settled();
  }
  if (world.said() !== null) {
    throw new Error(`Honest news: ${world.said()}`);
  }
  await appendUntold();
  const checkFailures = (): void => {
    if (world.failures.length > 0) {
      throw world.failures[0];
    }
  };
  const hearAsFollower = async (subject: string, input: Bytes, isRead: boolean): Promise<string> => {
    world.wire.hear(subject, input);
    await (isRead && subject === NEWS_SUBJECT ? newsTaken() : settled());
    checkFailures();
    return isRead ? "accepted" : "dropped";
  };
  return {
    corpus,
    feed: async (whole) => {
      const input = whole.slice(1);
      switch ((whole[0] ?? 0) % LISTENERS) {
        case LEAD:
          return hearAsLeader(opening, input);
        case TO_EDGE:
          return hearAsEdge(input);
        case OFFERS:
          return hearOffer(input);
        case BEATS:
          return hearAsFollower(BEAT_SUBJECT, input, readBeat(input) !== null);
        default:
          return hearAsFollower(NEWS_SUBJECT, input, readNews(input) !== null);
      }
    },
    // Whatever came before, it takes what the leader tells it, has the ledger as it is in the store, and still hears the leader.
    useHonestly: async () => {
      world.wire.hear(NEWS_SUBJECT, await append());
      const connected = world.run().view().connected + 1;
      world.wire.hear(BEAT_SUBJECT, encodeBeat({ ...BEAT, connected }));
      const stored = digestOf((await world.store.log.read(world.journal.length() - 1, 1))[0] as Bytes);
      const isHeard = (): boolean =>
        world.following.fold()?.chain.digest === stored && world.run().view().connected === connected;
      for (let tries = 0; tries < TRIES_MAX && !isHeard(); tries += 1) {
        await settled();
      }
      checkFailures();
      if (!isHeard()) {
        throw new Error("What the leader told was not taken");
      }
      await appendUntold();
    },
    close: () => world.following.close("Over"),
  };
}

export const BUSES: readonly Target[] = [{ name: "bus", inputs: 1_000_000, inputsInTest: 500, open: busSubject }];
