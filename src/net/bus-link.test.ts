import { describe, expect, test, vi } from "vitest";
import { HeddleError } from "../base/assert.ts";
import type { Bus } from "../store/bus.ts";
import { createMemoryHub, type MemoryHub } from "../store/bus-memory.ts";
import { acceptEdges, openEdge, randomEdge, type Edge, type AttachFrom, type EdgeAcceptor } from "./bus-link.ts";
import { LINK_CASES, recorder, type Recorder } from "./contract.ts";
import { FRAME_HEADER_BYTES, type Attach, type Link } from "./link.ts";
import { createMemoryPair, type MemoryPair } from "./memory.ts";

const LIMITS = { epoch: 1, messageBytesMax: 100_000 };

const PREFIX = "203.0.113.0/24";

interface Place {
  readonly hub: MemoryHub;
  readonly edge: Edge;
  readonly acceptor: EdgeAcceptor;
  /** The leader's ends, in the order in which they came. */
  readonly ends: Recorder[];
  readonly links: Link[];
  readonly served: number[];
  /** Where the links came from, as the leader hears it. */
  readonly prefixes: (string | null)[];
  /** Links of a contributor and the edge. */
  dial(attach?: Attach): MemoryPair;
}

interface PlaceOptions {
  /** Between the edge and the hub. */
  readonly through?: (bus: Bus) => Bus;
  readonly messageBytesMax?: number;
  readonly linksMax?: number;
  readonly edgeEpoch?: number;
  readonly answerRtc?: (sdp: string, attach: Attach) => Promise<string>;
}

async function placeOf({
  through = (bus) => bus,
  messageBytesMax = LIMITS.messageBytesMax,
  linksMax = 10,
  edgeEpoch = 1,
  answerRtc = async () => "no",
}: PlaceOptions = {}): Promise<Place> {
  const hub = createMemoryHub();
  const [ends, links, served]: [Recorder[], Link[], number[]] = [[], [], []];
  const prefixes: (string | null)[] = [];
  const attach: AttachFrom = (link, { prefix }) => {
    const end = recorder();
    ends.push(end);
    links.push(link);
    prefixes.push(prefix);
    return end.attach(link);
  };
  const onServed = (bytes: number): unknown => served.push(bytes);
  const acceptor = await acceptEdges({ bus: hub.connect(), epoch: 1, messageBytesMax, attach, linksMax, onServed });
  const bus = through(hub.connect());
  const edge = await openEdge({ bus, epoch: edgeEpoch, messageBytesMax, edge: randomEdge(), answerRtc });
  const dial = (attachA: Attach = recorder().attach): MemoryPair =>
    createMemoryPair({ attachA, attachB: (link) => edge.attach(link, { prefix: PREFIX }), messageBytesMax });
  return { hub, edge, acceptor, ends, links, served, prefixes, dial };
}

describe("a link through an edge keeps the contract", () => {
  test.each(LINK_CASES)("$name", ({ run }) =>
    run({
      connect: async ({ attachA, attachB, messageBytesMax }) => {
        const hub = createMemoryHub();
        const accepted = Promise.withResolvers<Link>();
        const attach: Attach = (link) => {
          accepted.resolve(link);
          return attachB(link);
        };
        const options = { epoch: 1, messageBytesMax };
        await acceptEdges({ ...options, bus: hub.connect(), attach, linksMax: 1, onServed: () => undefined });
        const answerRtc = async (): Promise<string> => "no";
        const edge = await openEdge({ ...options, bus: hub.connect(), edge: randomEdge(), answerRtc });
        const { a } = createMemoryPair({
          attachA,
          attachB: (link) => edge.attach(link, { prefix: null }),
          messageBytesMax,
        });
        return { a, b: await accepted.promise };
      },
    }),
  );
});

test("the leader hears from which network a link comes", async () => {
  const { prefixes, dial, ends } = await placeOf();
  dial();
  await vi.waitFor(() => expect(ends.length).toBe(1));
  expect(prefixes).toEqual([PREFIX]);
});

