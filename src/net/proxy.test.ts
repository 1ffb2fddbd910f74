import { describe, expect, test } from "vitest";
import { LINK_CASES, recorder, type LinkPlace } from "./contract.ts";
import type { Link } from "./link.ts";
import { createMemoryPair, type Schedule } from "./memory.ts";
import { answerRtcFromWorker, dialRtcFromWorker, linkFromPort, serveLink, serveRtc, type PageRtc } from "./proxy.ts";

const serveDial = (port: MessagePort, dial: PageRtc["dial"]): void =>
  serveRtc(port, { dial, answer: () => Promise.reject(new Error("not asked")) });

const place: LinkPlace = {
  connect: async ({ attachA, attachB, messageBytesMax }) => {
    const { port1, port2 } = new MessageChannel();
    const a = linkFromPort(port1, attachA, { messageBytesMax });
    const schedule: Schedule = (_, arrive) => void setImmediate(arrive); // after what the port has brought
    const { b } = createMemoryPair({ attachA: (link) => serveLink(link, port2), attachB, messageBytesMax, schedule });
    return { a, b };
  },
};

describe("linkFromPort() through serveLink() keeps the contract", () => {
  test.each(LINK_CASES)("$name", ({ run }) => run(place));
});

test("linkFromPort() hears of the end of a link that the other end closes, and of bytes both ways", async () => {
  const { port1, port2 } = new MessageChannel();
  const [a, b] = [recorder(), recorder()];
  const link = linkFromPort(port1, a.attach);
  link.send(new Uint8Array(265_000));
  const far = createMemoryPair({ attachA: (near) => serveLink(near, port2), attachB: b.attach }).b;
  await link.drained();
  far.send(Uint8Array.of(1));
  expect(await a.next()).toEqual(Uint8Array.of(1));
  expect([link.bytesSent, link.bytesReceived]).toEqual([265_000, 1]);
  far.close("The relay is stopping");
  expect(await a.closed()).toBe("The relay is stopping");
});

test("linkFromPort() hears that the page's link gets on with a large message", async () => {
  const { port1, port2 } = new MessageChannel();
  const taken = Promise.withResolvers<void>();
  linkFromPort(port1, () => ({ ...recorder().attach({} as Link), taken: taken.resolve }));
  createMemoryPair({
    attachA: (link) => {
      const handlers = serveLink(link, port2);
      handlers.taken?.();
      return handlers;
    },
    attachB: recorder().attach,
  });
  await taken.promise;
});

test("dialRtcFromWorker() has the page dial, carries its signalling and its messages", async () => {
  const { port1, port2 } = new MessageChannel();
  const [a, b] = [recorder(), recorder()];
  let far: Link | undefined;
  serveDial(port2, async ({ exchange, attach, messageBytesMax = 0 }) => {
    expect(await exchange("an offer")).toBe("the answer to an offer");
    const pair = createMemoryPair({ attachA: attach, attachB: b.attach, messageBytesMax });
    far = pair.b;
    pair.b.send(Uint8Array.of(1));
    return pair.a;
  });
  const exchange = async (offer: string): Promise<string> => `the answer to ${offer}`;
  const link = await dialRtcFromWorker(port1, { exchange, attach: a.attach });
  expect(await a.next()).toEqual(Uint8Array.of(1));
  link.send(Uint8Array.of(2));
  expect(await b.next()).toEqual(Uint8Array.of(2));
  far?.close("The page is closing");
  expect(await a.closed()).toBe("The page is closing");
});

test("dialRtcFromWorker() rejects with the page's reason when signalling fails", async () => {
  const { port1, port2 } = new MessageChannel();
  serveDial(port2, async ({ exchange }) => {
    await exchange("an offer");
    throw new Error("unreached");
  });
  const exchange = (): Promise<string> => Promise.reject(new Error("no relay"));
  const dialling = dialRtcFromWorker(port1, { exchange, attach: recorder().attach });
  await expect(dialling).rejects.toMatchObject({ code: "unreachable", message: "no relay" });
});

test("dialRtcFromWorker() rejects when the page does not answer at all", async () => {
  const { port1 } = new MessageChannel();
  const exchange = async (): Promise<string> => "";
  const dialling = dialRtcFromWorker(port1, { exchange, attach: recorder().attach, timeoutMs: 10 });
  await expect(dialling).rejects.toMatchObject({ code: "unreachable" });
});

test("answerRtcFromWorker() has the page answer, carries its link, and rejects with the page's reason", async () => {
  const [a, b] = [recorder(), recorder()];
  const answer: PageRtc["answer"] = async ({ offerSdp, attach }) => {
    if (offerSdp !== "an offer") {
      throw new Error("no offer");
    }
    setImmediate(() => createMemoryPair({ attachA: attach, attachB: b.attach }).b.send(Uint8Array.of(1)));
    return "its answer";
  };
  const begin = (offerSdp: string): Promise<string> => {
    const { port1, port2 } = new MessageChannel();
    serveRtc(port2, { dial: () => Promise.reject(new Error("not asked")), answer });
    return answerRtcFromWorker(port1, { offerSdp, attach: a.attach });
  };
  await expect(begin("nonsense")).rejects.toMatchObject({ code: "bad-input", message: "no offer" });
  expect(await begin("an offer")).toBe("its answer");
  expect(await a.next()).toEqual(Uint8Array.of(1));
});