test("a message that the bus loses ends its link at both ends and no other", async () => {
  let lose = false;
  const through = (bus: Bus): Bus => ({
    ...bus,
    publish: (subject, payload) => {
      if (lose) {
        lose = false;
      } else {
        bus.publish(subject, payload);
      }
    },
  });
  const place = await placeOf({ through });
  const end = recorder();
  const [broken, whole] = [place.dial(end.attach), place.dial()];
  await vi.waitUntil(() => place.ends.length === 2);
  broken.a.send(Uint8Array.of(1));
  expect(await place.ends[0]?.next()).toEqual(Uint8Array.of(1));
  lose = true;
  broken.a.send(Uint8Array.of(2));
  broken.a.send(Uint8Array.of(3));
  expect(await place.ends[0]?.closed()).toBe("A message between two relays was lost");
  expect(await end.closed()).toBe("A message between two relays was lost");
  whole.a.send(Uint8Array.of(4));
  expect(await place.ends[1]?.next()).toEqual(Uint8Array.of(4));
  expect([place.ends[0]?.count(), place.acceptor.links()]).toEqual([0, 1]);
});

test("the leader hears of a message that still arrives at the edge, so that it takes nobody on a slow line for dead", async () => {
  const { edge, links, ends } = await placeOf();
  const handlers = edge.attach(createMemoryPair({ attachA: recorder().attach, attachB: recorder().attach }).a, {
    prefix: null,
  });
  await vi.waitFor(() => expect(ends.length).toBe(1));
  expect(links[0]?.bytesReceived).toBe(0);
  handlers.arriving?.();
  await vi.waitFor(() => expect(links[0]?.bytesReceived).toBe(FRAME_HEADER_BYTES));
  handlers.message(Uint8Array.of(1));
  expect(await ends[0]?.next()).toEqual(Uint8Array.of(1));
});

test("an interrupted bus ends all links at both ends, and new ones are carried", async () => {
  const place = await placeOf();
  const end = recorder();
  place.dial(end.attach);
  await vi.waitUntil(() => place.ends.length === 1);
  place.hub.interrupt("The connection between the relays broke");
  expect(await end.closed()).toBe("The connection between the relays broke");
  expect(await place.ends[0]?.closed()).toBe("The connection between the relays broke");
  place.dial().a.send(Uint8Array.of(5));
  await vi.waitUntil(() => place.ends.length === 2);
  expect(await place.ends[1]?.next()).toEqual(Uint8Array.of(5));
});

test("a link of which the leader knows nothing ends as soon as it says something", async () => {
  let lose = true;
  const through = (bus: Bus): Bus => ({
    ...bus,
    publish: (subject, payload) => {
      if (!lose) {
        bus.publish(subject, payload);
      }
      lose = false;
    },
  });
  const place = await placeOf({ through });
  const end = recorder();
  place.dial(end.attach).a.send(Uint8Array.of(1));
  expect(await end.closed()).toBe("The link has ended at the leader");
  expect(place.ends.length).toBe(0);
});

test("an edge of another epoch and the leader do not hear each other", async () => {
  const place = await placeOf({ edgeEpoch: 2 });
  const end = recorder();
  place.dial(end.attach).a.send(Uint8Array.of(1));
  await new Promise((settle) => setTimeout(settle, 20));
  expect([place.ends.length, end.reasons()]).toEqual([0, []]);
  place.edge.close("Another relay leads this run now");
  expect(await end.closed()).toBe("Another relay leads this run now");
});

test("acceptEdges() takes linksMax links and no more", async () => {
  const place = await placeOf({ linksMax: 1 });
  const end = recorder();
  const first = place.dial();
  place.dial(end.attach);
  expect(await end.closed()).toBe("The relay has no room for more sessions");
  first.a.close("Done");
  expect(place.acceptor.edges()).toBe(1);
  await vi.waitUntil(() => place.acceptor.links() === 0);
  expect(place.acceptor.edges()).toBe(0);
  place.dial();
  await vi.waitUntil(() => place.ends.length === 2);
});

test("an edge that takes nothing any more ends its links at the leader before much waits for it", async () => {
  let frozen = false;
  const through = (bus: Bus): Bus => ({
    ...bus,
    subscribe: (subject, take) => bus.subscribe(subject, (payload) => (frozen ? undefined : take(payload))),
  });
  const place = await placeOf({ through });
  place.dial();
  await vi.waitUntil(() => place.ends.length === 1);
  frozen = true;
  let sent = 0;
  for (; sent < 10_000 && place.ends[0]?.reasons().length === 0; sent += 1) {
    place.links[0]?.send(new Uint8Array(1_000));
  }
  expect(place.ends[0]?.reasons()).toEqual(["The other end does not take what is sent to it"]);
  expect([sent < 7_000, place.acceptor.links()]).toEqual([true, 0]);
});

test("an offer that came over an edge is answered by it, and its second link finds its session", async () => {
  let second: MemoryPair | undefined;
  const place = await placeOf({
    answerRtc: async (sdp, attach) => {
      queueMicrotask(() => {
        second = createMemoryPair({ attachA: recorder().attach, attachB: attach });
      });
      return `answer to ${sdp}`;
    },
  });
  place.dial();
  await vi.waitUntil(() => place.ends.length === 1);
  const answer = place.acceptor.answererOf(place.links[0] as Link);
  const end = recorder();
  expect(await answer?.("offer", end.attach)).toBe("answer to offer");
  await vi.waitUntil(() => second !== undefined);
  second?.a.send(Uint8Array.of(9));
  expect(await end.next()).toEqual(Uint8Array.of(9));
  expect(place.ends.length).toBe(1);
  const stranger = createMemoryPair({ attachA: recorder().attach, attachB: recorder().attach });
  expect(place.acceptor.answererOf(stranger.a)).toBeUndefined();
});

test("countServed() tells the leader what an edge has served beside its links", async () => {
  const place = await placeOf();
  place.edge.countServed(5_000_000_000);
  await vi.waitUntil(() => place.served.length === 1);
  expect(place.served).toEqual([5_000_000_000]);
});

test("a link that the leader turns away at once takes up no room there", async () => {
  const hub = createMemoryHub();
  const attach: AttachFrom = (link) => {
    link.close("busy");
    return { message: () => undefined, closed: () => undefined };
  };
  const acceptor = await acceptEdges({ ...LIMITS, bus: hub.connect(), attach, linksMax: 2, onServed: () => undefined });
  const edge = await openEdge({ ...LIMITS, bus: hub.connect(), edge: randomEdge(), answerRtc: async () => "no" });
  for (let dials = 0; dials < 4; dials += 1) {
    const end = recorder();
    createMemoryPair({ attachA: end.attach, attachB: (link) => edge.attach(link, { prefix: null }) });
    expect(await end.closed()).toBe("busy");
  }
  expect(acceptor.links()).toBe(0);
});

test("an edge that could not begin leaves nothing behind that ends the links of the next", async () => {
  let away = true;
  const hub = createMemoryHub();
  const place = hub.connect();
  const bus: Bus = {
    ...place,
    answer: async (...given) => {
      if (away) {
        throw new HeddleError("unreachable", "Cannot answer: the bus is away");
      }
      return place.answer(...given);
    },
  };
  const [ends, end] = [recorder(), recorder()];
  const links: Link[] = [];
  const attach: AttachFrom = (link) => {
    links.push(link);
    return ends.attach(link);
  };
  await acceptEdges({ ...LIMITS, bus: hub.connect(), attach, linksMax: 2, onServed: () => undefined });
  const options = { ...LIMITS, bus, edge: randomEdge(), answerRtc: async () => "no" };
  await expect(openEdge(options)).rejects.toMatchObject({ code: "unreachable" });
  away = false;
  const edge = await openEdge(options);
  const { a } = createMemoryPair({ attachA: end.attach, attachB: (link) => edge.attach(link, { prefix: null }) });
  await vi.waitUntil(() => links.length === 1);
  links[0]?.send(Uint8Array.of(1));
  expect(await Promise.race([end.next(), end.closed()])).toEqual(Uint8Array.of(1));
  a.send(Uint8Array.of(2));
  expect(await Promise.race([ends.next(), ends.closed()])).toEqual(Uint8Array.of(2));
});
